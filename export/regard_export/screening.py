"""The output layer of an int8 step, read in 4 bits where a single row is decoded.

A step of one row takes as long as its weights take to be read, and most of them are the output layer's. In 4 bits
they are half as many. What those find likeliest is scored again, in fp32, by its own rows of the embedding, which is
the same matrix transposed; so whatever is chosen is chosen among exact logits. It is a preview of all words and a full
view of the best, as in Shim et al. 2017, SVD-Softmax, section 3, but with fewer bits instead of fewer dimensions: of
these a matrix may need all.

Two rows are read at the cost of one, so that the more there are, the less there is to gain: the step is told how many
tokens it may pick that way (`num_screened`), and none means that it multiplies by all 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard.manifest import GenerationSpec
from regard_export.attention import trimmed
from regard_export.branches import Branch, branch_off
from regard_export.lowering.operands import int64

LEAST_WEIGHTS = 1 << 23
"""Output layers of fewer weights stay in the caches: nothing is gained there."""
MOST_SUPPRESSED = 7
"""The service screens for 8 candidates at most (`regard.engine.lane`), and greedy search needs one that may come."""
BITS, BLOCK = 4, 128
"""So many weights of a token have a scale of their own."""
MIDDLE = 1 << (BITS - 1)
INT8_ACTIVATIONS = 4
"""The accuracy level of MatMulNBits at which it multiplies integers:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#commicrosoftmatmulnbits
"""
ALIGNMENT = 4096
"""Where weights may begin in their file, so that the file can be mapped."""
OUTPUTS = ("candidate_ids", "candidate_scores", "log_sum_exp", "logits")


@dataclass(frozen=True)
class _OutputLayer:
    """What makes logits of the last hidden states: all nodes from there on, in order, and the embedding."""

    hidden: ir.Value
    products: ir.Value
    """What the matrix gives, and the bias."""
    bias: npt.NDArray[np.float32] | None
    """The bias [V], if there is one."""
    nodes: list[ir.Node]
    embedding: ir.Value
    weights: npt.NDArray[np.float32]
    """Those of the embedding, [V, H]."""


def screen(
    model: ir.Model, path: Path, weights: Mapping[str, onnx.TensorProto], least: int = LEAST_WEIGHTS
) -> ir.Value | None:
    """Let, in place, a quantised step screen the vocabulary, if its output layer is large, and tied to an embedding.

    `weights` are those in fp32 by the names that they had; the new ones go to the file beside the graph. Return
    whether the step screens, which it does for a row that is alone; None if it can't.
    """
    layer = _output_layer(model.graph, weights)
    if layer is None or layer.weights.size < least:
        return None
    num_screened = ir.Value(name="num_screened", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    model.graph.inputs.append(num_screened)
    tape = Tape()
    screens = tape.op("Greater", [num_screened, int64(tape, [0])])
    screens.type, screens.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([1])
    model.graph.insert_before(model.graph[0], tape.nodes)
    packed, scales = pack(layer.weights)
    kept: dict[str, npt.NDArray[Any]] = {"weights": packed, "scales": scales}
    if layer.bias is not None:
        kept["bias"] = layer.bias
    given = {name: _append(model.graph, f"screening.{name}", array, path) for name, array in kept.items()}
    places = {value.name: value for value in model.graph.outputs}
    old = [places[name] for name in OUTPUTS]
    plain = Branch("whole")
    plain.copy(layer.nodes)
    whole = plain.graph([plain.of(value) for value in old])
    branch_off(model.graph, layer.nodes, old, screens, (_screening(layer, given, num_screened, old), whole))
    model.opset_imports["com.microsoft"] = 1
    return screens


def may_screen(generation: GenerationSpec | None) -> bool:
    """Whether rows of a model are ever told to screen: not where so many tokens are suppressed, or some at first."""
    if generation is None or generation.defaults.begin_suppress_tokens:
        return False
    return len(generation.suppressed_token_ids) <= MOST_SUPPRESSED


def pack(weights: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return weights [V, H] as MatMulNBits takes them: two in a byte [V, blocks, BLOCK / 2], and scales [V, blocks]."""
    tokens, width = weights.shape
    blocks = -(-width // BLOCK)
    padded = np.zeros((tokens, blocks * BLOCK), np.float32)
    padded[:, :width] = weights
    padded = padded.reshape(tokens, blocks, BLOCK)
    scales = np.abs(padded).max(axis=2) / (MIDDLE - 1)
    steps = np.where(scales > 0, scales, 1)[..., None]
    rounded = (np.rint(padded / steps) + MIDDLE).astype(np.uint8)
    return (rounded[..., 0::2] | rounded[..., 1::2] << BITS).astype(np.uint8), scales


def _screening(
    layer: _OutputLayer, weights: Mapping[str, ir.Value], num_screened: ir.Value, outputs: Sequence[ir.Value]
) -> ir.Graph:
    """Return the branch that scores all tokens in 4 bits, and the best of them again."""
    branch, tape = Branch("screened"), Tape()
    tokens, width = layer.weights.shape
    attributes = {"K": width, "N": tokens, "bits": BITS, "block_size": BLOCK, "accuracy_level": INT8_ACTIVATIONS}
    operands = [layer.hidden, weights["weights"], weights["scales"], None, None, weights.get("bias")]
    narrow = tape.op("MatMulNBits", trimmed(operands), attributes, domain="com.microsoft")
    branch.add(tape)
    behind = _behind(layer.products)
    after = [node for node in layer.nodes if node in behind]
    logits = outputs[OUTPUTS.index("logits")]
    before = [node for node in after if logits in _given_by(node)]
    branch.copy(before, {layer.products: narrow})
    tape = Tape()
    _, best = tape.op_multi_out("TopK", [branch.of(logits), num_screened], {"axis": -1}, num_outputs=2)
    rows = tape.op("Gather", [layer.embedding, best], {"axis": 0})
    exact = tape.op("MatMul", [rows, tape.op("Reshape", [layer.hidden, int64(tape, [-1, width, 1])])])
    assert layer.products.shape is not None
    places = best
    if len(layer.products.shape) == 2:
        exact = tape.op("Squeeze", [exact, int64(tape, [2])])
    else:
        exact = tape.op("Reshape", [exact, int64(tape, [0, 1, -1])])
        places = tape.op("Unsqueeze", [best, int64(tape, [1])])
    if "bias" in weights:
        exact = tape.op("Add", [exact, tape.op("Gather", [weights["bias"], places])])
    both = tape.op("ScatterElements", [narrow, places, exact], {"axis": -1})
    branch.add(tape)
    (choosing,) = (node for node in after if node.op_type == "TopK")
    branch.copy(before, {layer.products: both})
    tape = Tape()
    listed = tape.op("GatherElements", [branch.of(logits), best], {"axis": 1})
    scores, order = tape.op_multi_out("TopK", [listed, choosing.inputs[1]], {"axis": -1}, num_outputs=2)
    ids = tape.op("GatherElements", [best, order], {"axis": 1})
    branch.add(tape)
    given = dict(zip(choosing.outputs, (scores, ids), strict=True))
    branch.copy([node for node in after if node not in before and node is not choosing], given)
    return branch.graph([branch.of(value) for value in outputs])


def _output_layer(graph: ir.Graph, weights: Mapping[str, onnx.TensorProto]) -> _OutputLayer | None:
    """Return the matrix whose products lead to all that is told of the next token, and to nothing else."""
    if not set(OUTPUTS) <= {value.name for value in graph.outputs}:
        return None
    for multiply in (node for node in graph if node.op_type == "MatMulInteger"):
        rounding, matrix = multiply.inputs[0].producer() if multiply.inputs[0] else None, multiply.inputs[1]
        if rounding is None or rounding.op_type != "DynamicQuantizeLinear" or matrix is None or matrix.name is None:
            continue
        nodes = _behind(rounding.outputs[0]) | _behind(rounding.outputs[1]) | {rounding}
        made = {value.name for node in nodes for value in node.outputs if value.is_graph_output()}
        if made != set(OUTPUTS) or any(isinstance(a.value, ir.Graph) for n in nodes for a in n.attributes.values()):
            continue
        (cast,) = multiply.outputs[0].consumers()
        (scaled,) = cast.outputs[0].consumers()
        array = onnx.numpy_helper.to_array(weights[matrix.name.removesuffix("_quantized")])
        hidden, products, bias = rounding.inputs[0], *_biased(scaled.outputs[0], array.shape[1], weights)
        embedding = _tied(graph, weights, array)
        if embedding is not None and hidden is not None and products.shape is not None:
            ordered = [node for node in graph if node in nodes]
            return _OutputLayer(hidden, products, bias, ordered, embedding, np.ascontiguousarray(array.T))
    return None


def _biased(
    products: ir.Value, tokens: int, weights: Mapping[str, onnx.TensorProto]
) -> tuple[ir.Value, npt.NDArray[np.float32] | None]:
    """Return what products are with their bias, and the bias [V]; as they are, and None, if they have none."""
    users = list(products.consumers())
    if len(users) == 1 and users[0].op_type == "Add":
        for name in (str(value.name) for value in users[0].inputs if value is not None):
            if name in weights and math.prod(weights[name].dims) == tokens:
                return users[0].outputs[0], onnx.numpy_helper.to_array(weights[name]).reshape(-1)
    return products, None


def _tied(graph: ir.Graph, weights: Mapping[str, onnx.TensorProto], matrix: npt.NDArray[np.float32]) -> ir.Value | None:
    """Return the embedding whose transpose a matrix is, if there is one."""
    for name, value in graph.initializers.items():
        if name in weights and list(weights[name].dims) == [*reversed(matrix.shape)]:
            array = onnx.numpy_helper.to_array(weights[name])
            if array.dtype == np.float32 and np.array_equal(array.T, matrix):
                return value
    return None


def _behind(value: ir.Value) -> set[ir.Node]:
    """Return all nodes that depend on a value."""
    found: set[ir.Node] = set()
    waiting = list(value.consumers())
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [user for output in node.outputs for user in output.consumers()]
    return found


def _given_by(node: ir.Node) -> set[ir.Value]:
    """Return all values that a node, or what depends on it, gives."""
    return {value for one in {node}.union(*map(_behind, node.outputs)) for value in one.outputs}


def _append(graph: ir.Graph, name: str, array: npt.NDArray[Any], path: Path) -> ir.Value:
    """Put weights behind those in the file beside a graph, and return their initializer."""
    file = path.with_name(f"{path.name}.data")
    with file.open("ab") as out:
        out.write(bytes(-out.tell() % ALIGNMENT))
        offset = out.tell()
        out.write(array.tobytes())
    dtype, shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    kept = ir.ExternalTensor(file.name, offset, array.nbytes, dtype, shape=shape, name=name, base_dir=path.parent)
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape, const_value=kept)
    graph.register_initializer(value)
    return value
