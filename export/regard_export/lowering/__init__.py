"""From Regard's placeholder operators to the operators of a target.

One file for a target; `weights.py` holds what all targets share. A rule takes a placeholder node
and writes its replacement on a tape; the values that it returns take the node's outputs' places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering import cpu
from regard_export.lowering.residuals import fuse_residuals

Rule = Callable[[ir.Node, Tape], Sequence[ir.Value]]

TARGETS: Mapping[str, Mapping[str, Rule]] = {"cpu": cpu.RULES}


def lower(model: ir.Model, target: str) -> None:
    """Replace, in place, every placeholder of `model` by the operators of `target`."""
    rules = TARGETS[target]
    for node in list(model.graph):
        if node.domain != DOMAIN:
            continue
        tape = Tape()
        replacements = rules[node.op_type](node, tape)
        names = [output.name for output in node.outputs]
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], tape.nodes, node.outputs, replacements)
        for value, name in zip(replacements, names, strict=True):
            value.name = name
    fuse_residuals(model)
    model.opset_imports.pop(DOMAIN, None)
    model.opset_imports["com.microsoft"] = 1
