"""ONNX Runtime: the only place that knows it.

A `Session` runs a graph on arrays. A `Binding` runs it again and again on the same buffers: a
decoding step reads its inputs where the rows keep them and appends to the cache in place. On a
device the rows' state stays there; what goes to the host is what was asked for.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

# It would report its runs to its makers, from its import on: see docs/Privacy.md of its repository.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

from regard.config import EngineSettings
from regard.engine import moves, providers
from regard.engine.device import DeviceMemory
from regard.engine.libraries import missing_libraries
from regard.engine.memory import Array, Device, DeviceTensor, HostMemory, Memory, Tensor
from regard.engine.splits import available_cores
from regard.errors import ConfigurationError, EngineError, OutOfMemoryError, PackageError, RegardError
from regard.manifest import GraphSpec, Provider

_DTYPES: Mapping[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}
_NO_MEMORY = ("Failed to allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
"""What ONNX Runtime's arenas, CUDA, its libraries and C++ say where memory is short: the errors have no type for it."""


class Binding(Protocol):
    """A graph tied to buffers: `run` reads and writes them, and returns what it was to fetch."""

    def run(self) -> list[Array]:
        """Run once and return the fetched outputs, in the order in which they were named."""


class Session(Protocol):
    """One graph, ready to run. Several threads may run it at once."""

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the graph's inputs."""

    @property
    def provider(self) -> str:
        """The execution provider that the graph really runs on, as ONNX Runtime names it."""

    @property
    def memory(self) -> Memory:
        """Where the graph wants the state of rows to lie."""

    def run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[Array]:
        """Run on `feeds`, of which those that the graph lacks are left out."""

    def run_keeping(
        self, feeds: Mapping[str, Tensor], kept: Sequence[str], fetches: Sequence[str]
    ) -> tuple[list[Tensor], list[Array]]:
        """Run as `run` does; return the outputs `kept` where the session's memory is, and the `fetches`."""

    def bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], fetches: Sequence[str]) -> Binding:
        """Tie the graph to contiguous buffers; an output may be the buffer of an input."""


NeedsTwin = Callable[[Mapping[str, Tensor], Sequence[str]], bool]
NO_TWINS: Mapping[str, Session] = MappingProxyType({})
"""What an engine has of graphs that take interventions, by the plain ones' names, where none were exported."""


class OnnxSession:
    """A `Session` of ONNX Runtime."""

    def __init__(
        self,
        model: Path | bytes,
        settings: EngineSettings,
        provider: Provider = "cpu",
        device: Device | None = None,
        spec: GraphSpec | None = None,
    ) -> None:
        """Load the graph at the path `model`, or given as ONNX bytes.

        Rows stay on `device`; None leaves them in the host's arrays. Raises `PackageError` if ONNX
        Runtime can't load it or leaves attention to another provider, and `ConfigurationError` if it
        takes another provider altogether.
        """
        self._name = model.name if isinstance(model, Path) else "a graph of the engine"
        self._session = self._load(
            model, _options(settings, provider), providers.onnx_providers(provider, settings, spec)
        )
        if self.provider != providers.ONNX_NAMES[provider]:
            raise ConfigurationError(f"provider {provider} can't be had: ONNX Runtime took {self.provider} instead")
        self.operators = _operators(self._session)
        """The types of the nodes that each execution provider runs."""
        providers.check_placement(self._name, provider, self.operators)
        self._inputs = frozenset(value.name for value in self._session.get_inputs())
        self.outputs = frozenset(value.name for value in self._session.get_outputs())
        self._device = device
        self._memory: Memory = HostMemory()
        if device is not None:
            self._memory = DeviceMemory(lambda graph: OnnxSession(graph, settings, provider, device))

    def _load(self, model: Path | bytes, options: ort.SessionOptions, wanted: Sequence[Any]) -> ort.InferenceSession:
        try:
            content = str(model) if isinstance(model, Path) else model
            return ort.InferenceSession(content, options, providers=wanted, enable_fallback=0)
        except Exception as error:
            raise PackageError(f"{self._name} can't be loaded by ONNX Runtime; export it again") from error

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the graph's inputs."""
        return self._inputs

    @property
    def provider(self) -> str:
        """The execution provider that ONNX Runtime really chose first."""
        return str(self._session.get_providers()[0])

    @property
    def memory(self) -> Memory:
        """Where the graph wants the state of rows to lie."""
        return self._memory

    def run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[Array]:
        """Run on `feeds`, of which those that the graph lacks are left out."""
        known = {name: array for name, array in feeds.items() if name in self._inputs}
        try:
            outputs: list[Array] = self._session.run(list(fetches), known)
        except Exception as error:
            raise _fault(error, "the model failed on this input") from error
        return outputs

    def run_keeping(
        self, feeds: Mapping[str, Tensor], kept: Sequence[str], fetches: Sequence[str]
    ) -> tuple[list[Tensor], list[Array]]:
        """Run as `run` does; what is `kept` stays on the device."""
        if self._device is None:
            outputs = self.run(feeds, [*kept, *fetches])
            return list(outputs[: len(kept)]), outputs[len(kept) :]
        binding = self._session.io_binding()
        for name, tensor in feeds.items():
            if name in self._inputs:
                _bind(binding.bind_input, name, tensor)
        for name in kept:
            binding.bind_output(name, *self._device)
        for name in fetches:
            binding.bind_output(name)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise _fault(error, "the model failed on this input") from error
        values = binding.get_outputs()
        return [_tensor(value, self._device) for value in values[: len(kept)]], [
            value.numpy() for value in values[len(kept) :]
        ]

    def bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], fetches: Sequence[str]) -> Binding:
        """Tie the graph to contiguous buffers; an output may be the buffer of an input."""
        known = {name: tensor for name, tensor in inputs.items() if name in self._inputs}
        return _OnnxBinding(self._session, known, outputs, fetches, on_device=self._device is not None)


