"""Attention weights times the norms of what they weigh, as further taps of a graph.

What a head adds to a query for a key is its weight times the key's transformed value: the value, multiplied by
the head's part of the matrix that puts the heads together (Kobayashi et al. 2020, Attention is not only a weight,
section 3). A large weight of a value that is next to nothing adds next to nothing.

The norm of a value [D] times a head's matrix [D, W] is that of the value times its factor [D, D], the lower
triangle of the matrix' LQ decomposition, whose other half keeps norms as they are: W / D times as little to
multiply. The factors are weights of the graph; the values are those that its attention reads.

They are taps like any others, with rows of their own, whose weights are multiplied by the placeholder
`TimesNorms(weights, rows, query, value, factors)`; what that is, is the same for all targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard.manifest import TapSpec
from regard_export.attention import DOMAIN, trimmed
from regard_export.errors import ExportError
from regard_export.graphs import NORM_ROWS
from regard_export.lowering.operands import constant, heads_of, int64
from regard_export.lowering.weights import FLOAT, choose, no_weights
from regard_export.passes.interventions import attention_of

COUNTS = {"self": "E", "cross": "F"}
"""The letter of how many rows ask, for a kind of attention."""

Array = npt.NDArray[np.float64]


def add_value_norms(model: ir.Model, taps: Sequence[TapSpec]) -> list[TapSpec]:
    """Give `model`, which is simplified and not yet lowered, a tap of weights times norms beside each of its `taps`.

    Raises `ExportError` if there are none, or if a layer's heads are put together by anything but a matrix right behind
    them.
    """
    if not taps:
        raise ExportError("none of its layers has attention between all positions; leave --value-norms out")
    by_name = {value.name: value for value in model.graph.outputs}
    rows = {kind: _rows(model.graph, kind) for kind in dict.fromkeys(tap.kind for tap in taps)}
    return [_weigh(model.graph, tap, by_name[tap.output], rows[tap.kind]) for tap in taps]


def write_norms(model: ir.Model) -> None:
    """Replace, in place, every `TimesNorms` by operators of ONNX, none of which runs unless a row asks."""
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == "TimesNorms":
            tape = Tape()
            (found,) = _times_norms(node, tape)
            (old,) = node.outputs
            name = old.name
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], tape.nodes, [old], [found])
            found.name = name


def _times_norms(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Multiply weights [A, H, Q, T] of some rows of `query` by the norms of values [R, h, T or more, D] times factors.

    What has the weight 0 stays 0, whatever a buffer holds there.
    """
    weights, rows, query, values, factors = node.inputs
    assert weights is not None and weights.shape is not None and rows is not None
    heads = weights.shape[1]
    assert isinstance(heads, int)
    sharing = heads // heads_of(values)

    def some(tape: Tape) -> Sequence[ir.Value]:
        counts = [tape.op("Shape", [one], {"start": 0, "end": 1}) for one in (query, values)]
        requests = tape.op("Div", [rows, tape.op("Div", counts)])
        keys = tape.op("Shape", [weights], {"start": 3, "end": 4})
        own = tape.op("Gather", [values, requests], {"axis": 0})
        own = tape.op("Cast", [tape.op("Slice", [own, int64(tape, [0]), keys, int64(tape, [2])])], {"to": FLOAT})
        if sharing > 1:
            own = tape.op("Gather", [own, int64(tape, [head // sharing for head in range(heads)])], {"axis": 1})
        norms = tape.op("ReduceL2", [tape.op("MatMul", [own, factors]), int64(tape, [3])], {"keepdims": 0})
        nothing = constant(tape, np.float32(0))
        weighted = tape.op("Mul", [weights, tape.op("Unsqueeze", [norms, int64(tape, [2])])])
        return [tape.op("Where", [tape.op("Greater", [weights, nothing]), weighted, nothing])]

    def none(tape: Tape) -> Sequence[ir.Value]:
        return [no_weights(tape, heads, None)]

    asked = tape.op("Greater", [tape.op("Size", [rows]), constant(tape, np.int64(0))])
    name = node.outputs[0].name
    return choose(tape, asked, (some, none), (f"{name}.asked", f"{name}.nothing"))


def _rows(graph: ir.Graph, kind: str) -> ir.Value:
    value = ir.Value(name=NORM_ROWS[kind], shape=ir.Shape([COUNTS[kind]]), type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.append(value)
    return value


def _weigh(graph: ir.Graph, tap: TapSpec, weights: ir.Value, rows: ir.Value) -> TapSpec:
    node = weights.producer()
    assert node is not None and weights.shape is not None
    attention = attention_of(node)
    cached = attention.op_type == "CachedAttention"
    query, key, _, length, total, bias = [*node.inputs, None, None, None][:6]
    value = attention.outputs[2] if cached else attention.inputs[2]
    output = f"{tap.kind}_norm.{tap.output.rpartition('.')[2]}"
    factors = _initializer(graph, f"{output}.factors", _factors(_projection(attention, tap), tap.heads))
    tape = Tape()
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    own = tape.op("AttentionWeights", trimmed([query, key, rows, length, total, bias]), attributes, domain=DOMAIN)
    weighted = tape.op("TimesNorms", [own, rows, query, value, factors], domain=DOMAIN)
    for made, name in ((own, f"{output}.weights"), (weighted, output)):
        made.name, made.type = name, ir.TensorType(ir.DataType.FLOAT)
        made.shape = ir.Shape([COUNTS[tap.kind], *weights.shape[1:]])
    graph.insert_after(node, tape.nodes)
    graph.outputs.append(weighted)
    return tap.model_copy(update={"output": output, "rows_input": rows.name, "weighting": "value_norm"})


def _projection(attention: ir.Node, tap: TapSpec) -> Array:
    """Return the matrix [H * D, W] that the heads' outputs, side by side, are multiplied by."""
    value: ir.Value | None = attention.outputs[0]
    while value is not None and len(value.uses()) == 1:
        (user,) = (user for user, _ in value.uses())
        matrix = user.inputs[1] if user.op_type in ("MatMul", "Gemm") and user.inputs[0] is value else None
        constant = ir.convenience.get_const_tensor(matrix) if matrix is not None else None
        if constant is not None:
            array: Array = constant.numpy().astype(np.float64)
            return array.T if "transB" in user.attributes and user.attributes["transB"].as_int() else array
        value = user.outputs[0] if user.op_type == "Reshape" else None
    raise ExportError(
        f"the {tap.kind}-attention of layer {tap.layer} of its {tap.stack} has no matrix right behind it that puts the "
        "heads together, so that values have no norms of their own; leave --value-norms out"
    )


def _factors(matrix: Array, heads: int) -> Array:
    """Return a factor [H, D, at most D] of each head: values times it are as long as values times its matrix."""
    own = matrix.reshape(heads, -1, matrix.shape[1])
    triangles: Array = np.asarray(np.linalg.qr(own.transpose(0, 2, 1), mode="r"))
    return triangles.transpose(0, 2, 1)


def _initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    tensor = ir.tensor(array.astype(np.float32), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
