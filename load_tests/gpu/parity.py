"""A package on its provider against eager PyTorch on the same device, in float32: answers, attention, placement."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from load_tests.gpu.course import Course
from load_tests.gpu.inputs import eager, real_sources, tensors_of
from load_tests.peers.results import Figure
from regard.engine.instances import GRAPHS
from regard.engine.observer import SilentObserver
from regard.engine.providers import ATTENTION_OPERATORS, ONNX_NAMES
from regard.engine.request import Classification, ClassifyRequest, GenerateRequest, Generation, Request
from regard.engine.search.options import GenerationOptions
from regard.loading import open_session
from regard.manifest import Package, Task
from regard.worker import Worker

TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2}
AGREEMENT = 0.99
NEW_TOKENS = 24
HEAVY = ATTENTION_OPERATORS | {"MatMul", "Gemm", "Conv", "FusedMatMul"}


def compare(course: Course, name: str, precision: str) -> list[Figure]:
    """Return the largest differences from the eager model, the share of tokens alike, and where the nodes are."""
    package = course.package(name, precision)
    sources = real_sources(package, 4 if course.quick else 24)
    taps = frozenset(tap.name for tap in package.manifest.taps)
    model = eager(course.checkpoint(name), package.manifest, device=course.device, dtype=torch.float32)
    requests: list[Request]
    if package.manifest.task is Task.CLASSIFICATION:
        requests = [ClassifyRequest(source, taps) for source in sources]
    else:
        options = GenerationOptions(max_new_tokens=NEW_TOKENS)
        requests = [GenerateRequest(source, options, taps) for source in sources]
    answers = asyncio.run(_answers(course, package, requests))
    differences: dict[str, float] = {}
    alike: list[bool] = []
    for source, answer in zip(sources, answers, strict=True):
        tensors = tensors_of(source, course.device)
        if isinstance(answer, Classification):
            _compare_classification(package, model, tensors, answer, differences)
        else:
            alike += _compare_generation(package, model, tensors, answer, differences)
    title, tolerance = f"{name}, {precision}", TOLERANCES[precision]
    found = [
        Figure(f"{title}: {what}", "difference", [worst], tolerance, limits=True) for what, worst in differences.items()
    ]
    if alike:
        found.append(Figure(f"{title}: tokens alike, forced", "share", [sum(alike) / len(alike)], AGREEMENT))
    return found + _placement(course, package, title)


async def _answers(course: Course, package: Package, requests: Sequence[Request]) -> list[Generation | Classification]:
    worker = Worker(package, course.settings(), SilentObserver())
    worker.start()
    try:
        return list(await asyncio.gather(*map(worker.run, requests)))
    finally:
        worker.stop()


def _compare_classification(
    package: Package,
    model: Any,
    tensors: dict[str, torch.Tensor],
    answer: Classification,
    differences: dict[str, float],
) -> None:
    with torch.inference_mode():
        expected = model(**tensors, output_attentions=True)
    _note(differences, "logits", answer.output, expected.logits[0])
    for tap in package.manifest.taps:
        _note(differences, "attention", answer.taps[tap.name], expected.attentions[tap.layer][0])


def _compare_generation(
    package: Package, model: Any, tensors: dict[str, torch.Tensor], answer: Generation, differences: dict[str, float]
) -> list[bool]:
    """Decode what was generated once more, forced; return for each token whether the eager model takes it too."""
    spec, tokens = package.manifest.generation, answer.best.token_ids
    assert spec is not None
    fed = torch.tensor([[spec.start_token_id, *tokens[:-1]]], device=model.device)
    with torch.inference_mode():
        expected = model(**tensors, decoder_input_ids=fed, output_attentions=True)
    logits = expected.logits[0].float().cpu().clone()
    chosen = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
    free = [at for at, value in enumerate(answer.best.log_probabilities) if value != 0]  # others were forced
    ours = np.array(answer.best.log_probabilities, np.float32)
    _note(differences, "log-probabilities", ours[free], chosen[free])
    stacks = {
        ("encoder", "self"): expected.encoder_attentions,
        ("decoder", "self"): expected.decoder_attentions,
        ("decoder", "cross"): expected.cross_attentions,
    }
    for tap in package.manifest.taps:
        expected_weights = stacks[tap.stack, tap.kind][tap.layer][0]
        _note(differences, f"{tap.stack} {tap.kind} attention", answer.best.taps[tap.name], expected_weights)
    logits[:, list(spec.suppressed_token_ids)] = -torch.inf
    best = logits.argmax(-1).tolist()
    return [tokens[at] == best[at] for at in free]


def _placement(course: Course, package: Package, title: str) -> list[Figure]:
    """Count the nodes by provider, and the share of attention and products that are where they belong."""
    found = []
    for graph in sorted(GRAPHS[package.manifest.task]):
        operators = open_session(package, graph, course.settings()).operators
        for provider, types in operators.items():
            found.append(Figure(f"{title}: {graph}, nodes on {provider}", "nodes", [len(types)]))
        heavy = {provider: sum(kind in HEAVY for kind in types) for provider, types in operators.items()}
        share = heavy.get(ONNX_NAMES[course.provider], 0) / max(1, sum(heavy.values()))
        found.append(Figure(f"{title}: {graph}, attention and products on {course.provider}", "share", [share], 1.0))
    return found


def _note(differences: dict[str, float], what: str, ours: np.ndarray, expected: torch.Tensor) -> None:
    theirs = expected.float().cpu().numpy()
    if ours.shape != theirs.shape:
        raise ValueError(f"{what}: {ours.shape} instead of {theirs.shape}")
    worst = float(np.abs(ours - theirs).max()) if ours.size else 0.0
    differences[what] = max(differences.get(what, 0.0), worst if np.isfinite(worst) else float("inf"))
