"""The graphs that change tensors [N, H, P, D] where they lie, as the bytes of ONNX models.

They are so small that they are written here: ONNX is a protobuf, whose encoding is a number, a kind
and a value for each field (https://protobuf.dev/programming-guides/encoding/, and
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto for the numbers). So the service needs no
library for it. Each graph works on `count` tensors of one type alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

OPSET, IR_VERSION = 17, 8
ELEMENT_TYPES = {"float32": 1, "int64": 7, "float16": 10}
RANK = 4
Builder = Callable[[str, int], bytes]


def zeros(dtype: str, count: int) -> bytes:
    """`shape` [4] -> `made.i` of zeros."""
    nodes = [_zeros("shape", f"made.{at}", dtype) for at in range(count)]
    return _model(nodes, {"shape": ("int64", 1)}, _named("made", dtype, count))


def clear(dtype: str, count: int) -> bytes:
    """`state.i`, `shape` [4] of the cleared entries, their `targets` [M, 1] -> `changed.i`."""
    nodes = []
    for at in range(count):
        nodes += [
            _zeros("shape", f"zeros.{at}", dtype),
            _node("ScatterND", [f"state.{at}", "targets", f"zeros.{at}"], f"changed.{at}"),
        ]
    inputs = {**_named("state", dtype, count), "shape": ("int64", 1), "targets": ("int64", 2)}
    return _model(nodes, inputs, _named("changed", dtype, count))


def copy(dtype: str, count: int) -> bytes:
    """`state.i`, entries `sources` [M] and `targets` [M, 1] -> `changed.i`."""
    nodes = []
    for at in range(count):
        nodes += [
            _node("Gather", [f"state.{at}", "sources"], f"copied.{at}"),
            _node("ScatterND", [f"state.{at}", "targets", f"copied.{at}"], f"changed.{at}"),
        ]
    inputs = {**_named("state", dtype, count), "sources": ("int64", 1), "targets": ("int64", 2)}
    return _model(nodes, inputs, _named("changed", dtype, count))


def place(dtype: str, count: int) -> bytes:
    """`state.i`, `value.i` [1, H, P', D], its `ends` [1], `pads` [8] behind, `targets` [1, 1] -> `changed.i`."""
    nodes = [_constant("starts", [0]), _constant("axes", [2])]
    for at in range(count):
        nodes += [
            _node("Slice", [f"value.{at}", "starts", "ends", "axes"], f"cut.{at}"),
            _node("Pad", [f"cut.{at}", "pads"], f"padded.{at}"),
            _node("ScatterND", [f"state.{at}", "targets", f"padded.{at}"], f"changed.{at}"),
        ]
    inputs = {**_named("state", dtype, count), **_named("value", dtype, count)}
    inputs |= {"ends": ("int64", 1), "pads": ("int64", 1), "targets": ("int64", 2)}
    return _model(nodes, inputs, _named("changed", dtype, count))


def resize(dtype: str, count: int) -> bytes:
    """`state.i`, kept entries and positions `ends` [2], `pads` [8] behind them -> `made.i`."""
    nodes = [_constant("starts", [0, 0]), _constant("axes", [0, 2])]
    for at in range(count):
        nodes += [
            _node("Slice", [f"state.{at}", "starts", "ends", "axes"], f"cut.{at}"),
            _node("Pad", [f"cut.{at}", "pads"], f"made.{at}"),
        ]
    inputs = {**_named("state", dtype, count), "ends": ("int64", 1), "pads": ("int64", 1)}
    return _model(nodes, inputs, _named("made", dtype, count))


def _named(prefix: str, dtype: str, count: int) -> dict[str, tuple[str, int]]:
    return {f"{prefix}.{at}": (dtype, RANK) for at in range(count)}


def _model(nodes: Sequence[bytes], inputs: dict[str, tuple[str, int]], outputs: dict[str, tuple[str, int]]) -> bytes:
    """Return a ModelProto of one graph."""
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"moves")
    graph += b"".join(_field(11, _value_info(name, *value)) for name, value in inputs.items())
    graph += b"".join(_field(12, _value_info(name, *value)) for name, value in outputs.items())
    return _field(1, IR_VERSION) + _field(8, _field(2, OPSET)) + _field(7, graph)


def _node(operator: str, inputs: Sequence[str], output: str, *attributes: bytes) -> bytes:
    """Return a NodeProto."""
    named = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode())
    return named + _field(4, operator.encode()) + b"".join(_field(5, attribute) for attribute in attributes)


def _zeros(shape: str, output: str, dtype: str) -> bytes:
    zero = _tensor(dtype, bytes(_size(dtype)))
    return _node("ConstantOfShape", [shape], output, _tensor_attribute("value", zero))


def _constant(name: str, values: Sequence[int]) -> bytes:
    content = b"".join(value.to_bytes(8, "little") for value in values)
    return _node("Constant", [], name, _tensor_attribute("value", _tensor("int64", content)))


def _tensor(dtype: str, content: bytes) -> bytes:
    """Return a TensorProto of one dimension."""
    length = len(content) // _size(dtype)
    return _field(1, length) + _field(2, ELEMENT_TYPES[dtype]) + _field(9, content)


def _size(dtype: str) -> int:
    return {"float32": 4, "int64": 8, "float16": 2}[dtype]


def _tensor_attribute(name: str, tensor: bytes) -> bytes:
    """Return an AttributeProto whose type is TENSOR."""
    return _field(1, name.encode()) + _field(5, tensor) + _field(20, 4)


def _value_info(name: str, dtype: str, rank: int) -> bytes:
    """Return a ValueInfoProto whose every dimension varies."""
    shape = b"".join(_field(1, _field(2, f"{name}.{at}".encode())) for at in range(rank))
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, ELEMENT_TYPES[dtype]) + _field(2, shape)))


def _field(number: int, value: int | bytes) -> bytes:
    """Encode a field: a number as a varint, bytes with their length before them."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
