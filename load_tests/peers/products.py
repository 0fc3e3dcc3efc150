"""The matrix products of a graph alone: what ONNX Runtime's optimiser left of them, with their own weights.

No graph that must compute these products can be faster than they are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

Array = npt.NDArray[Any]

PRODUCTS = frozenset(
    {
        "DynamicQuantizeMatMul",
        "FusedGemm",
        "FusedMatMul",
        "Gemm",
        "MatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
    }
)
"""The operators that multiply by a matrix of weights."""


@dataclass(frozen=True)
class Products:
    """A graph of products that don't depend on each other, and inputs for all of them."""

    model: onnx.ModelProto
    feeds: dict[str, Array]

    @property
    def outputs(self) -> list[str]:
        """The names of all results."""
        return [value.name for value in self.model.graph.output]


class Run:
    """A graph, tied to buffers, that runs again and again; `outputs` are written in place, others are left in it."""

    def __init__(
        self,
        model: Path | bytes,
        options: ort.SessionOptions,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        fetches: Sequence[str] = (),
    ) -> None:
        self.session = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
        self._buffers = (inputs, outputs)  # ONNX Runtime holds bare pointers: keep what they point to
        self._binding = self.session.io_binding()
        known = {value.name for value in self.session.get_inputs()}
        for name, array in inputs.items():
            if name in known:
                self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name in fetches:
            self._binding.bind_output(name)
        self._fetched = len(outputs)

    def __call__(self) -> None:
        """Run once."""
        self.session.run_with_iobinding(self._binding)

    def fetched(self) -> list[Array]:
        """Return what the last run left of the fetches."""
        return [value.numpy() for value in self._binding.get_outputs()[self._fetched :]]


def session_options(threads: int) -> ort.SessionOptions:
    """Return what the engine's sessions have, too: threads, and none that spin between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    return options


def optimised(graph: Path) -> onnx.ModelProto:
    """Return a graph as ONNX Runtime runs it, with its weights in it."""
    with tempfile.TemporaryDirectory() as scratch:
        options = session_options(1)
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        for data in graph.parent.glob("*.data"):
            shutil.copy(data, scratch)
        return onnx.load(options.optimized_model_filepath)


def products_of(
    model: onnx.ModelProto, threads: int, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Products:
    """Return the products of an optimised `model`, fed with what they are given when it runs on these buffers.

    Products within a branch, such as those of taps that nobody asks for, are left out.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in PRODUCTS]
    given = list(dict.fromkeys(name for node in nodes for name in node.input if name and name not in weights))
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    there = {value.name for value in (*probe.graph.output, *probe.graph.input)}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in given if name not in there)
    fetches = [name for name in given if name not in inputs]
    run = Run(probe.SerializeToString(), session_options(threads), inputs, outputs, fetches)
    run()
    values = {name: array for name, array in inputs.items() if name in given}
    values |= dict(zip(fetches, run.fetched(), strict=True))
    feeds = {name: np.ascontiguousarray(array) for name, array in values.items()}
    graph = helper.make_graph(
        nodes,
        "products",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name=output) for node in nodes for output in node.output if output],
        [weights[name] for name in dict.fromkeys(name for node in nodes for name in node.input) if name in weights],
    )
    apart = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return Products(apart, feeds)
