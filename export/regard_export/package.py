"""A checkpoint becomes a package: traced, lowered, saved, proven, and only then put in place."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnxruntime as ort
import torch
import transformers
from pydantic import ValidationError

from regard import __version__
from regard.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    ActivationScale,
    AudioSpec,
    ClassificationSpec,
    CrossStateSpec,
    GenerationSpec,
    GraphSpec,
    ImageSpec,
    Manifest,
    SimilaritySpec,
    SourceSpec,
    StateSpec,
    Task,
    TextSpec,
    TranscriptionSpec,
    sha256_of,
)
from regard_export.checkpoint import Checkpoint, load_checkpoint
from regard_export.errors import ExportError
from regard_export.graph_files import GraphFiles, Progress, Writer
from regard_export.languages import ANY_LANGUAGES, Languages
from regard_export.lowering import target_of
from regard_export.places import place_of
from regard_export.precision import TOLERANCES, in_precision
from regard_export.proof import measure
from regard_export.rounding import eager_differences

PARITY_FILE = "parity.json"
GIB = 1 << 30
INTERVENABLE = (Task.TRANSLATION, Task.CAPTIONING, Task.CLASSIFICATION, Task.TOKEN_CLASSIFICATION)
"""The tasks whose requests can change attention, or have it weighted."""


@dataclass(frozen=True)
class Options:
    """What an export is asked for. `taps` is off only to measure what taps cost.

    `interventions` asks for graphs beside the plain ones by which requests can change attention, `value_norms`
    for taps of the weights times the norms of what they weigh. `activation_scale` says how int8 rounds
    activations; None is what suits the target.
    """

    name: str
    version: str = "1"
    target: str = "cpu"
    precision: str = "fp32"
    taps: bool = True
    interventions: bool = False
    value_norms: bool = False
    activation_scale: ActivationScale | None = None
    overwrite: bool = False
    languages: Languages = ANY_LANGUAGES

    @property
    def activations_scaled_by(self) -> ActivationScale | None:
        """How activations are rounded; None in other precisions than int8."""
        if self.precision != "int8":
            return None
        return self.activation_scale or ("mixed" if self.target == "cpu" else "tensor")


def export(checkpoint_directory: Path, output: Path, options: Options, progress: Progress = lambda _: None) -> Path:
    """Write the package `output/NAME/VERSION` of a checkpoint and return its directory.

    `progress` is called with each stage's name as it begins. Raises `ExportError`; whatever
    happens, nothing but a whole, proven package appears below `output`.
    """
    final = place_of(output, options.name, options.version, overwrite=options.overwrite)
    target = target_of(options.target, options.precision)
    _require_scales(options)
    progress("loading the checkpoint")
    checkpoint = load_checkpoint(checkpoint_directory, options.languages)
    _require_capable(checkpoint, options)
    with staging_directory(output, final) as staging:
        _require_room(output, checkpoint.model)
        writer = Writer(
            staging,
            target,
            options.precision,
            options.interventions,
            options.value_norms,
            options.activations_scaled_by,
        )
        files = writer.write(in_precision(checkpoint, options.precision), progress, taps=options.taps)
        progress("proving it against the eager model")
        rounding = eager_differences(checkpoint, files.taps, options.precision)
        parity = measure(checkpoint, staging, files, TOLERANCES[options.precision], rounding)
        parity.require()
        progress("writing the manifest")
        seal(staging, checkpoint, options, files, parity.report(), checkpoint.tokenizer_files)
    return final


def _require_scales(options: Options) -> None:
    """Raise `ExportError` if a scale is asked of another precision, or one for tokens of another target than CPUs."""
    scale = options.activation_scale
    if scale is None or (options.precision == "int8" and (options.target == "cpu" or scale == "tensor")):
        return
    raise ExportError(
        f"--activation-scale {scale} is for {'' if scale == 'tensor' else '--target cpu '}--precision int8, not for "
        f"{options.target} in {options.precision}; leave --activation-scale out"
    )


def _require_capable(checkpoint: Checkpoint, options: Options) -> None:
    """Raise `ExportError` for what is asked of a model of another kind."""
    asked = {"--interventions": options.interventions, "--value-norms": options.value_norms}
    for flag in (flag for flag, given in asked.items() if given):
        if checkpoint.has_only_decoder or checkpoint.task not in INTERVENABLE:
            raise ExportError(
                f"{checkpoint.source.architecture} takes no {flag.removeprefix('--').replace('-', ' ')}: they are for "
                f"translators, for captioners with an encoder and for classifiers; leave {flag} out"
            )


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
    def audio(self) -> AudioSpec | None:
        """How sound becomes features, if it listens."""

    @property
    def transcription(self) -> TranscriptionSpec | None:
        """How it is told what to write of what it hears."""

    @property
    def generation(self) -> GenerationSpec | None:
        """What a search needs, if it writes."""

    @property
    def classification(self) -> ClassificationSpec | None:
        """The classes, if it names any."""

    @property
    def similarity(self) -> SimilaritySpec | None:
        """How it compares images with texts, if it does."""


def _require_room(output: Path, model: torch.nn.Module) -> None:
    """Raise `ExportError` if the weights alone wouldn't fit into `output`: better now than after minutes."""
    needed = sum(parameter.nbytes for parameter in model.parameters())
    free = shutil.disk_usage(output).free
    if free < needed:
        raise ExportError(
            f"there is no room in {output}: {free / GIB:.1f} GiB are free and the weights alone take "
            f"{needed / GIB:.1f}; free some, or choose another --output"
        )


