"""The proof that goes into every package: the graphs against the eager model.

Reference: the same weights in Transformers with `attn_implementation="eager"`. Inputs are random
tokens, right-padded to ragged lengths (one row of a single token among them), or random pixels. The
rows of a decoder are decoded side by side at different positions, with one and with four hypotheses
a request, through caches that are bound in place and filled with garbage beyond every row's length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from regard.manifest import GenerationSpec, GraphSpec, Provider, TapSpec, Task
from regard_export.checkpoint import Checkpoint
from regard_export.errors import ParityError
from regard_export.families import logits_of
from regard_export.generation import GREEDY
from regard_export.graph_files import GraphFiles
from regard_export.inputs import Inputs
from regard_export.prompt_parity import PromptProof
from regard_export.stepping import SAMPLE_TOKENS, Array, Feeds, Stepper, greedy, open_session, run

STAGES = ("encoder", "prefill", "step", "classifier", "text_encoder", "image_encoder")
TIE_MARGIN = 1e-4


@dataclass
class Parity:
    """The largest differences seen, by what was compared, and the agreement of greedy tokens.

    `tolerance` is the largest difference that a package may have; None if differences are only
    reported. Tokens that the eager model sees no further apart are a tie.
    """

    tolerance: float | None
    unproven: tuple[Provider, ...]
    """The providers that the graphs are meant for and that none was run on."""
    eager_differences: Mapping[str, float] = field(default_factory=dict)
    """How far the eager model is from itself in fp32, where it runs in the graphs' precision: as far as they may be."""
    differences: dict[str, float] = field(default_factory=dict)
    tokens_compared: int = 0
    tokens_different: int = 0

    def note(self, name: str, ours: Array, reference: torch.Tensor) -> None:
        """Remember the largest absolute difference between two tensors of one shape."""
        expected = reference.detach().numpy()
        if ours.shape != expected.shape:
            raise ParityError(f"{name}: the graph gives {ours.shape}, the eager model {expected.shape}")
        worst = float(np.abs(ours - expected).max()) if ours.size else 0.0
        if np.isnan(ours).any():
            worst = float("inf")
        self.differences[name] = max(self.differences.get(name, 0.0), worst)

    def tied(self, eager: Array, ours: int, theirs: int) -> bool:
        """Tell whether either of two tokens may come first in the eager model's logits [V]."""
        margin = self._allowed("logits") if self.tolerance is not None else TIE_MARGIN
        return bool(abs(float(eager[ours]) - float(eager[theirs])) <= margin)

    def require(self) -> None:
        """Raise `ParityError` if anything differs by more than the tolerance, or a token does."""
        if self.tolerance is None:
            return
        over = {name: worst for name, worst in self.differences.items() if not worst <= self._allowed(name)}
        if over:
            name, worst = max(over.items(), key=lambda item: item[1])
            limit = self._allowed(name)
            raise ParityError(f"{name} differs from the eager model by {worst:.1e}, over {limit:.0e}; no package")
        if self.tokens_different:
            raise ParityError(
                f"{self.tokens_different} of {self.tokens_compared} greedy tokens differ from generate(); no package"
            )

    def _allowed(self, name: str) -> float:
        return max(self.tolerance or 0.0, self.eager_differences.get(name, 0.0))

    def report(self) -> dict[str, object]:
        """Return what `parity.json` holds."""
        return {
            "reference": "Transformers, eager attention, fp32",
            "compared_on": ["cpu"],
            "not_compared_on": list(self.unproven),
            "tolerance": self.tolerance,
            "max_abs_difference": dict(sorted(self.differences.items())),
            "eager_max_abs_difference": dict(sorted(self.eager_differences.items())),
            "greedy_tokens_compared": self.tokens_compared,
            "greedy_tokens_different": self.tokens_different,
        }


def measure(
    checkpoint: Checkpoint,
    directory: Path,
    files: GraphFiles,
    tolerance: float | None,
    eager_differences: Mapping[str, float],
) -> Parity:
    """Compare the graphs in `directory` with the eager model; the plain ones first, where others give the taps.

    They run on ONNX Runtime's CPU provider, whatever they are meant for.
    """
    meant = {provider for graph in files.graphs.values() for provider in graph.providers}
    parity = Parity(tolerance, tuple(sorted(meant - {"cpu"})), eager_differences)
    plain = {name: graph for name, graph in files.graphs.items() if name in STAGES}
    if any(graph.tap_graph for graph in plain.values()):
        _compare(checkpoint, _files(plain, directory), (), parity)
    tapped = {name: files.graphs[graph.tap_graph or name] for name, graph in plain.items()}
    _compare(checkpoint, _files(tapped, directory), files.taps, parity)
    return parity


