"""The proof of graphs that take interventions, at random, and of weights times norms, with interventions or without.

Reference: the eager model, called through an attention function that adds the same biases to the
scores and multiplies the heads' outputs by the same gates, in PyTorch. The norms are those of the values that
it reads, multiplied by the weights of the next linear module, which puts the heads together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.pytorch_utils import Conv1D

from regard.manifest import TapSpec
from regard_export.checkpoint import Checkpoint
from regard_export.errors import ExportError
from regard_export.generator_proof import GeneratorProof
from regard_export.parity import Parity
from regard_export.reader_proof import compare_answer
from regard_export.samples import Norms, Source
from regard_export.stepping import Array, Feeds, open_session

IMPLEMENTATION = "regard-intervened"
BIASES = 3
"""Nothing, random numbers, and a ban of every other edge on average: what a head draws from."""
HYPOTHESES = 2

Kind = Literal["self", "cross"]


@dataclass(frozen=True)
class Plan:
    """Interventions in the attention of one kind and stack: gates [L, R, H], and biases [B, Q, K] by an index."""

    kind: Kind
    gates: Array
    biases: Array | None
    index: Array

    @classmethod
    def drawn(cls, taps: list[TapSpec], rows: int, queries: int, keys: int, *, gates_only: bool = False) -> Plan:
        """Draw one for the taps of a graph; the first key is banned to nobody, so that every row has one."""
        random = np.random.default_rng(2)
        shape = (len(taps), rows, taps[0].heads)
        biases = np.zeros((BIASES, queries, keys), np.float32)
        biases[1] = random.normal(size=(queries, keys))
        biases[2, :, 1:][random.random((queries, keys - 1)) < 0.5] = -np.inf
        gates = (random.random(shape) < 0.7).astype(np.float32)
        return cls(taps[0].kind, gates, None if gates_only else biases, random.integers(0, BIASES, shape))

    @classmethod
    def idle(cls, taps: list[TapSpec], rows: int, queries: int, keys: int, *, gates_only: bool = False) -> Plan:
        """Return one that changes nothing."""
        drawn = cls.drawn(taps, rows, queries, keys, gates_only=gates_only)
        return dataclasses.replace(drawn, gates=np.ones_like(drawn.gates), index=np.zeros_like(drawn.index))

    @property
    def feeds(self) -> Feeds:
        """What a graph is fed for it."""
        biases = {f"{self.kind}_bias": self.biases, f"{self.kind}_bias_index": self.index}
        return {f"{self.kind}_head_gate": self.gates} | {k: v for k, v in biases.items() if v is not None}

    def repeated(self, times: int) -> Plan:
        """Return the same for as many rows of every request."""
        gates, index = (np.repeat(array, times, axis=1) for array in (self.gates, self.index))
        return dataclasses.replace(self, gates=gates, index=index)


Place = tuple[str, Kind]
"""A stack and a kind of its attention."""
PlanMaker = Callable[..., Plan]


@dataclass
class _Intervening:
    """What the eager attention function is to do, by the stack and the kind of a call, and how often it was called.

    `norms` [R, H, T] of its transformed values are kept, a layer each.
    """

    plans: Mapping[Place, Plan]
    decoder: frozenset[torch.nn.Module]
    has_cross: bool
    calls: dict[str, int] = field(default_factory=dict)
    norms: dict[tuple[str, str], list[torch.Tensor]] = field(default_factory=dict)
    waiting: tuple[Place, torch.Tensor] | None = None

    def next(self, module: torch.nn.Module) -> tuple[Place, int]:
        """Return where a call is, and its layer; a decoder's calls for itself and across take turns."""
        stack = "decoder" if module in self.decoder else "encoder"
        call = self.calls[stack] = self.calls.get(stack, -1) + 1
        if stack == "decoder" and self.has_cross:
            return (stack, "cross" if call % 2 else "self"), call // 2
        return (stack, "self"), call

    def project(self, module: torch.nn.Module, _: Any) -> None:
        """Keep the norms of values [R, H, T, D] times the matrix of the linear module that comes after attention."""
        if self.waiting is None or not isinstance(module, torch.nn.Linear | Conv1D):
            return
        (place, values), self.waiting = self.waiting, None
        matrix = module.weight if isinstance(module, Conv1D) else module.weight.T
        heads = matrix.reshape(values.shape[1], values.shape[3], -1)
        self.norms.setdefault(place, []).append((values @ heads).norm(dim=-1))


