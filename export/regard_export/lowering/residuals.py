"""A residual connection and the norm behind it in one operator.

ONNX Runtime's optimiser does this where nothing else reads the sum. Where the next residual
connection reads it, as in every model that normalises first, the operator can give the sum as well.
"""

from __future__ import annotations

import onnx_ir as ir

FUSED = {
    "LayerNormalization": "SkipLayerNormalization",
    "RMSNormalization": "SkipSimplifiedLayerNormalization",
}


def fuse_residuals(model: ir.Model) -> None:
    """Replace, in place, every sum of two values [.., .., W] and the norm over W that reads it."""
    for norm in list(model.graph):
        add = norm.inputs[0].producer() if norm.op_type in FUSED and norm.inputs[0] is not None else None
        if add is not None and _is_residual(add) and norm.attributes["axis"].as_int() in (-1, 2):
            _fuse(model.graph, norm, add)


def _is_residual(add: ir.Node) -> bool:
    if add.op_type != "Add":
        return False
    one, other = (value.shape if value is not None else None for value in add.inputs)
    return one is not None and len(one) == 3 and one == other


def _fuse(graph: ir.Graph, norm: ir.Node, add: ir.Node) -> None:
    total, normalized = add.outputs[0], norm.outputs[0]
    branches, bias = _branches(add)
    added = [value.producer() for value in add.inputs if value is not None]
    scale, shift = [*norm.inputs[1:], None][:2]
    weights = [scale] if norm.op_type == "RMSNormalization" else [scale, shift]
    outputs = [ir.Value(name=normalized.name, type=normalized.type, shape=normalized.shape)]
    if len(total.uses()) > 1:
        outputs += [ir.Value(name=""), ir.Value(name="")]  # the mean and the deviation, which training needs
        outputs += [ir.Value(name=total.name, type=total.type, shape=total.shape)]
    fused = ir.node(
        FUSED[norm.op_type],
        [*branches, *weights, *([bias] if bias is not None else [])],
        {"epsilon": norm.attributes["epsilon"].as_float()},
        outputs=outputs,
        domain="com.microsoft",
    )
    ir.convenience.replace_nodes_and_values(
        graph, add, [norm, add], [fused], [normalized, total], [outputs[0], outputs[-1]]
    )
    idle = [node for node in added if node is not None and node.op_type == "Add" and not node.outputs[0].uses()]
    graph.remove(idle, safe=True)


def _branches(add: ir.Node) -> tuple[list[ir.Value | None], ir.Value | None]:
    """Return the two values that are added, and a constant bias [W] that one of them ends with."""
    for index, value in enumerate(add.inputs):
        last = value.producer() if value is not None else None
        if value is None or last is None or last.op_type != "Add" or len(value.uses()) > 1:
            continue
        for branch, bias in (last.inputs, reversed(last.inputs)):
            if bias is not None and bias.const_value is not None and bias.shape is not None and len(bias.shape) == 1:
                return [add.inputs[1 - index], branch], bias
    return list(add.inputs), None
