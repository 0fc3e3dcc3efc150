"""From Regard's placeholder operators to the operators of a target.

One file for a target; `weights.py`, `candidates.py` and `operands.py` hold what targets share. A rule takes a
placeholder node and writes its replacement on a tape; the values that it returns take the node's
outputs' places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape

from regard.manifest import Provider
from regard_export.attention import DOMAIN
from regard_export.errors import ExportError
from regard_export.lowering import cpu, cuda, hypotheses, joined, portable, steps, tensorrt
from regard_export.lowering.candidates import ask_whether_scored
from regard_export.lowering.residuals import fuse_residuals
from regard_export.lowering.scales import scale_queries

Rule = Callable[[ir.Node, Tape], Sequence[ir.Value]]

SINCE = {"RMSNormalization": 23, "RotaryEmbedding": 23, "Attention": 24, "TensorScatter": 24}
"""The opset that a rule's operator, as the rule uses it, came with; all others are in the traced graph's."""


@dataclass(frozen=True)
class Target:
    """What graphs are made for: how they are lowered, where they run, and what they can be stored in."""

    rules: Mapping[str, Rule]
    providers: tuple[Provider, ...]
    """The providers of every graph, best first."""
    precisions: tuple[str, ...]
    source_providers: tuple[Provider, ...] = ()
    """Providers that the graphs which read the source run on rather than on `providers`."""
    fused: bool = False
    """Whether operators outside ONNX are allowed."""
    weighing_attention: bool = False
    """Whether operators of attention give their weights as well."""
    scored_on_demand: bool = False
    """Whether a step leaves out what only scores need while nobody is told any."""
    fused_residuals: bool = False
    """Whether a residual connection and its norm become one operator; that of CPUs is far slower than the two."""
    separate_taps: bool = False
    """Whether a plain graph stands beside the one with the taps."""

    def providers_of(self, graph: str, precision: str) -> tuple[Provider, ...]:
        """Return the providers of the graph of this name, best first; only CPUs multiply as int8 graphs do."""
        if precision == "int8":
            return ("cpu",)
        return self.providers if graph == "step" else (*self.source_providers, *self.providers)


TARGETS: Mapping[str, Target] = {
    "cpu": Target(
        {**cpu.RULES, **hypotheses.RULES, **joined.RULES, **steps.RULES},
        ("cpu",),
        ("fp32", "int8"),
        fused=True,
        weighing_attention=True,
        scored_on_demand=True,
    ),
    "portable": Target(portable.RULES, ("cuda", "cpu"), ("fp32", "fp16", "int8")),
    "cuda": Target(cuda.RULES, ("cuda",), ("fp16", "fp32"), fused=True, fused_residuals=True, separate_taps=True),
    "tensorrt": Target(
        tensorrt.RULES, ("cuda", "cpu"), ("fp16", "fp32"), source_providers=("tensorrt",), separate_taps=True
    ),
}


def target_of(name: str, precision: str) -> Target:
    """Return the target `name`.

    Raises `ExportError`, naming what to use instead, if it can't be had in `precision`.
    """
    target = TARGETS[name]
    if precision not in target.precisions:
        others = " or ".join(other for other, one in TARGETS.items() if precision in one.precisions)
        raise ExportError(
            f"target {name} has no {precision}: choose --precision {' or '.join(target.precisions)}, or --target "
            f"{others} for {precision}"
        )
    return target


def lower(model: ir.Model, target: Target) -> None:
    """Replace, in place, every placeholder of `model` by the operators of `target`."""
    if target.weighing_attention:
        scale_queries(model)
        hypotheses.share_lengths(model)
        joined.join_taps(model)
        steps.pick_together(model)
    if target.scored_on_demand:
        ask_whether_scored(model)
    steps.weigh_together(model)
    for node in list(model.graph):
        if node.domain != DOMAIN:
            continue
        tape = Tape()
        replacements = target.rules[node.op_type](node, tape)
        names = [output.name for output in node.outputs]
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], tape.nodes, node.outputs, replacements)
        for value, name in zip(replacements, names, strict=True):
            value.name = name
    model.opset_imports.pop(DOMAIN, None)
    RemoveUnusedNodesPass()(model)
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    model.opset_imports[""] = max([model.opset_imports[""], *(SINCE.get(node.op_type, 0) for node in nodes)])
    if target.fused_residuals:
        fuse_residuals(model)
    if target.fused:
        model.opset_imports["com.microsoft"] = 1