class Twins:
    """A graph and its twin, which does something else or more, as one `Session`: each run is of the one that it needs.

    `needs_twin` is told what a run feeds and fetches.
    """

    def __init__(self, plain: OnnxSession, twin: OnnxSession, needs_twin: NeedsTwin) -> None:
        self._plain = plain
        self._twin = twin
        self._needs_twin = needs_twin
        self.inputs = plain.inputs | twin.inputs
        self.provider = plain.provider
        self.memory = plain.memory
        self.operators = plain.operators

    @classmethod
    def taps_on_demand(cls, plain: OnnxSession, tapped: OnnxSession) -> Twins:
        """Let whoever fetches a tap run the one that gives it."""
        return cls(plain, tapped, lambda feeds, fetches: not plain.outputs.issuperset(fetches))

    @classmethod
    def alone_apart(cls, plain: OnnxSession, alone: OnnxSession) -> Twins:
        """Let a step whose row is alone, and which so screens tokens, run the one for that."""

        def screens(feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> bool:
            count = feeds.get("num_screened")
            return isinstance(count, np.ndarray) and bool(count.any())

        return cls(plain, alone, screens)

    def run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[Array]:
        """Run the one that these need."""
        return self._of(feeds, fetches).run(feeds, fetches)

    def run_keeping(
        self, feeds: Mapping[str, Tensor], kept: Sequence[str], fetches: Sequence[str]
    ) -> tuple[list[Tensor], list[Array]]:
        """Run the one that these need."""
        return self._of(feeds, fetches).run_keeping(feeds, kept, fetches)

    def bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], fetches: Sequence[str]) -> Binding:
        """Bind the one that these need."""
        return self._of(inputs, fetches).bind(inputs, outputs, fetches)

    def _of(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> OnnxSession:
        return self._twin if self._needs_twin(feeds, fetches) else self._plain


class OnFirstUse:
    """A graph that is loaded when somebody first needs it, once, whichever thread that is."""

    def __init__(self, load: Callable[[], Session]) -> None:
        self._load = load
        self._loading = threading.Lock()
        self._loaded: Session | None = None

    @property
    def loaded(self) -> bool:
        """Whether the graph is ready to run."""
        return self._loaded is not None

    def load(self) -> Session:
        """Return the graph, ready to run. Raises what loading it raises."""
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
        return self._loaded

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the graph's inputs."""
        return self.load().inputs

    @property
    def provider(self) -> str:
        """The execution provider that the graph really runs on."""
        return self.load().provider

    @property
    def memory(self) -> Memory:
        """Where the graph wants the state of rows to lie."""
        return self.load().memory

    def run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[Array]:
        """Run the graph."""
        return self.load().run(feeds, fetches)

    def run_keeping(
        self, feeds: Mapping[str, Tensor], kept: Sequence[str], fetches: Sequence[str]
    ) -> tuple[list[Tensor], list[Array]]:
        """Run the graph."""
        return self.load().run_keeping(feeds, kept, fetches)

    def bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], fetches: Sequence[str]) -> Binding:
        """Bind the graph."""
        return self.load().bind(inputs, outputs, fetches)


