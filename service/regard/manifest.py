"""The contract between export and service: what a model package holds.

A package is a directory `NAME/VERSION/` with `manifest.json`, the graphs, the tokenizer and a
parity report. The manifest names every tensor of every graph, so the service never guesses one
from its shape and never branches on a kind of model.

The graphs' own contract (R requests, k hypotheses each, N = R * k rows, S source positions,
P cache positions, K candidates, A asking rows):

- encoder: `input_ids` [R, S] int64, `source_length` [R] int32, `self_tap_rows`, `self_mean_rows`,
  `self_max_rows` [A] int64 -> `cross_key.i`, `cross_value.i` [R, H, S, D]; taps [A, H, S, S], and
  [A, 1, S, S] of the heads' mean and of their maximum.
- step: `token_ids` [N, 1] int64, `row_length` [N] int32 (positions in the cache, before this
  step), `total_length` [] int32 (the largest `row_length` plus 1), `source_length` [R] int32,
  `past_key.i`, `past_value.i` [N, H, P, D] (bound in place as `present_*`), `cross_key.i`,
  `cross_value.i`, `num_candidates` [1] int64, `scored` [1] bool, `cross_tap_rows`, `self_tap_rows` [A] int64
  -> `candidate_ids` [N, K] int64, `candidate_scores` [N, K], `log_sum_exp` [N, 1],
  `logits` [N, V], `present_key.i`, `present_value.i`, taps [A, H, 1, S] (cross) and
  [A, H, 1, total_length] (self).
- a step without self-attention, as of a recurrent decoder: `past_state.i` [N, D] -> `present_state.i`
  in the place of the cache, and `first_state.i` [R, D] of the encoder.
- prefill, in the place of the encoder of a model that has only a decoder, whose step has no
  cross-attention: `input_ids` [R, S] int64, rows as of the encoder -> `first_key.i`, `first_value.i`
  [R, H, S, D], with which the rows' caches begin; taps as of the encoder. A prompt's last token is left to
  the first step, an image's positions come before the start token: `row_length` counts them.
- classifier: the encoder's inputs -> `logits` [R, C], of every token [R, S, C], or of a token to be the
  first and the last of an answer [R, S, 2]; taps as of the encoder. Where `TextSpec.token_types`, it reads
  `token_type_ids` [R, S] int64 as well: 0 for the tokens of a text, 1 for those of the second of two.
- text_encoder, image_encoder: the encoder's inputs, of a text and of an image -> `embeddings` [R, E], each
  of length 1; taps as of the encoder.

Where the source is an image, `pixel_values` [R, C, height, width] float32 stands in for `input_ids`
and `source_length`; S is then the number of patches and of the special positions before them. Where
it is speech, `input_features` [R, mels, frames] float32 does, and S is the number of positions that
the encoder makes of a whole window.

Padding is on the right. `*_tap_rows` lists the rows whose weights are wanted, `*_mean_rows` and
`*_max_rows` those of which the heads' mean or maximum is enough, each ascending and without repetition: where
a list is empty, nothing of it is computed. `*_norm_rows` lists those that want weights times norms, in taps of
the same shapes, of a package that has them. `scored` says whether anybody is told scores: where it is false,
`log_sum_exp` is 0 and is not computed. A graph that lacks an input does not need it.

Whatever the precision, a graph takes and gives floating point in float32, but for the state that
never leaves the device: `past_*`, `present_*` and `cross_*` are of the dtype that `state` and
`cross_state` name.

Targets that keep their fused kernels only while nobody looks have each graph twice, with one file
of weights: the plain one, which has neither tap inputs nor taps, and the one that its `tap_graph`
names, which does the same and gives the taps as well. `TapSpec.graph` names the plain one.

A step whose `lone_graph` names another has it beside it, with the same weights: where there is but one row, it does the
same in less time. It takes `num_screened` [1] int64 as well: weights of fewer bits look for so many of the likeliest
tokens, K at least, and only their logits are those of the model; the others are about so.

A graph whose `intervened_graph` names another has it beside it, with the same weights: it gives the
taps, too, and takes what changes its attention, for the taps of a kind [L of them, H heads each]:

- `{kind}_head_gate` [L, R, H] float32 multiplies what each head gives: 1, or 0 to knock it out;
- `{kind}_bias` [B, Q, K] float32, any number of biases that are added to the scores before the softmax,
  minus infinity for a weight of 0; Q is 1 across;
- `{kind}_bias_index` [L, R, H] int64, which of them each head gets.

In a step they are of its rows: N stands for R, and its self-attention has gates only. The l-th of them is
of the tap whose output ends in l.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regard import links as links  # what an `AlignmentSpec` means
from regard.errors import ConfigurationError
from regard.errors import PackageError as PackageError  # part of what `load_package` promises

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 2


Provider = Literal["cpu", "cuda", "tensorrt"]
"""An execution provider of ONNX Runtime."""
ActivationScale = Literal["tensor", "token", "mixed"]
"""What is rounded to int8 by one scale: all activations that a matrix multiplies, or those of one token.

