"""Models whose rows stay on a device: the CPU stands in for it, and the answers are those of the host's arrays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from regard.config import EngineSettings
from regard.engine.memory import Device
from regard.engine.observer import SilentObserver
from regard.engine.request import GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions
from regard.engine.session import OnnxSession, Session
from regard.engine.source import Pixels, Source, Tokens
from regard.loading import SessionFactory
from regard.manifest import Package, load_package
from regard.worker import Worker

SETTINGS = EngineSettings(max_rows=24, max_batch_tokens=256)
CHANCE = np.random.default_rng(3)


def on_device(package: Package, graph: str, settings: EngineSettings) -> Session:
    """Load a graph whose state stays where only its own graphs reach it."""
    return OnnxSession(package.path(package.manifest.graphs[graph].file), settings, device=Device("cpu"))


def on_host(package: Package, graph: str, settings: EngineSettings) -> Session:
    """Load a graph whose state is arrays."""
    return OnnxSession(package.path(package.manifest.graphs[graph].file), settings)


def sources_of(package: Package, count: int) -> list[Source]:
    """Return sources of many lengths, or images of noise."""
    image = package.manifest.image
    if image is not None:
        shape = (3, image.height, image.width)
        return [Pixels(CHANCE.standard_normal(shape).astype(np.float32), image.positions) for _ in range(count)]
    return [Tokens(CHANCE.integers(5, 200, size=2 + 3 * (each % 17)).astype(np.int64)) for each in range(count)]


def options_of(each: int) -> GenerationOptions:
    """Return, in turn, a greedy search, one of few tokens, and beams whose rows fork."""
    kinds = [{"max_new_tokens": 45}, {"max_new_tokens": 3}, {"max_new_tokens": 20, "num_beams": 4}]
    return GenerationOptions(**kinds[each % 3])


async def generations(
    package: Package, requests: Sequence[GenerateRequest], open_session: SessionFactory
) -> list[Generation]:
    """Return what a worker makes of requests that come side by side."""
    worker = Worker(package, SETTINGS, SilentObserver(), open_session=open_session)
    worker.start()
    try:
        results = await asyncio.gather(*(worker.run(request) for request in requests))
    finally:
        worker.stop()
    assert all(isinstance(result, Generation) for result in results)
    return [result for result in results if isinstance(result, Generation)]


@pytest.mark.parametrize("name", ["demo-en-fr", "demo-scenes"])
async def test_rows_on_a_device_give_what_rows_on_the_host_give(packages: Path, name: str) -> None:
    """Thirty requests that come, fork, grow and leave, with maps or without: the same tokens, scores and weights."""
    package = load_package(packages / name / "1")
    taps = frozenset(tap.name for tap in package.manifest.taps)
    requests = [
        GenerateRequest(source, options_of(each), taps if each % 4 == 0 else frozenset())
        for each, source in enumerate(sources_of(package, 30))
    ]

    expected = await generations(package, requests, on_host)
    got = await generations(package, requests, on_device)

    for one, other in zip(expected, got, strict=True):
        for sequence, same in zip(one.sequences, other.sequences, strict=True):
            assert same.token_ids == sequence.token_ids
            np.testing.assert_allclose(same.log_probabilities, sequence.log_probabilities, atol=1e-4)
            assert same.taps.keys() == sequence.taps.keys()
            for tap, weights in sequence.taps.items():
                np.testing.assert_allclose(same.taps[tap], weights, atol=1e-5)
