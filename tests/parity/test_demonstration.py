"""The demonstration packages, through the engine, against eager Transformers on held-out inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    VisionEncoderDecoderModel,
)

from regard.config import EngineSettings
from regard.engine.observer import SilentObserver
from regard.engine.request import Classification, ClassifyRequest, GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Pixels, Source, Tokens
from regard.manifest import load_package
from regard.text.codec import TextCodec
from regard.vision.codec import ImageCodec
from regard.worker import Worker
from scene_judge import held_out

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "export" / "checkpoints"
DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-4
TIE_MARGIN = 1e-4
MAX_NEW_TOKENS = 100

Served = tuple[Worker, TextCodec]
Asked = tuple[Source, dict[str, torch.Tensor]]
"""What the engine is given, and the arguments of the eager model for the same."""


@pytest.fixture(scope="module")
def serve(packages: Path) -> Iterator[Callable[[str], Served]]:
    """Start the worker of a demonstration package, with all of its attention within reach."""
    workers: list[Worker] = []

    def start(name: str) -> Served:
        package = load_package(packages / name / "1")
        worker = Worker(package, EngineSettings(), SilentObserver())
        worker.start()
        workers.append(worker)
        return worker, TextCodec(package)

    yield start
    for worker in workers:
        worker.stop()


def lines(file: str) -> list[str]:
    """Return the held-out inputs of a file."""
    return (DATA / file).read_text("utf-8").splitlines()


def all_taps(worker: Worker) -> frozenset[str]:
    """Return the name of every tap of a worker's package."""
    return frozenset(tap.name for tap in worker.package.manifest.taps)


def texts_to_translate(worker: Worker, codec: TextCodec) -> list[Asked]:
    """Return two hundred held-out sentences, a short one and a long one."""
    texts = [*lines("sentences.en.txt"), "Yes!", "I am here. " * 12]
    encoded = [codec.encode(text, truncate=False, field="text").token_ids for text in texts]
    return [(Tokens(ids), {"input_ids": torch.from_numpy(ids)[None]}) for ids in encoded]


def scenes_to_caption(worker: Worker, codec: TextCodec) -> list[Asked]:
    """Return two hundred held-out scenes, prepared by the checkpoint's own processor for the eager model."""
    assert worker.package.manifest.image is not None
    images = ImageCodec(worker.package.manifest.image)
    processor = AutoImageProcessor.from_pretrained(CHECKPOINTS / "demo-scenes")
    scenes = [scene.image for scene in held_out(200)]
    return [
        (
            Pixels(images.prepare(scene).pixel_values, images.spec.positions),
            dict(processor(images=scene, return_tensors="pt")),
        )
        for scene in scenes
    ]


GENERATORS: dict[str, tuple[Any, Callable[[Worker, TextCodec], list[Asked]]]] = {
    "demo-en-fr": (AutoModelForSeq2SeqLM, texts_to_translate),
    "demo-scenes": (VisionEncoderDecoderModel, scenes_to_caption),
}


@pytest.mark.parametrize("name", GENERATORS)
async def test_two_hundred_outputs_equal_generate_token_for_token(name: str, serve: Callable[[str], Served]) -> None:
    """All at once through the running batch, against one at a time; a tie of eager's may fall either way."""
    kind, inputs_of = GENERATORS[name]
    worker, codec = serve(name)
    inputs = inputs_of(worker, codec)
    model: Any = kind.from_pretrained(CHECKPOINTS / name, dtype=torch.float32, attn_implementation="eager")
    options = GenerationOptions(min(MAX_NEW_TOKENS, worker.package.manifest.generation.max_target_tokens))
    answers = await asyncio.gather(*(worker.run(GenerateRequest(source, options)) for source, _ in inputs))
    assert len(answers) >= 200
    for (_, arguments), answer in zip(inputs, answers, strict=True):
        assert isinstance(answer, Generation)
        with torch.no_grad():
            expected = model.generate(
                **arguments,
                max_new_tokens=options.max_new_tokens,
                num_beams=1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        tokens = expected.sequences[0, 1:].tolist()
        if answer.best.token_ids != tokens:
            at = next(
                at for at, pair in enumerate(zip(answer.best.token_ids, tokens, strict=False)) if pair[0] != pair[1]
            )
            best = expected.logits[at][0].topk(2).values
            assert best[0] - best[1] <= TIE_MARGIN, f"token {at}: {answer.best.token_ids} instead of {tokens}"


@pytest.mark.parametrize("name", GENERATORS)
async def test_every_map_of_an_output_equals_the_eager_models(name: str, serve: Callable[[str], Served]) -> None:
    """Encoder, decoder and cross attention of ragged requests in one batch, every layer and head."""
    kind, inputs_of = GENERATORS[name]
    worker, codec = serve(name)
    inputs = inputs_of(worker, codec)[-26:]
    model: Any = kind.from_pretrained(CHECKPOINTS / name, dtype=torch.float32, attn_implementation="eager")
    options = GenerationOptions(min(MAX_NEW_TOKENS, worker.package.manifest.generation.max_target_tokens))
    requests = [GenerateRequest(source, options, taps=all_taps(worker)) for source, _ in inputs]
    start = model.generation_config.decoder_start_token_id
    answers = await asyncio.gather(*map(worker.run, requests))
    compared = 0
    for (_, arguments), answer in zip(inputs, answers, strict=True):
        assert isinstance(answer, Generation)
        with torch.no_grad():
            eager = model(
                **arguments,
                decoder_input_ids=torch.tensor([[start, *answer.best.token_ids[:-1]]]),
                output_attentions=True,
            )
        log_probabilities = (
            eager.logits[0].log_softmax(-1).gather(1, torch.tensor(answer.best.token_ids)[:, None])[:, 0]
        )
        assert np.allclose(answer.best.log_probabilities, log_probabilities, atol=TOLERANCE)
        for tap in worker.package.manifest.taps:
            maps = {
                ("encoder", "self"): eager.encoder_attentions,
                ("decoder", "self"): eager.decoder_attentions,
                ("decoder", "cross"): eager.cross_attentions,
            }[tap.stack, tap.kind]
            assert np.abs(answer.best.taps[tap.name] - maps[tap.layer][0].numpy()).max() < TOLERANCE
            compared += 1
    assert compared == len(inputs) * len(worker.package.manifest.taps)


async def test_two_hundred_classifications_equal_the_eager_models(serve: Callable[[str], Served]) -> None:
    """Logits and every map, batched with others of all lengths."""
    worker, codec = serve("demo-intent")
    sources = [codec.encode(text, truncate=False, field="text").token_ids for text in lines("utterances.en.txt")]
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        CHECKPOINTS / "demo-intent", dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    answers = await asyncio.gather(
        *(worker.run(ClassifyRequest(Tokens(ids), taps=all_taps(worker))) for ids in sources)
    )
    assert len(answers) == 200
    for ids, answer in zip(sources, answers, strict=True):
        assert isinstance(answer, Classification)
        with torch.no_grad():
            eager = model(input_ids=torch.from_numpy(ids)[None], output_attentions=True)
        assert np.abs(answer.output - eager.logits[0].numpy()).max() < TOLERANCE
        for tap in worker.package.manifest.taps:
            assert np.abs(answer.taps[tap.name] - eager.attentions[tap.layer][0].numpy()).max() < TOLERANCE
