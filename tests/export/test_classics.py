"""Attention from before and beside the Transformer: packages equal to their modules, in the engine that serves all."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regard.cli.demo.server import serving
from regard.client import AttentionOptions, Client
from regard.config import EngineSettings
from regard.engine.observer import SilentObserver
from regard.engine.request import Classification, ClassifyRequest, GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Pixels, Source, Tokens
from regard.manifest import Package, load_package
from regard.worker import Worker
from regard_export.modules import Blueprint, export_module
from regard_export.package import Options

from .blueprints import CLASSICS, END, LABELS, POSITIONS, START, VOCABULARY, peaked

TOLERANCE = 1e-5
MOST_TOKENS = 12
GENERATORS = [name for name, make in CLASSICS.items() if make().generates]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Blueprint, Package]]:
    """Return a function that exports a classic, once."""
    done: dict[str, tuple[Blueprint, Package]] = {}

    def get(name: str) -> tuple[Blueprint, Package]:
        if name not in done:
            blueprint = peaked(name)
            directory = export_module(blueprint, tmp_path_factory.mktemp("models"), Options(name="classic"))
            done[name] = blueprint, load_package(directory)
        return done[name]

    return get


@pytest.fixture
def start() -> Iterator[Callable[[Package], Worker]]:
    """Return a function that starts a package's worker; all are stopped in the end."""
    workers: list[Worker] = []

    def started(package: Package) -> Worker:
        worker = Worker(package, EngineSettings(), SilentObserver())
        worker.start()
        workers.append(worker)
        return worker

    yield started
    for worker in workers:
        worker.stop()


def sources(blueprint: Blueprint) -> list[tuple[Source, torch.Tensor, torch.Tensor | None]]:
    """Return ragged texts or images: what the engine is given, and what the module is."""
    random = np.random.default_rng(5)
    if blueprint.image is not None:
        pixels = random.standard_normal((5, 3, 16, 16)).astype(np.float32)
        positions = blueprint.image.positions
        return [(Pixels(one, positions), torch.from_numpy(one)[None], None) for one in pixels]
    texts = [random.integers(2, VOCABULARY, length) for length in (1, 7, 3, POSITIONS, 12)]
    return [(Tokens(one), torch.from_numpy(one)[None], torch.tensor([len(one)], dtype=torch.int32)) for one in texts]


@pytest.mark.parametrize("name", CLASSICS)
def test_a_package_equals_its_module(name: str, exported: Callable[[str], tuple[Blueprint, Package]]) -> None:
    """Scores differ by less than 1e-4 and weights by less than 1e-5, alone and padded in a batch."""
    blueprint, package = exported(name)
    report = json.loads(package.path("parity.json").read_text())
    assert package.manifest.task is blueprint.task
    assert report["reference"].startswith("the module itself")
    differences = report["max_abs_difference"]
    assert differences["logits"] <= report["tolerance"] == 1e-4
    weights = {tap.name: differences[tap.name] for tap in package.manifest.taps}
    assert weights
    assert max(weights.values()) < TOLERANCE


@pytest.mark.parametrize("name", GENERATORS)
async def test_the_engine_writes_what_the_module_does(
    name: str, exported: Callable[[str], tuple[Blueprint, Package]], start: Callable[[Package], Worker]
) -> None:
    """Requests of all lengths in one running batch: greedy tokens, and each step's weights."""
    blueprint, package = exported(name)
    worker, module = start(package), blueprint.module
    asked = sources(blueprint)
    options = GenerationOptions(MOST_TOKENS)
    answers = await asyncio.gather(
        *(worker.run(GenerateRequest(source, options, taps=frozenset({"decoder.cross.0"}))) for source, _, _ in asked)
    )
    peaks = []
    for (_, given, length), answer in zip(asked, answers, strict=True):
        assert isinstance(answer, Generation)
        tokens, weights = greedily(module, given, length)
        assert answer.best.token_ids == tokens
        assert np.abs(answer.best.taps["decoder.cross.0"] - weights).max() < TOLERANCE
        assert np.allclose(weights.sum(-1), 1, atol=TOLERANCE)
        peaks.append(weights.max(-1).mean())
    assert np.median(peaks) > 0.2


@torch.no_grad()
def greedily(module: Any, source: torch.Tensor, length: torch.Tensor | None) -> tuple[list[int], Any]:
    """Return the tokens that the module itself writes, and its weights [H, T, S]."""
    memory, state = module.encode(source, length)
    tokens: list[int] = []
    looked = []
    while len(tokens) < MOST_TOKENS and END not in tokens:
        logits, state, weights = module.step(torch.tensor([[START, *tokens][-1]]), state, memory, length)
        tokens.append(int(logits[0].argmax()))
        looked.append(weights[0].numpy())
    return tokens, np.stack(looked, 1)


@pytest.mark.parametrize("name", ["dot product", "soft"])
async def test_beams_fork_a_recurrent_state(
    name: str, exported: Callable[[str], tuple[Blueprint, Package]], start: Callable[[Package], Worker]
) -> None:
    """Every sequence of a beam search has the log-probability that the module gives it."""
    blueprint, package = exported(name)
    worker, module = start(package), blueprint.module
    options = GenerationOptions(MOST_TOKENS, num_beams=4, num_return_sequences=4)
    asked = sources(blueprint)
    answers = await asyncio.gather(*(worker.run(GenerateRequest(source, options)) for source, _, _ in asked))
    for (_, given, length), answer in zip(asked, answers, strict=True):
        assert isinstance(answer, Generation)
        assert len({tuple(one.token_ids) for one in answer.sequences}) == 4
        for one in answer.sequences:
            assert sum(one.log_probabilities) == pytest.approx(score(module, given, length, one.token_ids), abs=1e-4)


