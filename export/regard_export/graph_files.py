"""Graphs on disk: traced, lowered, saved with their weights beside them, and described."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from regard.manifest import ActivationScale, GraphSpec, Provider, TapSpec, Task, TensorSpec
from regard_export.checkpoint import Checkpoint
from regard_export.families import exchanged
from regard_export.graphs import (
    ClassifierGraph,
    EncoderGraph,
    ImageEncoderGraph,
    PrefillGraph,
    StepGraph,
    TextEncoderGraph,
    TracedGraph,
)
from regard_export.lowering import Target, lower
from regard_export.lowering.tensorrt import profiles
from regard_export.passes import simplify
from regard_export.passes.interventions import admit_interventions
from regard_export.passes.taps import remove_taps, remove_unread_rows
from regard_export.passes.value_norms import add_value_norms, write_norms
from regard_export.precision import finite
from regard_export.quantization import quantize
from regard_export.screening import may_screen
from regard_export.shared_weights import unite_weights
from regard_export.stepping import session_options
from regard_export.tracing import trace

GRAPHS: dict[Task, tuple[type[TracedGraph], ...]] = {
    Task.TRANSLATION: (EncoderGraph, StepGraph),
    Task.CAPTIONING: (EncoderGraph, StepGraph),
    Task.TRANSCRIPTION: (EncoderGraph, StepGraph),
    Task.COMPLETION: (PrefillGraph, StepGraph),
    Task.CLASSIFICATION: (ClassifierGraph,),
    Task.TOKEN_CLASSIFICATION: (ClassifierGraph,),
    Task.QUESTION_ANSWERING: (ClassifierGraph,),
    Task.SIMILARITY: (TextEncoderGraph, ImageEncoderGraph),
}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class GraphFiles:
    """The graphs of a checkpoint in a directory, by name, and all taps that they give."""

    graphs: dict[str, GraphSpec]
    taps: tuple[TapSpec, ...]


@dataclass(frozen=True)
class Writer:
    """Writes graphs into `directory` for one target and precision; with `interventions`, their twins that take them.

    With `value_norms`, every tap has one beside it of its weights times norms. `activation_scale` says how activations
    are rounded in int8, and is None in other precisions.
    """

    directory: Path
    target: Target
    precision: str
    interventions: bool = False
    value_norms: bool = False
    activation_scale: ActivationScale | None = None

    def write(self, checkpoint: Checkpoint, progress: Progress, *, taps: bool) -> GraphFiles:
        """Write every graph that the checkpoint's task needs."""
        files = GraphFiles({}, ())
        for kind in (PrefillGraph, StepGraph) if checkpoint.has_only_decoder else GRAPHS[checkpoint.task]:
            graph = kind(checkpoint, taps=taps)
            progress(f"tracing the {graph.name}")
            with exchanged(checkpoint.model, checkpoint.family), finite():
                model = trace(graph)
            simplify(model)
            remove_unread_rows(model)
            own = graph.findings.taps
            layers = [tap for tap in own if tap.reduction is None]
            if self.value_norms:
                own += add_value_norms(model, layers)
            intervened = admit_interventions(model, layers) if self.interventions else None
            write_norms(model)
            lower(model, self.target)
            progress(f"writing the {graph.name}")
            written = self._write(model, graph, checkpoint)
            if intervened is not None:
                written = self._with_interventions(written, graph.name, intervened, checkpoint)
            files = GraphFiles(files.graphs | written, (*files.taps, *own))
        unite_weights(self.directory)
        return files

    def _write(self, model: ir.Model, graph: TracedGraph, checkpoint: Checkpoint) -> dict[str, GraphSpec]:
        """Save one graph, quantised if asked for, or two that share a file of weights."""
        weights, tapped = f"{graph.name}.onnx.data", f"{graph.name}_with_taps"
        providers = self.target.providers_of(graph.name, self.precision)
        if not (self.target.separate_taps and graph.findings.taps):
            path = self._path(graph.name)
            ir.save(model, path, external_data=weights)
            _forget_weights(model)
            if self.activation_scale is None:
                return {graph.name: describe(model, path, providers)}
            alone = f"{graph.name}_alone"
            twin = self._path(alone) if may_screen(checkpoint.generation) else None
            has_twin = quantize(path, self.activation_scale, twin)
            spec = describe(ir.load(path), path, providers)
            if twin is None or not has_twin:
                return {graph.name: spec}
            lone = describe(ir.load(twin), twin, providers)
            return {graph.name: spec.model_copy(update={"lone_graph": alone}), alone: lone}
        ir.save(model, self._path(tapped), external_data=weights)
        _forget_weights(model)
        plain = ir.load(self._path(tapped))
        remove_taps(plain, graph.findings.taps)
        ir.save(plain, self._path(graph.name))
        described = describe(plain, self._path(graph.name), providers)
        limit = checkpoint.text.max_source_tokens if checkpoint.text is not None else None
        sizes = profiles(described.inputs, limit) if "tensorrt" in providers else {}
        return {
            graph.name: described.model_copy(update={"tap_graph": tapped, "profiles": sizes}),
            tapped: describe(model, self._path(tapped), self.target.providers),
        }

    def _with_interventions(
        self, written: dict[str, GraphSpec], graph: str, model: ir.Model, checkpoint: Checkpoint
    ) -> dict[str, GraphSpec]:
        """Save the twin that takes interventions."""
        name = f"{graph}_with_interventions"
        path = self._path(name)
        write_norms(model)
        lower(model, self.target)
        ir.save(model, path, external_data=f"{name}.onnx.data")
        if self.activation_scale is not None:
            quantize(path, self.activation_scale)
            model = ir.load(path)
        providers = self.target.providers if self.precision != "int8" else written[graph].providers
        spec = written[graph].model_copy(update={"intervened_graph": name})
        return written | {graph: spec, name: describe(model, path, providers)}

    def _path(self, graph: str) -> Path:
        return self.directory / f"{graph}.onnx"