_intervening: ContextVar[_Intervening] = ContextVar("intervening")


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    intervening = _intervening.get()
    place, layer = intervening.next(module)
    plan = intervening.plans.get(place)
    intervening.waiting = place, value
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    for bias in (attention_mask, position_bias):
        scores = scores if bias is None else scores + bias
    if plan is not None and plan.biases is not None:
        scores = scores + torch.from_numpy(plan.biases[plan.index[layer]])
    weights = scores.softmax(-1)
    output = weights @ value
    if plan is not None:
        output = output * torch.from_numpy(plan.gates[layer])[:, :, None, None]
    return output.transpose(1, 2), weights


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


@contextmanager
def intervening(checkpoint: Checkpoint, plans: Mapping[Place, Plan]) -> Iterator[Norms]:
    """Let the eager model be intervened in until the context ends, in one call of it, which fills in its norms.

    Raises `ExportError` then if its attention didn't go through Transformers' interface.
    """
    model, writes = checkpoint.model, checkpoint.generation is not None
    decoder = frozenset(checkpoint.family.decoder(model).modules()) if writes else frozenset()
    intervening = _Intervening(plans, decoder, writes)
    token = _intervening.set(intervening)
    model.set_attn_implementation(IMPLEMENTATION)
    hook = register_module_forward_pre_hook(intervening.project)
    try:
        yield intervening.norms
    finally:
        hook.remove()
        model.set_attn_implementation("eager")
        _intervening.reset(token)
    for stack, kind in plans:
        if stack not in intervening.calls:
            raise ExportError(
                f"{type(model).__name__} computes the {kind} attention of its {stack} by itself, not through "
                "Transformers' attention interface, so that nothing can be proven of interventions and norms; leave "
                "--interventions and --value-norms out"
            )


def compare_interventions(
    checkpoint: Checkpoint, files: Mapping[str, Path], taps: tuple[TapSpec, ...], parity: Parity, make: PlanMaker
) -> None:
    """Intervene as `make` plans in graphs and eager model, on the first sample: ragged, with a row of one position."""
    with torch.no_grad():
        for graph, inputs in checkpoint.sources.items():
            source = Source.of(inputs, next(iter(inputs.samples())))
            rows, keys = len(source.lengths), _positions(source)
            plan = make(_layers(taps, graph, "self"), rows, keys, keys)
            intervened = dataclasses.replace(source, feeds=source.feeds | plan.feeds)
            if checkpoint.generation is None:
                session = open_session(files[graph])
                with intervening(checkpoint, {("encoder", "self"): plan}) as norms:
                    compare_answer(checkpoint, graph, session, intervened, taps, parity, norms)
            else:
                proof = GeneratorProof(checkpoint, checkpoint.generation, files, taps, parity)
                _compare_generator(proof, intervened, plan, keys, make)


def _compare_generator(proof: GeneratorProof, source: Source, plan: Plan, keys: int, make: PlanMaker) -> None:
    """Intervene in the encoder, and in the step that goes on from what it then gives."""
    with intervening(proof.checkpoint, {("encoder", "self"): plan}) as proof.norms:
        state = proof.compare_encoder(open_session(proof.files["encoder"]), source)
    rows = len(source.lengths) * HYPOTHESES
    plans: dict[Place, Plan] = {("encoder", "self"): plan.repeated(HYPOTHESES)}
    kinds: tuple[Kind, ...] = ("self", "cross")
    for kind in kinds:
        own = _layers(proof.taps, "step", kind)
        plans["decoder", kind] = make(own, rows, 1, keys, gates_only=kind == "self")
        state |= plans["decoder", kind].feeds
    with intervening(proof.checkpoint, plans) as proof.norms:
        proof.compare_steps(open_session(proof.files["step"]), source, state, HYPOTHESES)


def _layers(taps: tuple[TapSpec, ...], graph: str, kind: Kind) -> list[TapSpec]:
    """Return the taps of all heads of a graph's layers."""
    found = [tap for tap in taps if (tap.graph, tap.kind) == (graph, kind)]
    return [tap for tap in found if tap.reduction is None and tap.weighting is None]


def _positions(source: Source) -> int:
    """Return the positions of the source with its padding."""
    tokens = source.feeds.get("input_ids")
    return int(source.lengths.max()) if tokens is None else int(tokens.shape[1])
