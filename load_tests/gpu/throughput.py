"""Speed at several requests at a time: the engine, Transformers on the same device, and what the memory allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from load_tests.gpu.course import Course
from load_tests.gpu.inputs import eager, random_sources
from load_tests.peers.results import Figure
from regard.engine.observer import SilentObserver
from regard.engine.request import ClassifyRequest, GenerateRequest, Request
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Source, Tokens, pack
from regard.manifest import Package, Task
from regard.worker import Worker

TARGET_TOKENS = 32
SHORTEST, LONGEST = 10, 40
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def measure(course: Course, name: str) -> list[Figure]:
    """Return the rates of the engine and of Transformers (SDPA), in tokens or inputs per second, and their ratios."""
    precision = course.precisions[-1]
    package = course.package(name, precision)
    generates = package.manifest.task is not Task.CLASSIFICATION
    unit = "tokens/s" if generates else "inputs/s"
    found, most = [], max(course.concurrencies)
    worker = Worker(package, course.settings(max_rows=most), SilentObserver())
    worker.start()
    model = eager(
        course.checkpoint(name),
        package.manifest,
        device=course.device,
        dtype=DTYPES[precision],
        attention="sdpa",
    )
    bandwidth = memory_bandwidth(course)
    found.append(Figure(f"{name}: memory bandwidth", "GB/s", [bandwidth / 1e9]))
    with asyncio.Runner() as runner:
        for concurrency in course.concurrencies:
            sources = random_sources(package, 2 * concurrency if concurrency > 1 else 8, SHORTEST, LONGEST)
            requests = [_request(source, generates=generates) for source in sources]
            produced = len(sources) * (TARGET_TOKENS if generates else 1)

            def engine(requests: Sequence[Request] = requests, concurrency: int = concurrency) -> None:
                runner.run(_side_by_side(worker, requests, concurrency))

            def transformers(sources: Sequence[Source] = sources, concurrency: int = concurrency) -> None:
                for first in range(0, len(sources), concurrency):
                    _run(model, package, sources[first : first + concurrency], course.device, generates=generates)

            rates = {who: produced / _seconds(run) for who, run in (("engine", engine), ("transformers", transformers))}
            title = f"{name}, {precision}, {concurrency} at a time"
            found += [Figure(f"{title}: {who}", unit, [rate]) for who, rate in rates.items()]
            found.append(Figure(f"{title}: engine / transformers", "ratio", [rates["engine"] / rates["transformers"]]))
            if generates:
                floor = concurrency * bandwidth / bytes_of_a_step(package, concurrency)
                found.append(Figure(f"{title}: what the memory allows", unit, [floor]))
                found.append(Figure(f"{title}: engine / what the memory allows", "ratio", [rates["engine"] / floor]))
    worker.stop()
    return found


def bytes_of_a_step(package: Package, rows: int) -> int:
    """Return the bytes that a step of `rows` must read: the weights, and each row's state of usual length."""
    manifest = package.manifest
    weights = sum(
        package.path(file).stat().st_size for file in manifest.files if "step" in file and file.endswith(".data")
    )
    size = {"float": 4, "float16": 2}
    own = sum(spec.heads * spec.head_size * size[spec.dtype] for spec in manifest.state) * TARGET_TOKENS // 2
    cross = sum(spec.heads * spec.head_size * size[spec.dtype] for spec in manifest.cross_state)
    return weights + rows * (own + cross * (SHORTEST + LONGEST) // 2)


def memory_bandwidth(course: Course) -> float:
    """Return the bytes per second, read and written, of a copy within the device's memory."""
    source = torch.empty((1 << 24) if course.quick else (1 << 28), dtype=torch.float32, device=course.device)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(10):
            target.copy_(source)

    return 20 * source.numel() * source.element_size() / _seconds(copy)


def _seconds(run: Callable[[], None]) -> float:
    """Return how long the second run takes: the first one warms up."""
    run()
    _synchronize()
    started = time.perf_counter()
    run()
    _synchronize()
    return time.perf_counter() - started


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _request(source: Source, *, generates: bool) -> Request:
    if generates:
        return GenerateRequest(source, GenerationOptions(max_new_tokens=TARGET_TOKENS))
    return ClassifyRequest(source)


async def _side_by_side(worker: Worker, requests: Sequence[Request], concurrency: int) -> None:
    """Let `concurrency` callers share the requests."""
    waiting = iter(requests)

    async def caller() -> None:
        for request in waiting:
            await worker.run(request)

    await asyncio.gather(*(caller() for _ in range(concurrency)))


def _run(model: Any, package: Package, batch: Sequence[Source], device: str, *, generates: bool) -> None:
    """Give Transformers a batch, padded on the right."""
    pad = package.manifest.text.pad_token_id if package.manifest.text else 0
    feeds = {name: torch.from_numpy(array).to(device) for name, array in pack(batch, pad).items()}
    lengths = feeds.pop("source_length")
    feeds.pop("token_type_ids", None)  # all 0, which is what models take by themselves that have any
    if isinstance(batch[0], Tokens):
        places = torch.arange(feeds["input_ids"].shape[1], device=device)
        feeds["attention_mask"] = (places[None] < lengths[:, None]).long()
    else:
        feeds["pixel_values"] = feeds["pixel_values"].to(next(model.parameters()).dtype)
    with torch.inference_mode():
        if generates:
            model.generation_config.max_length = None
            model.generate(**feeds, min_new_tokens=TARGET_TOKENS, max_new_tokens=TARGET_TOKENS, num_beams=1)
        else:
            model(**feeds)