Mixed is tokens where the matrix has fewer columns than rows, as the second one of a feed-forward network, and all
elsewhere; and a single row may screen the vocabulary with narrower weights.
"""


class Task(StrEnum):
    """What a package does."""

    TRANSLATION = "translation"
    CAPTIONING = "captioning"
    CLASSIFICATION = "classification"
    COMPLETION = "completion"
    TRANSCRIPTION = "transcription"
    TOKEN_CLASSIFICATION = "token_classification"
    QUESTION_ANSWERING = "question_answering"
    SIMILARITY = "similarity"

    @property
    def generates(self) -> bool:
        """Whether its models write token by token; the others answer in one step."""
        return self not in (
            Task.CLASSIFICATION,
            Task.TOKEN_CLASSIFICATION,
            Task.QUESTION_ANSWERING,
            Task.SIMILARITY,
        )


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Part):
    """One input or output of a graph. A dimension is a number, or a letter where it varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ProfileSpec(_Part):
    """The sizes of a varying dimension that TensorRT builds its engine for: least, usual and most."""

    min: int
    opt: int
    max: int


class GraphSpec(_Part):
    """One ONNX graph: its file, tensors, and how many nodes of each fused operator it holds."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: dict[str, int]
    optimized_operators: dict[str, int]
    """Empty for a graph that was never loaded, because its provider is not where it was exported."""
    providers: tuple[Provider, ...] = ("cpu",)
    """The providers that can run the graph, best first; on any other it is refused or computes something else."""
    tap_graph: str | None = None
    """The name, in `Manifest.graphs`, of the graph that gives the taps; None if this one gives what taps there are."""
    lone_graph: str | None = None
    """The name, in `Manifest.graphs`, of the graph that steps a row which is alone; None if this one does."""
    intervened_graph: str | None = None
    """The name, in `Manifest.graphs`, of the graph that takes interventions; None if none was exported."""
    profiles: dict[str, ProfileSpec] = {}
    """By the letter of `inputs`' varying dimensions, every one of them; empty unless `providers` has tensorrt."""


class TapSpec(_Part):
    """An attention tensor that the package can give: one layer's weights for every head, or what these come to."""

    graph: Literal["encoder", "prefill", "step", "classifier", "text_encoder", "image_encoder"]
    kind: Literal["self", "cross"]
    stack: Literal["encoder", "decoder", "text_encoder", "image_encoder"]
    layer: int
    heads: int
    output: str
    rows_input: str
    reduction: Literal["mean", "max"] | None = None
    """How the graph puts the heads together before the weights leave it, if it does: to one, so that `heads` is 1."""
    weighting: Literal["value_norm"] | None = None
    """What the graph multiplies the weights by, if it does: the norm of each key's transformed value.

    That is the value, with its bias, multiplied by the head's part of the matrix that puts the heads together; so
    that rows sum to anything (Kobayashi et al. 2020, Attention is not only a weight, section 3).
    """

    @property
    def name(self) -> str:
        """A name that is unique within the package, such as `decoder.cross.3`, or `encoder.self.3.mean`."""
        own = f"{'prompt' if self.of_prompt else self.stack}.{self.kind}.{self.layer}"
        return ".".join([own, *filter(None, (self.reduction, self.weighting))])

    @property
    def of_prompt(self) -> bool:
        """Whether its queries are those with which a decoder reads what it is to go on from."""
        return self.graph == "prefill" and self.stack == "decoder"