@torch.no_grad()
def score(module: Any, source: torch.Tensor, length: torch.Tensor | None, tokens: list[int]) -> float:
    """Return the log-probability of `tokens`, forced upon the module."""
    memory, state = module.encode(source, length)
    total = 0.0
    for former, token in zip([START, *tokens], tokens, strict=False):
        logits, state, _ = module.step(torch.tensor([former]), state, memory, length)
        total += float(logits[0].log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("name", [name for name in CLASSICS if name not in GENERATORS])
async def test_the_engine_classifies_as_the_module_does(
    name: str, exported: Callable[[str], tuple[Blueprint, Package]], start: Callable[[Package], Worker]
) -> None:
    """Requests of all lengths in one batch: scores, and the weights of every layer and head."""
    blueprint, package = exported(name)
    worker = start(package)
    module: Any = blueprint.module
    names = frozenset(tap.name for tap in package.manifest.taps)
    asked = sources(blueprint)
    answers = await asyncio.gather(*(worker.run(ClassifyRequest(source, taps=names)) for source, _, _ in asked))
    for (_, given, length), answer in zip(asked, answers, strict=True):
        assert isinstance(answer, Classification)
        with torch.no_grad():
            logits, weights = module.classify(given, length)
        assert np.abs(answer.output - logits[0].numpy()).max() < 10 * TOLERANCE
        for tap in package.manifest.taps:
            ours = answer.taps[tap.name]
            assert np.abs(ours - weights[tap.layer][0].numpy()).max() < TOLERANCE
            assert np.allclose(ours.sum(-1), 1, atol=TOLERANCE)


def test_the_service_serves_them(tmp_path: Path) -> None:
    """Over gRPC, from one server: a translation, a caption and a class, with words and patches on the axes."""
    for name in ("additive", "hard", "spatial"):
        export_module(peaked(name), tmp_path / "models", Options(name=name))
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "navy").save(file, "PNG")
    wanted = AttentionOptions()
    with serving(tmp_path / "models", tmp_path / "log") as server, Client(server.target) as client:
        translation = client.translate("w5 w9 w33", model="additive", attention=wanted, max_new_tokens=6)
        caption = client.caption(file.getvalue(), model="hard", attention=wanted, max_new_tokens=6)
        classification = client.classify(file.getvalue(), model="spatial", attention=AttentionOptions(kinds=["self"]))
    assert server.exit_code == 0
    assert translation.attention is not None and caption.attention is not None and classification.attention is not None
    (one,) = translation.attention.maps
    assert [segment.text for segment in one.keys] == ["w5", "w9", "w33"]
    assert one.weights.shape == (1, translation.target_tokens, 3)
    (one,) = caption.attention.maps
    assert one.weights.shape == (1, caption.target_tokens, 16)
    assert set(np.unique(one.weights)) == {0, 1}
    (one,) = classification.attention.maps
    assert [one.queries[0].text, one.queries[0].special] == ["[POOL]", True]
    assert one.weights[0, 0, 0] == 0
    assert classification.classes[0].label in LABELS


def test_local_attention_is_local() -> None:
    """No position sees one that is further away than the window."""
    module: Any = peaked("local").module
    (weights, _) = module.classify(torch.randint(2, VOCABULARY, (1, 9)), torch.tensor([9])).weights
    place = np.arange(9)
    near = np.abs(place[:, None] - place) <= 2
    assert (weights[0].detach().numpy() > 0).any(0).tolist() == near.tolist()


def test_sparse_attention_is_sparse() -> None:
    """Every position sees three others, or itself."""
    module: Any = peaked("sparse").module
    (weights, _) = module.classify(torch.randint(2, VOCABULARY, (1, 9)), torch.tensor([9])).weights
    assert ((weights > 0).sum(-1) == 3).all()


def test_hard_attention_looks_at_one_place(exported: Callable[[str], tuple[Blueprint, Package]]) -> None:
    """Its weights are 1 at one place and 0 at all others, at each step."""
    module: Any = exported("hard")[0].module
    _, weights = greedily(module, torch.randn(1, 3, 16, 16), None)
    assert sorted(np.unique(weights)) == [0, 1]


@pytest.mark.parametrize("name", CLASSICS)
def test_a_classic_learns(name: str) -> None:
    """Twenty steps on one small batch bring its loss down."""
    torch.manual_seed(1)
    blueprint = CLASSICS[name]()
    module: Any = blueprint.module.train()
    batch = sources(blueprint)[-1:] * 3
    source = torch.cat([given for _, given, _ in batch])
    length = None if batch[0][2] is None else torch.cat([one for _, _, one in batch if one is not None])
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    losses = []
    for _ in range(20):
        if blueprint.generates:
            memory, state = module.encode(source, length)
            targets = torch.tensor([7, 9, 4])
            logits, _, _ = module.step(torch.full((3,), START), state, memory, length)
        else:
            logits, targets = module.classify(source, length).logits, torch.tensor([2, 2, 2])
        loss = torch.nn.functional.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
