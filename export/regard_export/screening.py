"""The output layer of an int8 step, read in 4 bits where a single row is decoded.

A step of one row takes as long as its weights take to be read, and most of them are the output layer's. In 4 bits
they are half as many. What those find likeliest is scored again, in fp32, by its own rows of the embedding, which is
the same matrix transposed; so whatever is chosen is chosen among exact logits. It is a preview of all words and a full
view of the best, as in Shim et al. 2017, SVD-Softmax, section 3, but with fewer bits instead of fewer dimensions: of
these a matrix may need all.

Two rows are read at the cost of one, so that the more there are, the less there is to gain: it is for a row that is
alone (`alone.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape

from regard.manifest import GenerationSpec
from regard_export.attention import trimmed
from regard_export.lowering.operands import int64
from regard_export.shared_weights import ALIGNMENT

LEAST_WEIGHTS = 1 << 23
"""Output layers of fewer weights stay in the caches: nothing is gained there."""
MOST_SUPPRESSED = 7
"""The service screens for 8 candidates at most (`regard.engine.lane`), and greedy search needs one that may come."""
BITS, BLOCK = 4, 256
"""So many weights of a token have a scale of their own."""
MIDDLE = 1 << (BITS - 1)
INT8_ACTIVATIONS = 4
"""The accuracy level of MatMulNBits at which it multiplies integers:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#commicrosoftmatmulnbits
"""
CANDIDATES = ("candidate_scores", "candidate_ids")
"""In the order in which a step finds them: the ids come last."""
OUTPUTS = (*CANDIDATES, "log_sum_exp", "logits")


@dataclass(frozen=True)
class _OutputLayer:
    """What makes candidates of the last hidden states: products, logits of these, and the best of the logits."""

    hidden: ir.Value
    products: ir.Value
    """What the matrix gives, and the bias."""
    bias: npt.NDArray[np.float32] | None
    """The bias [V], if there is one."""
    scoring: list[ir.Node]
    """What makes `logits` of the products, in order."""
    logits: ir.Value
    embedding: ir.Value
    weights: npt.NDArray[np.float32]
    """Those of the embedding, [V, H]."""


def screen(model: ir.Model, path: Path, weights: Mapping[str, onnx.TensorProto], least: int = LEAST_WEIGHTS) -> bool:
    """Let, in place, a quantised step screen the vocabulary, if its output layer is large, and tied to an embedding.

    `weights` are those in fp32 by the names that they had; the new ones go to the file beside the graph at `path`. A
    new input, `num_screened`, says how many tokens are scored again. Return False, and leave it, if it can't screen.
    """
    layer = _output_layer(model.graph, weights)
    if layer is None or layer.weights.size < least:
        return False
    num_screened = ir.Value(name="num_screened", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    model.graph.inputs.append(num_screened)
    packed, scales = pack(layer.weights)
    kept: dict[str, npt.NDArray[Any]] = {"weights": packed, "scales": scales}
    if layer.bias is not None:
        kept["bias"] = layer.bias
    given = {name: _append(model.graph, f"screening.{name}", array, path) for name, array in kept.items()}
    _screen(model.graph, layer, given, num_screened)
    model.opset_imports["com.microsoft"] = 1
    RemoveUnusedNodesPass()(model)
    return True


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


def _screen(graph: ir.Graph, layer: _OutputLayer, weights: Mapping[str, ir.Value], num_screened: ir.Value) -> None:
    """Score all tokens in 4 bits, and the best of them again, for all that is told of the next token."""
    tape = Tape()
    tokens, width = layer.weights.shape
    attributes = {"K": width, "N": tokens, "bits": BITS, "block_size": BLOCK, "accuracy_level": INT8_ACTIVATIONS}
    operands = [layer.hidden, weights["weights"], weights["scales"], None, None, weights.get("bias")]
    narrow = tape.op("MatMulNBits", trimmed(operands), attributes, domain="com.microsoft")
    _, best = tape.op_multi_out("TopK", [_logits_of(tape, layer, narrow), num_screened], {"axis": -1}, num_outputs=2)
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
    multiplying = layer.products.producer()
    assert multiplying is not None
    ir.convenience.replace_nodes_and_values(graph, multiplying, [], tape.nodes, [layer.products], [both])
    listed = Tape()
    logits = layer.logits if layer.scoring else both
    candidates = listed.op("GatherElements", [logits, best], {"axis": 1})
    num_candidates = _named(graph.inputs, "num_candidates")
    scores, order = listed.op_multi_out("TopK", [candidates, num_candidates], {"axis": -1}, num_outputs=2)
    ids = listed.op("GatherElements", [best, order], {"axis": 1})
    told = [_named(graph.outputs, name) for name in CANDIDATES]
    choosing = told[-1].producer()
    assert choosing is not None
    ir.convenience.replace_nodes_and_values(graph, choosing, [], listed.nodes, told, [scores, ids])


def _logits_of(tape: Tape, layer: _OutputLayer, products: ir.Value) -> ir.Value:
    """Do with products what the step does with those of the layer until they are logits."""
    done = {layer.products: products}
    for node in layer.scoring:
        inputs = [done.get(one, one) if one is not None else None for one in node.inputs]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        outputs = tape.op_multi_out(node.op_type, inputs, attributes, domain=node.domain, num_outputs=len(node.outputs))
        done |= dict(zip(node.outputs, outputs, strict=True))
    return done[layer.logits]


def _output_layer(graph: ir.Graph, weights: Mapping[str, onnx.TensorProto]) -> _OutputLayer | None:
    """Return the matrix whose products lead to all that is told of the next token, and to nothing else."""
    if not set(OUTPUTS) <= {value.name for value in graph.outputs}:
        return None
    owners = _owners(graph)
    for multiply in (node for node in graph if node.op_type == "MatMulInteger"):
        rounding, matrix = multiply.inputs[0].producer() if multiply.inputs[0] else None, multiply.inputs[1]
        if rounding is None or rounding.op_type != "DynamicQuantizeLinear" or matrix is None or matrix.name is None:
            continue
        nodes = _behind(rounding.outputs[0], owners) | _behind(rounding.outputs[1], owners) | {rounding}
        made = {value for node in nodes for value in node.outputs} & set(graph.outputs)
        if {value.name for value in made} != set(OUTPUTS):
            continue
        (cast,) = multiply.outputs[0].consumers()
        (scaled,) = cast.outputs[0].consumers()
        array = onnx.numpy_helper.to_array(weights[matrix.name.removesuffix("_quantized")])
        hidden, products, bias = rounding.inputs[0], *_biased(scaled.outputs[0], array.shape[1], weights)
        embedding = _tied(graph, weights, array)
        if embedding is not None and hidden is not None and products.shape is not None:
            logits = _named(graph.outputs, "logits")
            behind = _behind(products, owners)
            scoring = [node for node in graph if node in behind and logits in _given_by(node, owners)]
            if any(node in owners.values() for node in scoring):
                continue
            layer = np.ascontiguousarray(array.T)
            return _OutputLayer(hidden, products, bias, scoring, logits, embedding, layer)
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


def _owners(graph: ir.Graph) -> dict[ir.Graph, ir.Node]:
    """Return the node of each branch within a graph, which gives what the branch does."""
    nodes = ir.traversal.RecursiveGraphIterator(graph)
    attributes = ((node, attribute) for node in nodes for attribute in node.attributes.values())
    return {attribute.as_graph(): node for node, attribute in attributes if attribute.type == ir.AttributeType.GRAPH}


def _behind(value: ir.Value, owners: Mapping[ir.Graph, ir.Node]) -> set[ir.Node]:
    """Return all nodes that depend on a value, those of branches and those that have such branches among them."""
    found: set[ir.Node] = set()
    waiting = list(value.consumers())
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [user for output in node.outputs for user in output.consumers()]
            if isinstance(node.graph, ir.Graph) and node.graph in owners:
                waiting.append(owners[node.graph])
    return found


def _given_by(node: ir.Node, owners: Mapping[ir.Graph, ir.Node]) -> set[ir.Value]:
    """Return all values that a node, or what depends on it, gives."""
    behind = (_behind(output, owners) for output in node.outputs)
    return {value for one in {node}.union(*behind) for value in one.outputs}


def _named(values: Iterable[ir.Value], name: str) -> ir.Value:
    (named,) = (value for value in values if value.name == name)
    return named


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