class StateSpec(_Part):
    """A tensor that a row carries from step to step.

    `kv` [N, heads, P, head_size] is bound in place and only appended to. `recurrent` [N, head_size]
    is replaced by every step.
    """

    kind: Literal["kv", "recurrent"]
    input: str
    output: str
    heads: int
    head_size: int
    dtype: str
    first_output: str | None = None
    """What it begins with: an output of the encoder, [R, head_size], or the prefill, [R, heads, S, head_size].

    None for a cache that begins empty.
    """


class CrossStateSpec(_Part):
    """A tensor [R, H, S, D] that the encoder gives once and every step reads."""

    encoder_output: str
    step_input: str
    heads: int
    head_size: int
    dtype: str


class TextSpec(_Part):
    """How text becomes tokens: the tokenizer's file and the limits of the model's positions.

    `max_source_tokens` is None for a model that writes text but reads none; `empty_token_id` is the token
    that stands for an empty text, None if there must be something in it. Where `tokenizer_file`
    doesn't cut texts itself, the pieces' files name the tokenizers that do, for sources and for
    targets: the pieces that they cut are looked up in its vocabulary, by their spelling.
    """

    tokenizer_file: str
    max_source_tokens: int | None
    pad_token_id: int
    empty_token_id: int | None = None
    source_pieces_file: str | None = None
    target_pieces_file: str | None = None
    token_types: bool = False
    """Whether the graph reads which of two texts each token is of, as `token_type_ids`."""
    padded_to: Literal["left", "right"] | None = None
    """The side on which every text is padded to `max_source_tokens`, for a model that reads padding like any token."""


class ImageSpec(_Part):
    """How an image becomes `pixel_values`, and which source positions its patches are.

    In this order: RGB, `resize`, the middle `crop`, multiplied by `rescale_factor`, less `mean`,
    divided by `std` (one number a channel). The source is the special positions named `leading`,
    then the patches of a grid of `patch_rows` by `patch_columns`, in row-major order.
    """

    height: int
    width: int
    resize: tuple[int, int] | int | None
    """The height and width to resize to; or the length of the shorter edge, the longer in proportion."""
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
    crop: tuple[int, int] | None
    """The height and width of the middle part that is kept; beyond the image's edge there are zeros."""
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    leading: tuple[str, ...]
    patch_rows: int
    patch_columns: int

    @property
    def positions(self) -> int:
        """The number of source positions, S."""
        return len(self.leading) + self.patch_rows * self.patch_columns


class AudioSpec(_Part):
    """How sound becomes `input_features`, as Whisper's extractor makes them.

    In this order: one channel of `sampling_rate`, with silence up to `window_s` behind it; the power
    of its spectrum every `hop_length` samples, of `n_fft` samples in a Hann window around there;
    `mel_bins` bands up to `max_frequency_hz` on Slaney's mel scale, each of area 1; the logarithm to
    base 10, raised to at least 8 below its largest, plus 4, divided by 4.
    """

    sampling_rate: int
    """Samples a second."""
    window_s: int
    n_fft: int
    hop_length: int
    mel_bins: int
    max_frequency_hz: float
    positions: int
    """The number of source positions, S, whatever the length of the sound."""

    @property
    def window_samples(self) -> int:
        """The samples of one window."""
        return self.window_s * self.sampling_rate

    @property
    def frames(self) -> int:
        """The number of spectra in `input_features`."""
        return self.window_samples // self.hop_length

    @property
    def seconds_per_position(self) -> float:
        """How much sound a source position stands for."""
        return self.window_s / self.positions


