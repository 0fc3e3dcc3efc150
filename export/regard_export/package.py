"""A checkpoint becomes a package: traced, lowered, saved, proven, and only then put in place."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Protocol

import onnx
import onnx_ir as ir
import onnxruntime as ort
from pydantic import ValidationError

from regard.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    ClassificationSpec,
    CrossStateSpec,
    GenerationSpec,
    GraphSpec,
    ImageSpec,
    Manifest,
    SourceSpec,
    StateSpec,
    TapSpec,
    Task,
    TensorSpec,
    TextSpec,
    sha256_of,
)
from regard_export.checkpoint import Checkpoint, load_checkpoint
from regard_export.errors import ExportError
from regard_export.families import exchanged
from regard_export.graphs import ClassifierGraph, EncoderGraph, StepGraph, TracedGraph
from regard_export.languages import ANY_LANGUAGES, Languages
from regard_export.lowering import lower
from regard_export.parity import FP32_TOLERANCE, measure
from regard_export.passes import simplify
from regard_export.quantization import quantize
from regard_export.tracing import trace

PARITY_FILE = "parity.json"
GRAPHS: dict[Task, tuple[type[TracedGraph], ...]] = {
    Task.TRANSLATION: (EncoderGraph, StepGraph),
    Task.CAPTIONING: (EncoderGraph, StepGraph),
    Task.CLASSIFICATION: (ClassifierGraph,),
}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What an export is asked for. `taps` is off only to measure what taps cost."""

    name: str
    version: str = "1"
    target: str = "cpu"
    precision: str = "fp32"
    taps: bool = True
    overwrite: bool = False
    languages: Languages = ANY_LANGUAGES


def export(checkpoint_directory: Path, output: Path, options: Options, progress: Progress = lambda _: None) -> Path:
    """Write the package `output/NAME/VERSION` of a checkpoint and return its directory.

    `progress` is called with each stage's name as it begins. Raises `ExportError`; whatever
    happens, nothing but a whole, proven package appears below `output`.
    """
    final = output / options.name / options.version
    if final.exists() and not options.overwrite:
        raise ExportError(f"{options.name}/{options.version} exists already; choose another --version, or --overwrite")
    progress("loading the checkpoint")
    checkpoint = load_checkpoint(checkpoint_directory, options.languages)
    with staging_directory(output, final) as staging:
        graphs, taps = _write_graphs(checkpoint, staging, options, progress)
        progress("proving it against the eager model")
        parity = measure(checkpoint, {name: staging / graph.file for name, graph in graphs.items()}, taps)
        if options.precision == "fp32":  # int8 is lossy by nature: its figures are reported
            parity.require(FP32_TOLERANCE)
        for name, content in checkpoint.tokenizer_files.items():
            (staging / name).write_text(content, "utf-8")
        tolerance = FP32_TOLERANCE if options.precision == "fp32" else None
        (staging / PARITY_FILE).write_text(json.dumps(parity.report(tolerance), indent=2) + "\n")
        progress("writing the manifest")
        manifest = manifest_of(checkpoint, staging, options, graphs, taps)
        (staging / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n")
    return final


class Origin(Protocol):
    """What a package is made from, and must say of it."""

    @property
    def task(self) -> Task:
        """What the package does."""

    @property
    def source(self) -> SourceSpec:
        """Its architecture and weights."""

    @property
    def text(self) -> TextSpec | None:
        """How text becomes tokens, if it reads or writes any."""

    @property
    def image(self) -> ImageSpec | None:
        """How an image becomes pixel values, if it looks at any."""

    @property
    def generation(self) -> GenerationSpec | None:
        """What a search needs, if it writes."""

    @property
    def classification(self) -> ClassificationSpec | None:
        """The classes, if it names any."""


@contextmanager
def staging_directory(output: Path, final: Path) -> Iterator[Path]:
    """Yield a hidden directory that is renamed to `final` at the end, or removed on an error."""
    output.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.parent.name}-{final.name}.", dir=output))
    staging.chmod(0o755)
    try:
        yield staging
        final.parent.mkdir(exist_ok=True)
        if final.exists():
            shutil.rmtree(final)
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_graphs(
    checkpoint: Checkpoint, staging: Path, options: Options, progress: Progress
) -> tuple[dict[str, GraphSpec], tuple[TapSpec, ...]]:
    graphs: dict[str, GraphSpec] = {}
    taps: list[TapSpec] = []
    for kind in GRAPHS[checkpoint.task]:
        graph = kind(checkpoint, taps=options.taps)
        progress(f"tracing the {graph.name}")
        with exchanged(checkpoint.model, checkpoint.family):
            model = trace(graph)
        simplify(model)
        lower(model, options.target)
        path = staging / f"{graph.name}.onnx"
        ir.save(model, path, external_data=f"{path.name}.data")
        if options.precision == "int8":
            progress(f"quantising the {graph.name}")
            quantize(path)
        graphs[graph.name] = describe(model, path)
        taps += graph.findings.taps
    return graphs, tuple(taps)