def _compare(checkpoint: Checkpoint, files: Mapping[str, Path], taps: tuple[TapSpec, ...], parity: Parity) -> None:
    with torch.no_grad():
        if checkpoint.generation is None:
            for graph in checkpoint.sources:
                _compare_reader(checkpoint, graph, open_session(files[graph]), taps, parity)
        elif "prefill" in files:
            sessions = {name: open_session(file) for name, file in files.items()}
            for sample in checkpoint.inputs.samples():
                source = Source.of(checkpoint.inputs, sample)
                PromptProof(checkpoint, checkpoint.generation, sessions, taps, parity, source).compare()
        else:
            _Generator(checkpoint, checkpoint.generation, files, taps, parity).compare()


def _files(graphs: Mapping[str, GraphSpec], directory: Path) -> dict[str, Path]:
    return {name: directory / graph.file for name, graph in graphs.items()}


def _compare_maps(name: str, ours: Array, reference: torch.Tensor, lengths: Array, parity: Parity) -> None:
    """Compare [R, H, S, S] where queries and keys are real; beyond, a map means nothing."""
    for row, length in enumerate(lengths):
        parity.note(name, ours[row, :, :length], reference[row, :, :length])


def _compare_reader(
    checkpoint: Checkpoint, graph: str, session: ort.InferenceSession, taps: tuple[TapSpec, ...], parity: Parity
) -> None:
    inputs = checkpoint.sources[graph]
    for sample in inputs.samples():
        source = Source.of(inputs, sample)
        answer = answer_of(checkpoint, source)
        got = run(session, source.feeds)
        for ours, expected in zip(source.real(got[answer.name]), source.real(answer.tensor), strict=True):
            parity.note(answer.name, ours, expected)
        for tap in (tap for tap in taps if tap.graph == graph):
            _compare_maps(tap.name, got[tap.output], answer.attentions[tap.layer], source.lengths, parity)


@dataclass(frozen=True)
class Source:
    """One batch of sources: what the graphs and the eager model are fed, and its real lengths [R]."""

    feeds: Feeds
    arguments: dict[str, torch.Tensor]
    lengths: Array

    @classmethod
    def of(cls, inputs: Inputs, sample: Feeds) -> Source:
        """Make one of a graph's inputs."""
        tensors = {name: torch.from_numpy(array) for name, array in sample.items()}
        lengths = inputs.lengths(sample)
        feeds = sample | {"self_tap_rows": np.arange(len(lengths))}
        return cls(feeds, inputs.arguments(tensors), lengths)

    def real(self, answers: Any) -> Iterator[Any]:
        """Yield each row of answers, [R, ...]; of one for every token, [R, S, C], without its padding."""
        for row, length in zip(answers, self.lengths, strict=True):
            yield row if answers.ndim == 2 else row[:length]

    def alone(self, row: int) -> dict[str, torch.Tensor]:
        """Return what the eager model takes of one row, without its padding."""
        length = int(self.lengths[row])
        return {
            name: one[row : row + 1, :length] if name == "input_ids" else one[row : row + 1]
            for name, one in self.arguments.items()
        }

    def halved(self) -> Source:
        """Return the same with what the eager model takes in floating point in fp16."""
        arguments = {k: v.half() if v.is_floating_point() else v for k, v in self.arguments.items()}
        return dataclasses.replace(self, arguments=arguments)


@dataclass(frozen=True)
class Answer:
    """What an eager model that answers in one step says: `tensor` [R, ...], by the name of the graph's output."""

    name: str
    tensor: torch.Tensor
    attentions: tuple[torch.Tensor, ...]


def answer_of(checkpoint: Checkpoint, source: Source) -> Answer:
    """Ask the eager model."""
    if checkpoint.task is Task.SIMILARITY:
        embedded: Any = checkpoint.family.embed(checkpoint.model, source.arguments, output_attentions=True)
        embeddings = torch.nn.functional.normalize(embedded.pooler_output.float(), dim=-1)
        return Answer("embeddings", embeddings, embedded.attentions)
    output = checkpoint.model(**source.arguments, output_attentions=True)
    return Answer("logits", logits_of(output), output.attentions)