class TranscriptionSpec(_Part):
    """How a model of speech is told what to write: the tokens that its text begins with.

    They are the language's, the task's, and `no_timestamps_token_id` unless times are wanted. A model
    that knows no languages has those of `prompt_token_ids` in the place of the first two.
    """

    languages: dict[str, int]
    """The token of each language, by its code, such as "en"; empty for a model of one language."""
    tasks: dict[Literal["transcribe", "translate"], int]
    """The token of each task: writing what is said, or its English translation. Empty if there is one only."""
    language: str | None
    """The language that the checkpoint asks for; None if it is detected, as the likeliest to come first."""
    task: Literal["transcribe", "translate"]
    prompt_token_ids: tuple[int, ...]
    no_timestamps_token_id: int | None
    """The token right before those of the times, from 0 on; None for a model that can't tell times."""
    seconds_per_timestamp: float
    max_initial_timestamp_index: int | None
    """The last of the times that a text may begin with; None if it may be any."""
    alignment_heads: tuple[tuple[int, int], ...]
    """The layers and heads of cross-attention that follow the speech, by the checkpoint; often empty."""


class GenerationDefaults(_Part):
    """What the checkpoint asks of a search that is asked for nothing else; the names are Transformers'.

    `min_length` and `max_length` count the start token, or the prompt in its place; `min_new_tokens` and
    `max_new_tokens`, where there are such, take their places. `bad_words_ids` holds the words of several tokens only.
    """

    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    max_length: int | None = None
    min_new_tokens: int | None = None
    max_new_tokens: int | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()


class GenerationSpec(_Part):
    """What a search needs to equal the checkpoint's `generate()`.

    The decoder reads `start_token_id` before anything else, unless a completion's prompt takes its place.
    `max_target_tokens` counts what may follow it, the other tokens of such a prompt included.
    """

    start_token_id: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    suppressed_token_ids: tuple[int, ...]
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None
    max_target_tokens: int
    vocabulary_size: int
    defaults: GenerationDefaults = GenerationDefaults()


class ClassificationSpec(_Part):
    """The classes, and when an answer counts as outside them."""

    labels: tuple[str, ...]
    out_of_scope_label: str | None
    out_of_scope_threshold: float | None
    probabilities: Literal["softmax", "sigmoid"] = "softmax"
    """What makes probabilities of the logits: of the classes against each other, or of each class by itself."""


class SimilaritySpec(_Part):
    """How alike an image and a text are: `logit_scale` times the product of their embeddings, plus `logit_bias`."""

    embedding_size: int
    logit_scale: float
    logit_bias: float
    probabilities: Literal["softmax", "sigmoid"]
    """What makes probabilities of the logits: of an image's texts against each other, or of each pair by itself."""


class AlignmentHead(_Part):
    """One head of the decoder's cross-attention, and the row that tells what a target token is the translation of.

    `output` is the row of the step that makes the token, `input` that of the step that it is fed
    to: one further on (Chen et al. 2020, Accurate word alignment induction from NMT, section 3.1).
    """

    layer: int
    head: int
    position: Literal["output", "input"]


class AlignmentSpec(_Part):
    """How attention tells which words translate which, and how well it did where that was measured.

    The weights are the mean over `heads`, of tokens put together to words: averaged over a target
    word's tokens, summed over a source word's; special tokens count for neither side. The method's
    names and the rest are those of `regard.links`.
    """

    heads: tuple[AlignmentHead, ...] = Field(min_length=1)
    method: links.Method
    tension: float = Field(ge=0, allow_inf_nan=False)
    """How strongly words at like places are preferred; 0 is not at all."""
    pairs: int
    """The sentence pairs that heads and method were chosen on."""
    silver_aer: float
    """The alignment error rate, from 0 to 1, against the links of a statistical aligner, which they were chosen by."""
    aer: float | None = None
    """The same against links made by people, if there were any; nothing was chosen by it."""

    def align(self, weights: npt.ArrayLike) -> tuple[links.Mask, links.Floats]:
        """Return which words are linked [T, S], and each link's weight from 0 to 1, of the mean over `heads` [T, S]."""
        array = np.asarray(weights, dtype=np.float64)
        targets, sources = array.shape
        balanced = links.balance(array, links.diagonal(targets, sources, self.tension))
        return links.link(balanced, self.method), links.confidence(balanced)