def describe(model: ir.Model, path: Path) -> GraphSpec:
    """Return what the manifest says of a graph that was saved at `path`."""
    return GraphSpec(
        file=path.name,
        inputs=tuple(map(_tensor, model.graph.inputs)),
        outputs=tuple(map(_tensor, model.graph.outputs)),
        operators=_operators(path),
        optimized_operators=_optimized_operators(path),
    )


def _tensor(value: ir.Value) -> TensorSpec:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    shape = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)
    return TensorSpec(name=value.name, dtype=value.dtype.name.lower(), shape=shape)


def _operators(path: Path) -> dict[str, int]:
    """Count the nodes of the graph, by operator; those outside ONNX with their domain."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    names = (f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)
    return dict(sorted(Counter(names).items()))


def _optimized_operators(path: Path) -> dict[str, int]:
    """Count again after ONNX Runtime's optimiser, as the service's session will run it."""
    with tempfile.TemporaryDirectory() as scratch:
        optimized = Path(scratch) / "optimized.onnx"
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.optimized_model_filepath = str(optimized)
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        return _operators(optimized)


def manifest_of(
    origin: Origin,
    staging: Path,
    options: Options,
    graphs: dict[str, GraphSpec],
    taps: tuple[TapSpec, ...],
) -> Manifest:
    """Return the manifest of the files in `staging`. Raises `ExportError` if it isn't a valid one."""
    fields = {
        "format_version": FORMAT_VERSION,
        "name": options.name,
        "version": options.version,
        "task": origin.task,
        "target": options.target,
        "precision": options.precision,
        "source": origin.source,
        "graphs": graphs,
        "taps": taps,
        "state": _state(graphs),
        "cross_state": _cross_state(graphs),
        "text": origin.text,
        "generation": origin.generation,
        "image": origin.image,
        "classification": origin.classification,
        "exported_with": {name: version_of(name) for name in ("regard", "torch", "transformers", "onnxruntime")},
        "files": {path.name: sha256_of(path) for path in sorted(staging.iterdir())},
    }
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ExportError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _state(graphs: dict[str, GraphSpec]) -> tuple[StateSpec, ...]:
    step = graphs.get("step")
    return tuple(
        StateSpec(
            kind="recurrent" if tensor.name.startswith("past_state.") else "kv",
            input=tensor.name,
            output=tensor.name.replace("past_", "present_"),
            heads=int(tensor.shape[1]) if len(tensor.shape) == 4 else 1,
            head_size=int(tensor.shape[-1]),
            dtype=tensor.dtype,
            encoder_output=tensor.name.replace("past_", "first_") if tensor.name.startswith("past_state.") else None,
        )
        for tensor in (step.inputs if step else ())
        if tensor.name.startswith("past_")
    )


def _cross_state(graphs: dict[str, GraphSpec]) -> tuple[CrossStateSpec, ...]:
    encoder = graphs.get("encoder")
    return tuple(
        CrossStateSpec(
            encoder_output=tensor.name,
            step_input=tensor.name,
            heads=int(tensor.shape[1]),
            head_size=int(tensor.shape[3]),
            dtype=tensor.dtype,
        )
        for tensor in (encoder.outputs if encoder else ())
        if tensor.name.startswith("cross_")
    )