def _forget_weights(model: ir.Model) -> None:
    """Let go of the weights of a graph that is on disk: transposed and packed, they are copies of the checkpoint's."""
    for value in model.graph.initializers.values():
        value.const_value = None


def describe(model: ir.Model, path: Path, providers: tuple[Provider, ...]) -> GraphSpec:
    """Return what the manifest says of a graph that was saved at `path`."""
    return GraphSpec(
        file=path.name,
        inputs=tuple(map(_tensor, model.graph.inputs)),
        outputs=tuple(map(_tensor, model.graph.outputs)),
        operators=_operators(path),
        optimized_operators=_optimized_operators(path) if "cpu" in providers else {},
        providers=providers,
    )


def _tensor(value: ir.Value) -> TensorSpec:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    shape = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)
    return TensorSpec(name=value.name, dtype=value.dtype.name.lower(), shape=shape)


def _operators(path: Path) -> dict[str, int]:
    """Count the nodes that run where nobody asks for weights, by operator; those outside ONNX with their domain."""
    nodes = _plain_nodes(ir.load(path).graph)
    names = (f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)
    return dict(sorted(Counter(names).items()))


def _plain_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield what runs where no condition holds: nobody asks for weights."""
    for node in graph:
        yield node
        if node.op_type == "If":
            yield from _plain_nodes(node.attributes["else_branch"].as_graph())


def _optimized_operators(path: Path) -> dict[str, int]:
    """Count again after ONNX Runtime's optimiser, as the service's session will run it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # it writes the weights, too: where there is room
        optimized = Path(scratch) / "optimized.onnx"
        settings = session_options()
        settings.add_session_config_entry("session.disable_prepacking", "1")
        settings.optimized_model_filepath = str(optimized)
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        return _operators(optimized)