class SourceSpec(_Part):
    """The checkpoint that the package was made from."""

    architecture: str
    model_type: str
    weights_sha256: str


class QualitySpec(_Part):
    """How good a package's answers are by one measure, on data that its model was not trained on; higher is better."""

    measure: str
    unit: str
    value: float
    checkpoint: float
    """What the checkpoint itself comes to in eager PyTorch."""


class Manifest(_Part):
    """Everything that the service must know of a package."""

    format_version: Literal[2]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    version: str = Field(pattern=r"^[1-9][0-9]{0,8}$")
    task: Task
    target: Literal["cpu", "portable", "cuda", "tensorrt"]
    """What the graphs were made for: fused operators for `cpu` and `cuda`, ONNX' own for the others."""
    precision: Literal["fp32", "fp16", "int8"]
    activation_scale: ActivationScale | None = None
    """How int8 rounds activations; None in other precisions."""
    source: SourceSpec
    graphs: dict[str, GraphSpec]
    taps: tuple[TapSpec, ...]
    reduced_taps: tuple[TapSpec, ...] = ()
    """The same with all heads put together in the graph, where that saves moving them: over a whole source."""
    norm_taps: tuple[TapSpec, ...] = ()
    """The same as `taps`, each multiplied by the norms of what it weighs; none in a package without."""
    state: tuple[StateSpec, ...]
    cross_state: tuple[CrossStateSpec, ...]
    text: TextSpec | None
    """None for a model that neither reads nor writes text."""
    image: ImageSpec | None
    """None for a model that doesn't look at images."""
    audio: AudioSpec | None = None
    """None for a model that doesn't listen."""
    generation: GenerationSpec | None
    classification: ClassificationSpec | None
    transcription: TranscriptionSpec | None = None
    similarity: SimilaritySpec | None = None
    alignment: AlignmentSpec | None = None
    """None for a package that was not calibrated, which gives no word alignments."""
    quality: tuple[QualitySpec, ...] = ()
    """Empty for a package that was not evaluated."""
    exported_with: dict[str, str]
    files: dict[str, str]
    """SHA-256, in hexadecimal, of every file of the package but the manifest."""

    @property
    def every_tap(self) -> tuple[TapSpec, ...]:
        """All that the graphs can give of attention."""
        return (*self.taps, *self.reduced_taps, *self.norm_taps)

    def taps_of(self, graph: str) -> list[TapSpec]:
        """Return all that a graph can give of attention."""
        return [tap for tap in self.every_tap if tap.graph == graph]

    @property
    def takes_interventions(self) -> bool:
        """Whether any graph has a twin that takes interventions."""
        return any(graph.intervened_graph is not None for graph in self.graphs.values())

    @property
    def reader(self) -> Literal["encoder", "prefill"]:
        """The graph that reads a generation's source: the prefill, of a model that has only a decoder."""
        return "prefill" if "prefill" in self.graphs else "encoder"

    @property
    def reads_text(self) -> bool:
        """Whether its inputs are texts; text may be what it writes alone."""
        return self.text is not None and self.text.max_source_tokens is not None

    @property
    def fixed_positions(self) -> int | None:
        """The number of source positions of every input; None where it varies, as that of texts does."""
        fixed = self.image or self.audio
        return None if fixed is None else fixed.positions