class _OnnxBinding:
    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        fetches: Sequence[str],
        *,
        on_device: bool,
    ) -> None:
        self._session = session
        self._buffers = (inputs, outputs)  # ONNX Runtime holds bare pointers: keep what they point to
        self._fetches = fetches
        self._bound = len(outputs)
        self._binding = session.io_binding()
        # An array is copied to a device when it is bound, not when the graph runs: bind it for each run.
        self._copied = {name: array for name, array in inputs.items() if on_device and isinstance(array, np.ndarray)}
        for name, tensor in inputs.items():
            _bind(self._binding.bind_input, name, tensor)
        for name, tensor in outputs.items():
            _bind(self._binding.bind_output, name, tensor)
        for name in fetches:
            self._binding.bind_output(name)

    def run(self) -> list[Array]:
        for name, array in self._copied.items():
            _bind(self._binding.bind_input, name, array)
        for name in self._fetches:  # their shapes change from run to run: ask for new ones
            self._binding.bind_output(name)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise _fault(error, "the model failed on the running batch") from error
        if not self._fetches:
            return []
        return [value.numpy() for value in self._binding.get_outputs()[self._bound :]]


@functools.cache
def why_not(provider: Provider, settings: EngineSettings) -> str | None:
    """Return what keeps `provider` from being had, in words that name it; None if a graph has run on it."""
    if provider == "cpu":
        return None
    if providers.ONNX_NAMES[provider] not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} is built without it"
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it doesn't find
        ort.preload_dlls()
    asked = ("cuda", "tensorrt") if provider == "tensorrt" else ("cuda",)  # TensorRT has CUDA behind it
    files = [Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so" for name in asked]
    if missing := dict.fromkeys(name for file in files for name in missing_libraries(file)):
        return f"{', '.join(missing)} can't be loaded"
    device = providers.device_of(provider, settings)
    try:
        graph = OnnxSession(moves.zeros("float32", 1), settings, provider, device)
        graph.run({"shape": np.array([1, 1, 1, 1], np.int64)}, ["made.0"])
    except RegardError as error:
        return str(error.__cause__ or error).strip().splitlines()[0]
    return None


def _options(settings: EngineSettings, provider: Provider) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads or available_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads of the pool may spin within a run, but between runs the cores belong to others.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider == "cpu":  # whose fused norm is several times slower than a sum and a norm
        options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    return options


def _fault(error: Exception, problem: str) -> RegardError:
    """Return what callers hear of a run that has failed: that memory is short, if so, and otherwise the `problem`."""
    short = isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)
    return OutOfMemoryError() if short else EngineError(problem)


def _operators(session: ort.InferenceSession) -> dict[str, list[str]]:
    """Return the types of the nodes that each execution provider was given."""
    operators: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        operators.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    return operators


def _bind(bind: Any, name: str, tensor: Tensor) -> None:
    """Bind a name to a tensor's memory, wherever that is."""
    if isinstance(tensor, DeviceTensor):
        bind(name, *tensor.device, tensor.dtype, tensor.shape, tensor.address)
    else:
        bind(name, "cpu", 0, tensor.dtype, tensor.shape, _address(tensor))


def _tensor(value: ort.OrtValue, device: Device) -> DeviceTensor:
    return DeviceTensor(device, value.data_ptr(), tuple(value.shape()), _DTYPES[value.data_type()], value)


def _address(array: Array) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("only a contiguous array can be bound")
    return int(array.__array_interface__["data"][0])