def seal(
    staging: Path,
    origin: Origin,
    options: Options,
    files: GraphFiles,
    report: Mapping[str, object],
    tokenizer_files: Mapping[str, str],
) -> None:
    """Write what a package holds beside its graphs: the tokenizer, the proof's report and, last, the manifest."""
    for name, content in tokenizer_files.items():
        (staging / name).write_text(content, "utf-8")
    (staging / PARITY_FILE).write_text(json.dumps(report, indent=2) + "\n")
    manifest = _manifest_of(origin, staging, options, files)
    (staging / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n")


@contextmanager
def staging_directory(output: Path, final: Path) -> Iterator[Path]:
    """Yield a hidden directory that is renamed to `final` at the end, or removed on an error.

    So is `output` then, with those above it, if it wasn't there. Raises `ExportError` if anything can't be written,
    such as for want of room.
    """
    try:
        with (
            _made(output),
            tempfile.TemporaryDirectory(
                prefix=f".{final.parent.name}-{final.name}.", dir=output, ignore_cleanup_errors=True
            ) as scratch,
        ):
            staging = Path(scratch) / "package"
            staging.mkdir()
            yield staging
            _put(staging, final, Path(scratch) / "replaced")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ExportError(f"there is no room left in {output}; free some, or choose another --output") from error
        raise ExportError(f"{output} can't be written: {error.strerror or error}") from error


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Make a directory and those above it; on an error those that were not there go again, up to one that is used."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


def _put(staging: Path, final: Path, replaced: Path) -> None:
    """Rename `staging` to `final`; what was there goes to `replaced`, and comes back if anything fails."""
    try:
        final.parent.mkdir(exist_ok=True)
        if final.exists():
            final.rename(replaced)
        staging.rename(final)
    except BaseException:
        if replaced.exists() and not final.exists():
            replaced.rename(final)
        with contextlib.suppress(OSError):  # a directory that holds other versions stays
            final.parent.rmdir()
        raise


def _manifest_of(origin: Origin, staging: Path, options: Options, files: GraphFiles) -> Manifest:
    """Return the manifest of the files in `staging`. Raises `ExportError` if it isn't a valid one."""
    fields = {
        "format_version": FORMAT_VERSION,
        "name": options.name,
        "version": options.version,
        "task": origin.task,
        "target": options.target,
        "precision": options.precision,
        "activation_scale": options.activations_scaled_by,
        "source": origin.source,
        "graphs": files.graphs,
        "taps": [tap for tap in files.taps if tap.reduction is None and tap.weighting is None],
        "reduced_taps": [tap for tap in files.taps if tap.reduction is not None],
        "norm_taps": [tap for tap in files.taps if tap.weighting is not None],
        "state": _state(files.graphs),
        "cross_state": _cross_state(files.graphs),
        "text": origin.text,
        "generation": origin.generation,
        "image": origin.image,
        "audio": origin.audio,
        "classification": origin.classification,
        "transcription": origin.transcription,
        "similarity": origin.similarity,
        "exported_with": _versions(),
        "files": {path.name: sha256_of(path) for path in sorted(staging.iterdir())},
    }
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ExportError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _state(graphs: dict[str, GraphSpec]) -> tuple[StateSpec, ...]:
    step = graphs.get("step")
    given = {tensor.name for name in ("encoder", "prefill") if name in graphs for tensor in graphs[name].outputs}
    return tuple(
        StateSpec(
            kind="recurrent" if tensor.name.startswith("past_state.") else "kv",
            input=tensor.name,
            output=tensor.name.replace("past_", "present_"),
            heads=int(tensor.shape[1]) if len(tensor.shape) == 4 else 1,
            head_size=int(tensor.shape[-1]),
            dtype=tensor.dtype,
            first_output=next(iter(given & {tensor.name.replace("past_", "first_")}), None),
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


def _versions() -> dict[str, str]:
    """Return what a package is exported with."""
    return {
        "regard": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "onnxruntime": ort.__version__,
    }
