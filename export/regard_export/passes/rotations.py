"""Rotary positions (Su et al. 2021, RoFormer, section 3.2.2) as one operator for queries, and one for keys.

Models write them as what they are: products with cosines, and of the other half of a head, negated, with sines. That
would be eleven nodes each, with those that bring the heads to the front and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering.operands import BY_HEAD, heads_of, int64
from regard_export.passes.matching import before_cast, exchanges_heads, heads_and_size, number, numbers, producer

Halves = dict[ir.Value, ir.Value]
"""Of angles whose halves were cut already: one of them."""


def unite_rotations(model: ir.Model) -> None:
    """Write, in place, every rotation of [R, H, S, D] as `RotaryEmbedding(heads, cosines, sines)`.

    Its heads are side by side, [R, S, H * D], where they were before. Cosines and sines [R, S, D / 2] are those of
    either half.
    """
    halves: Halves = {}
    for total in list(model.graph):
        if total.op_type == "Add":
            for direct, turned in _orders(total):
                found = _rotation(producer(direct, "Mul"), producer(turned, "Mul"))
                if found is not None:
                    _unite(model.graph, total, *found, halves)
                    break
    RemoveUnusedNodesPass()(model)


def _orders(node: ir.Node) -> Iterator[Sequence[ir.Value | None]]:
    yield node.inputs
    yield tuple(reversed(node.inputs))


def _rotation(direct: ir.Node | None, turned: ir.Node | None) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return what is rotated, its cosines and its sines [b, S, D], if two products are the parts of a rotation."""
    if direct is None or turned is None:
        return None
    for heads, cosines in _orders(direct):
        for other, sines in _orders(turned):
            found = _angle(cosines, "Cos"), _angle(sines, "Sin")
            if heads is not None and found[0] is not None and found[1] is not None and _is_turned(other, heads):
                return heads, found[0], found[1]
    return None


def _is_turned(value: ir.Value | None, heads: ir.Value) -> bool:
    """Whether a value is the second half of `heads`, negated, and then the first."""
    both = producer(value, "Concat")
    if both is None or len(both.inputs) != 2 or heads.shape is None or len(heads.shape) != 4:
        return False
    negated = producer(both.inputs[0], "Neg")
    size = heads.shape[3]
    if negated is None or not isinstance(size, int) or both.attributes["axis"].as_int() not in (-1, 3):
        return False
    return _is_cut(negated.inputs[0], heads, size // 2, size) and _is_cut(both.inputs[1], heads, 0, size // 2)


def _is_cut(value: ir.Value | None, heads: ir.Value, start: int, end: int) -> bool:
    cut = producer(value, "Slice")
    if cut is None or cut.inputs[0] is not heads or len(cut.inputs) < 4:
        return False
    starts, ends, axes, *steps = (numbers(one) for one in cut.inputs[1:])
    last = heads.shape is not None and end == heads.shape[3]
    ends_there = ends == [end] or (last and ends is not None and ends > [end])
    return starts == [start] and ends_there and axes in ([3], [-1]) and all(step == [1] for step in steps)


def _angle(value: ir.Value | None, function: str) -> ir.Value | None:
    """Return [b, S, D], of whose cosines or sines every head's are made, if both halves are of the same angles.

    Where heads are rotated in another precision, they are cast to that last.
    """
    unsqueezed = producer(before_cast(value), "Unsqueeze")
    if unsqueezed is None or numbers(unsqueezed.inputs[1]) != [1]:
        return None
    angle = above = unsqueezed.inputs[0]
    while (node := above.producer() if above is not None else None) is not None and node.op_type in ("Cast", "Mul"):
        if node.op_type == "Mul" and number(node.inputs[1]) is None:
            return None
        above = node.inputs[0]
    applied = producer(above, function)
    halves = producer(applied.inputs[0], "Concat") if applied is not None else None
    if halves is None or len(halves.inputs) != 2 or halves.inputs[0] is not halves.inputs[1]:
        return None
    return angle


def _unite(
    graph: ir.Graph, total: ir.Node, heads: ir.Value, cosines: ir.Value, sines: ir.Value, halves: Halves
) -> None:
    """Rotate `heads` [R, H, S, D] where they are, or where they were side by side before."""
    split, old, tape = producer(heads, "Transpose"), total.outputs[0], Tape()
    apart = split.inputs[0] if split is not None and exchanges_heads(split) else None
    given = heads if apart is None else _joined(tape, apart)
    angles = [_half(tape, one, heads, halves) for one in (cosines, sines)]
    rotated = tape.op("RotaryEmbedding", [given, *angles], {"num_heads": heads_of(heads)}, domain=DOMAIN)
    new = _typed(rotated, given, given.shape)
    if apart is not None and apart.shape is not None:
        again = _typed(tape.op("Reshape", [rotated, int64(tape, [0, 0, *heads_and_size(apart)])]), apart, apart.shape)
        new = _typed(tape.op("Transpose", [again], BY_HEAD), heads, heads.shape)
        for user, _ in list(old.uses()):
            if exchanges_heads(user) and not user.outputs[0].is_graph_output():
                ir.convenience.replace_all_uses_with(user.outputs[0], again)
    name = old.name
    ir.convenience.replace_nodes_and_values(graph, total, [total], tape.nodes, [old], [new])
    new.name = name


def _joined(tape: Tape, apart: ir.Value) -> ir.Value:
    """Return [R, S, H, D] as [R, S, H * D]."""
    assert apart.shape is not None
    heads, size = heads_and_size(apart)
    return _typed(
        tape.op("Reshape", [apart, int64(tape, [0, 0, heads * size])]), apart, [*apart.shape[:2], heads * size]
    )


def _half(tape: Tape, angles: ir.Value, heads: ir.Value, halves: Halves) -> ir.Value:
    """Return the first half of angles [b, S, D], for every row of `heads` [R, ..]; it is cut once for all layers."""
    if angles not in halves:
        assert angles.shape is not None and heads.shape is not None
        rows, positions, size = angles.shape
        assert isinstance(size, int)
        half = tape.op("Slice", [angles, *(int64(tape, [one]) for one in (0, size // 2, 2))])
        if angles.dtype != heads.dtype:
            half = tape.op("Cast", [half], {"to": heads.dtype})
        if rows != heads.shape[0]:
            shape = tape.op("Shape", [heads], {"start": 0, "end": 1})
            half = tape.op("Expand", [half, tape.op("Concat", [shape, int64(tape, [1, 1])], {"axis": 0})])
        halves[angles] = _typed(half, heads, [heads.shape[0], positions, size // 2])
    return halves[angles]


def _typed(value: ir.Value, like: ir.Value, shape: Iterable[int | ir.SymbolicDim] | None) -> ir.Value:
    """Say that a value has the type of another, and this shape."""
    value.type, value.shape = like.type, None if shape is None else ir.Shape(list(shape))
    return value
