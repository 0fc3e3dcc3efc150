"""Regard's engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from load_tests.peers.contestants import side_by_side
from load_tests.peers.memory import peak_bytes
from load_tests.peers.sources import Source
from regard.catalog import ModelWorker
from regard.config import EngineSettings
from regard.engine.observer import SilentObserver
from regard.engine.request import GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Tokens
from regard.manifest import load_package
from regard.worker import Worker


class Engine:
    """Regard's engine, fed with tokens by `concurrency` callers, who ask for no scores, as CTranslate2's don't."""

    def __init__(self, package: Path, *, instances: int, threads: int) -> None:
        self.name = f"engine {instances}x{threads}"
        settings = EngineSettings(instances=instances, intra_op_threads=threads)
        self._worker = Worker(load_package(package), settings, SilentObserver())
        self._worker.start()
        self._runner = asyncio.Runner()

    def translate(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Run every source through the worker."""
        return self._runner.run(translate(self._worker, sources, concurrency, beams))

    def peak_bytes(self) -> int:
        """Return the most memory that this process has held."""
        return peak_bytes()

    def close(self) -> None:
        """Stop the worker."""
        self._worker.stop()
        self._runner.close()


async def translate(worker: ModelWorker, sources: Sequence[Source], concurrency: int, beams: int) -> list[int]:
    """Run every source through a worker, and return how many tokens each gave."""

    async def translate_one(request: GenerateRequest) -> int:
        generation = await worker.run(request)
        assert isinstance(generation, Generation)
        return len(generation.best.token_ids)

    return await side_by_side([_request(source, beams) for source in sources], concurrency, translate_one)


def _request(source: Source, beams: int) -> GenerateRequest:
    options = GenerationOptions(source.target_tokens, num_beams=beams, return_scores=False)
    return GenerateRequest(Tokens(np.array(source.token_ids, np.int64)), options)