@dataclass
class _Generator:
    checkpoint: Checkpoint
    generation: GenerationSpec
    files: Mapping[str, Path]
    taps: tuple[TapSpec, ...]
    parity: Parity

    def compare(self) -> None:
        """Compare all that the encoder gives before the step is loaded: no two graphs' weights are in memory."""
        sources = [Source.of(self.checkpoint.inputs, sample) for sample in self.checkpoint.inputs.samples()]
        encoder = open_session(self.files["encoder"])
        states = [self._compare_encoder(encoder, source) for source in sources]
        del encoder
        step = open_session(self.files["step"])
        for source, state in zip(sources, states, strict=True):
            for hypotheses in (1, 4):
                self._compare_steps(step, source, state, hypotheses)
            self._compare_tokens(step, source, state)

    def _compare_encoder(self, encoder: ort.InferenceSession, source: Source) -> Feeds:
        model, family = self.checkpoint.model, self.checkpoint.family
        expected = family.encode(model, source.arguments, output_attentions=True)
        got = run(encoder, source.feeds)
        for tap in (tap for tap in self.taps if tap.graph == "encoder"):
            assert expected.attentions is not None
            _compare_maps(tap.name, got[tap.output], expected.attentions[tap.layer], source.lengths, self.parity)
        return {name: array for name, array in got.items() if name.startswith("cross_")}

    def _compare_steps(self, step: ort.InferenceSession, source: Source, state: Feeds, hypotheses: int) -> None:
        """Teacher-force random tokens; row n starts n steps after the first."""
        rows = len(source.lengths) * hypotheses
        expected = self.checkpoint.family.decode(
            self.checkpoint.model,
            torch.from_numpy(tokens := random_tokens(self.generation, rows)),
            source={name: tensor.repeat_interleave(hypotheses, 0) for name, tensor in source.arguments.items()},
            output_attentions=True,
        )
        stepper = Stepper(step, rows, source.lengths, state)
        for tick in range(SAMPLE_TOKENS + min(rows, 4) - 1):
            position = np.clip(tick - np.arange(rows) % 4, 0, SAMPLE_TOKENS - 1).astype(np.int32)
            got = stepper.step(tokens[np.arange(rows), position], position)
            for row, at in enumerate(position):
                self._compare_row(row, int(at), hypotheses, got, expected)

    def _compare_row(self, row: int, at: int, hypotheses: int, got: dict[str, Array], expected: Any) -> None:
        self.parity.note("logits", got["logits"][row], expected.logits[row, at])
        total = torch.logsumexp(expected.logits[row, at], -1, keepdim=True)
        self.parity.note("log_sum_exp", got["log_sum_exp"][row], total)
        for tap in (tap for tap in self.taps if tap.graph == "step"):
            maps = expected.cross_attentions if tap.kind == "cross" else expected.decoder_attentions
            keys = maps[tap.layer].shape[3] if tap.kind == "cross" else at + 1
            self.parity.note(tap.name, got[tap.output][row, :, 0, :keys], maps[tap.layer][row, :, at, :keys])

    def _compare_tokens(self, step: ort.InferenceSession, source: Source, state: Feeds) -> None:
        """Decode greedily beside `generate()`; a difference counts unless eager saw a tie."""
        spec, prompt = self.generation, self.checkpoint.prompt
        steps = min(2 * SAMPLE_TOKENS, spec.max_target_tokens + 1 - len(prompt))
        expected = self.checkpoint.family.generate(
            self.checkpoint.model,
            source.arguments,
            prompt,
            **GREEDY,
            suppress_tokens=list(spec.suppressed_token_ids) or None,
            max_new_tokens=steps,
            output_logits=True,
            return_dict_in_generate=True,
        )
        rows = len(source.lengths)
        stepper = Stepper(step, rows, source.lengths, state)
        sequences = expected.sequences.numpy()
        open_rows = set(range(rows))
        for at in range(sequences.shape[1] - 1):
            got = stepper.step(sequences[:, at], np.full(rows, at, np.int32))
            free = at + 1 - len(prompt)
            if free < 0:
                continue
            chosen = greedy(got["logits"], spec, free, steps)
            eager = expected.logits[free].numpy()
            for row in sorted(open_rows):
                token = sequences[row, at + 1]
                self.parity.tokens_compared += 1
                if chosen[row] != token and not self.parity.tied(eager[row], int(chosen[row]), int(token)):
                    self.parity.tokens_different += 1
                if token in spec.eos_token_ids:
                    open_rows.discard(row)


def random_tokens(spec: GenerationSpec, rows: int) -> Array:
    """Return target tokens, int64 [rows, T], without padding, whose place some models count and others don't."""
    tokens = np.random.default_rng(1).integers(0, spec.vocabulary_size, (rows, SAMPLE_TOKENS))
    tokens[tokens == spec.pad_token_id] = spec.eos_token_ids[0]
    tokens[:, 0] = spec.start_token_id
    return tokens