@dataclass(frozen=True)
class Package:
    """A package on disk whose files are those that its manifest lists."""

    directory: Path
    manifest: Manifest
    sha256: str

    def path(self, file: str) -> Path:
        """Return the path of a file that the manifest names."""
        return self.directory / file

    def within(self, positions: int) -> Package:
        """Return it as that of a model that reads `positions` tokens at most, and writes no more, prompts included.

        One that reads padding goes on to read every text at its one length.
        """
        text, generation = self.manifest.text, self.manifest.generation
        if text is not None and text.max_source_tokens is not None and text.padded_to is None:
            text = text.model_copy(update={"max_source_tokens": min(text.max_source_tokens, positions)})
        if generation is not None:
            most = min(generation.max_target_tokens, positions)
            generation = generation.model_copy(update={"max_target_tokens": most})
        return replace(self, manifest=self.manifest.model_copy(update={"text": text, "generation": generation}))

    def altered(self, graph: str) -> str | None:
        """Return a file that a graph is loaded from and that is gone or no longer what the manifest lists, if any.

        They are the graph's own, and those of its weights, which it names.
        """
        own, listed = self.manifest.graphs[graph].file, self.manifest.files
        file = own
        try:
            content = self.path(own).read_bytes() if own in listed else b""
            for file in (name for name in listed if name == own or name.encode() in content):
                if sha256_of(self.path(file)) != listed[file]:
                    return file
        except OSError:
            return file
        return None


def load_package(directory: Path) -> Package:
    """Read and verify the package in `directory`.

    Raises `PackageError`, naming the package and the file at fault, if the manifest is missing,
    malformed or of another format, or if a file is missing or differs from its checksum.
    """
    label = f"{directory.parent.name}/{directory.name}"
    try:
        text = (directory / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise PackageError(f"package {label}: {MANIFEST_FILE} can't be read") from error
    manifest = _parse(text, label)
    if (manifest.name, manifest.version) != (directory.parent.name, directory.name):
        raise PackageError(
            f"package {label}: its manifest says {manifest.name}/{manifest.version}; a package's directory bears "
            "its name and version"
        )
    for file, expected in manifest.files.items():
        try:
            actual = sha256_of(directory / file)
        except OSError as error:
            raise PackageError(f"package {label}: {file} is missing or can't be read; export it again") from error
        if actual != expected:
            raise PackageError(f"package {label}: {file} differs from its SHA-256 in the manifest; export it again")
    return Package(directory=directory, manifest=manifest, sha256=hashlib.sha256(text).hexdigest())


def _parse(text: bytes, label: str) -> Manifest:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise PackageError(f"package {label}: {MANIFEST_FILE} is not JSON; export it again") from error
    found = fields.get("format_version") if isinstance(fields, dict) else None
    if found != FORMAT_VERSION:
        raise PackageError(
            f"package {label}: format {found!r} is not {FORMAT_VERSION}, the one this version reads; export it again"
        )
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PackageError(f"package {label}: {MANIFEST_FILE}, field {where}: {first['msg']}") from error


def find_packages(models: Path) -> Iterator[Path]:
    """Yield every `NAME/VERSION` directory below `models` that holds a manifest, in order.

    What is hidden, or a file system's `lost+found`, is passed over. Raises `ConfigurationError`, naming it, if any
    other directory can't be read: it may hold a package.
    """
    for name in _entries(models):
        for version in _entries(name):
            if version / MANIFEST_FILE in _entries(version):
                yield version


def _entries(directory: Path) -> list[Path]:
    """Return what is in a directory, in order; nothing of what is no directory."""
    try:
        found = sorted(directory.iterdir())
    except (NotADirectoryError, FileNotFoundError):
        return []
    except OSError as error:
        raise ConfigurationError(
            f"{directory}, where models are looked for, can't be read: {error.strerror}; "
            "let the server's user read it, or move it elsewhere"
        ) from error
    return [path for path in found if not path.name.startswith(".") and path.name != "lost+found"]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
