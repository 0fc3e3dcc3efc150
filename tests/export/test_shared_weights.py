"""Weights of a package: each in one file once, whichever graphs read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from regard_export.package import Options, export
from regard_export.shared_weights import unite_weights

from .families import COMPLETERS, TRANSLATORS

SMALL_BYTES = 256
"""Weights of no more are in the graph itself."""


def external(model: ir.Model) -> dict[str, ir.ExternalTensor]:
    """Return what a graph reads from files, by its initializers' names."""
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    return {str(one.name): one.const_value for one in values if isinstance(one.const_value, ir.ExternalTensor)}


def weight_files(model: ir.Model) -> set[str]:
    """Return the names of the files beside a graph that its weights are in."""
    return {str(tensor.location) for tensor in external(model).values()}


@pytest.mark.parametrize(("family", "precision"), [("Llama", "fp32"), ("Llama", "int8"), ("Marian", "fp32")])
def test_no_weights_are_in_a_package_twice(family: str, precision: str, tmp_path: Path) -> None:
    """A prefill has those of its step, an encoder the embedding of its decoder; files hold nothing else."""
    save = {**COMPLETERS, **TRANSLATORS}[family]
    package = export(save(tmp_path / "checkpoint"), tmp_path, Options(name="model", precision=precision))
    models = [ir.load(path) for path in sorted(package.glob("*.onnx"))]
    places: dict[bytes, set[tuple[object, object]]] = {}
    for model in models:
        for tensor in external(model).values():
            places.setdefault(tensor.tobytes(), set()).add((tensor.location, tensor.offset))
    assert {len(found) for found in places.values()} == {1}
    assert set.intersection(*(weight_files(model) for model in models))
    held = sum(file.stat().st_size for file in package.glob("*.data"))
    assert held == sum(map(len, places))


def save_graph(path: Path, **weights: np.ndarray) -> None:
    """Write a graph that gives the sum of weights, which are in a file beside it."""
    values = [ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in weights.items()]
    node = ir.node("Sum", values)
    node.outputs[0].name = "sum"
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=values, opset_imports={"": 23})
    ir.save(ir.Model(graph, ir_version=11), path, external_data=f"{path.name}.data")


def test_weights_are_the_same_by_what_they_hold_alone(tmp_path: Path) -> None:
    """Whatever they are called, and in one graph too; shapes and values stay; a file that none reads goes."""
    one, other = np.arange(512, dtype=np.float32), np.ones(512, np.float32)
    save_graph(tmp_path / "first.onnx", a=one, b=other, again=one)
    save_graph(tmp_path / "second.onnx", c=one.reshape(2, 256), d=one[::-1].copy().reshape(2, 256))
    save_graph(tmp_path / "third.onnx", e=other)
    unite_weights(tmp_path)
    assert {file.name for file in tmp_path.glob("*.data")} == {"first.onnx.data", "second.onnx.data"}
    sizes = {file.name: file.stat().st_size for file in tmp_path.glob("*.data")}
    assert sizes == {"first.onnx.data": one.nbytes + other.nbytes, "second.onnx.data": one.nbytes}
    first, second, third = (external(ir.load(tmp_path / f"{name}.onnx")) for name in ("first", "second", "third"))
    np.testing.assert_array_equal(first["a"].numpy(), one)
    np.testing.assert_array_equal(first["again"].numpy(), one)
    np.testing.assert_array_equal(first["b"].numpy(), other)
    np.testing.assert_array_equal(second["c"].numpy(), one.reshape(2, 256))
    np.testing.assert_array_equal(second["d"].numpy(), one[::-1].reshape(2, 256))
    np.testing.assert_array_equal(third["e"].numpy(), other)
