"""The contestants: each answers sources, N at a time, with 32 tokens apiece, on two threads in fp32."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from transformers import MarianMTModel

from load_tests.peers.server import Server
from load_tests.peers.sources import Source
from regard.client import AsyncClient
from regard.config import EngineSettings
from regard.engine.observer import SilentObserver
from regard.engine.request import GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Tokens
from regard.manifest import load_package
from regard.worker import Worker

TARGET_TOKENS = 32
THREADS = 2
R = TypeVar("R")


class Contestant(Protocol):
    """Whoever translates."""

    name: str

    def translate(self, sources: Sequence[Source], concurrency: int) -> list[int]:
        """Translate all `sources`, `concurrency` of them at any time, and return how many tokens each gave."""

    def close(self) -> None:
        """Free what it holds."""


class Engine:
    """Regard's engine, fed with tokens by `concurrency` callers."""

    def __init__(self, package: Path, *, instances: int, name: str = "engine") -> None:
        self.name = f"{name} {instances}x{THREADS // instances}"
        settings = EngineSettings(instances=instances, intra_op_threads=THREADS // instances)
        self._worker = Worker(load_package(package), settings, SilentObserver())
        self._worker.start()
        self._runner = asyncio.Runner()

    def translate(self, sources: Sequence[Source], concurrency: int) -> list[int]:
        """Run every source through the worker."""
        requests = [
            GenerateRequest(Tokens(np.array(source.token_ids, np.int64)), GenerationOptions(TARGET_TOKENS))
            for source in sources
        ]
        return self._runner.run(side_by_side(requests, concurrency, self._translate_one))

    async def _translate_one(self, request: GenerateRequest) -> int:
        generation = await self._worker.run(request)
        assert isinstance(generation, Generation)
        return len(generation.best.token_ids)

    def close(self) -> None:
        """Stop the worker."""
        self._worker.stop()
        self._runner.close()


class Service:
    """A Regard server in a process of its own, and its client in this one, on the same cores."""

    def __init__(self, models: Path, *, instances: int) -> None:
        self.name = f"service {instances}x{THREADS // instances}"
        self._server = Server(models, instances=instances, threads=THREADS // instances)
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._connect())

    async def _connect(self) -> AsyncClient:
        return AsyncClient(self._server.target)

    def translate(self, sources: Sequence[Source], concurrency: int) -> list[int]:
        """Send every source in a request of its own."""
        return self._runner.run(side_by_side(sources, concurrency, self._translate_one))

    async def _translate_one(self, source: Source) -> int:
        return (await self._client.translate(source.text, max_new_tokens=TARGET_TOKENS)).target_tokens

    def close(self) -> None:
        """Close the connection and stop the server."""
        self._runner.run(self._client.close())
        self._runner.close()
        self._server.stop()


class Transformers:
    """Transformers' `generate()` in eager PyTorch, given batches of `concurrency`."""

    name = "transformers"

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(THREADS)
        self._model = MarianMTModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._model.generation_config.max_length = None  # or it warns that max_new_tokens weighs more

    def translate(self, sources: Sequence[Source], concurrency: int) -> list[int]:
        """Generate batch after batch, in the order given."""
        counts: list[int] = []
        for first in range(0, len(sources), concurrency):
            batch = [torch.tensor(source.token_ids) for source in sources[first : first + concurrency]]
            pad = self._model.config.pad_token_id
            input_ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=pad)
            with torch.inference_mode():
                output = self._model.generate(
                    input_ids, attention_mask=(input_ids != pad).long(), max_new_tokens=TARGET_TOKENS, num_beams=1
                )
            counts += [output.shape[1] - 1] * len(batch)  # the first is the start token
        return counts

    def close(self) -> None:
        """Free the model."""
        del self._model


class CTranslate2:
    """CTranslate2, given all sources at once, to sort by length and cut into batches, `concurrency` in flight."""

    def __init__(self, converted: Path, *, workers: int) -> None:
        self.name = f"ctranslate2 {workers}x{THREADS // workers}"
        self._workers = workers
        self._translator = ctranslate2.Translator(
            str(converted), compute_type="float32", inter_threads=workers, intra_threads=THREADS // workers
        )

    def translate(self, sources: Sequence[Source], concurrency: int) -> list[int]:
        """Translate greedily, without scores."""
        results = self._translator.translate_batch(
            [source.tokens for source in sources],
            max_batch_size=max(1, concurrency // self._workers),
            beam_size=1,
            min_decoding_length=TARGET_TOKENS,
            max_decoding_length=TARGET_TOKENS,
        )
        return [len(result.hypotheses[0]) for result in results]

    def close(self) -> None:
        """Free the model."""
        self._translator.unload_model()


def convert_for_ctranslate2(checkpoint: Path, directory: Path) -> None:
    """Write the checkpoint in CTranslate2's format, in fp32."""
    TransformersConverter(str(checkpoint)).convert(str(directory), quantization="float32", force=True)


async def side_by_side(jobs: Sequence[R], concurrency: int, run: Callable[[R], Awaitable[int]]) -> list[int]:
    """Run every job, `concurrency` at any time, and return their results in order."""
    results = [0] * len(jobs)
    waiting = iter(enumerate(jobs))

    async def caller() -> None:
        for index, job in waiting:
            results[index] = await run(job)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return results
