"""The proof of encoder-decoders: encoder and step against the eager model, and greedy tokens against `generate()`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from regard.manifest import GenerationSpec, TapSpec
from regard_export.checkpoint import Checkpoint
from regard_export.generation import GREEDY
from regard_export.parity import Parity
from regard_export.reader_proof import compare_maps
from regard_export.samples import Norms, Source, expected_weights, random_tokens, unit_of
from regard_export.stepping import SAMPLE_TOKENS, Array, Feeds, Stepper, greedy, open_session, run


@dataclass
class GeneratorProof:
    """The comparison for all samples of the inputs; `norms` are filled in while the eager model answers."""

    checkpoint: Checkpoint
    generation: GenerationSpec
    files: Mapping[str, Path]
    taps: tuple[TapSpec, ...]
    parity: Parity
    norms: Norms = field(default_factory=dict)

    def compare(self) -> None:
        """Compare all that the encoder gives before the step is loaded: no two graphs' weights are in memory."""
        sources = [Source.of(self.checkpoint.inputs, sample) for sample in self.checkpoint.inputs.samples()]
        encoder = open_session(self.files["encoder"])
        states = [self.compare_encoder(encoder, source) for source in sources]
        del encoder
        step = open_session(self.files["step"])
        for source, state in zip(sources, states, strict=True):
            for hypotheses in (1, 4):
                self.compare_steps(step, source, state, hypotheses)
            self._compare_tokens(step, source, state)

    def compare_encoder(self, encoder: ort.InferenceSession, source: Source) -> Feeds:
        """Compare the encoder's maps, whoever asks; return the cross-attention state that it gives at last."""
        model, family = self.checkpoint.model, self.checkpoint.family
        expected = family.encode(model, source.arguments, output_attentions=True)
        for rows, feeds in source.askings():
            got = run(encoder, feeds)
            for tap in (tap for tap in self.taps if tap.graph == "encoder"):
                assert expected.attentions is not None
                weights, unit = expected_weights(tap, expected.attentions, self.norms), unit_of(tap, self.norms)
                compare_maps(tap.name, got[tap.output] / unit, weights / unit, rows, source.lengths, self.parity)
        return {name: array for name, array in got.items() if name.startswith("cross_")}

    def compare_steps(self, step: ort.InferenceSession, source: Source, state: Feeds, hypotheses: int) -> None:
        """Teacher-force random tokens; row n starts n steps after the first. All ask for maps, none, or every other."""
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
            asking = (np.arange(rows), np.arange(0), np.arange(0, rows, 2))[tick % 3]
            got = stepper.step(tokens[np.arange(rows), position], position, asking)
            for row, at in enumerate(position):
                self._compare_logits(row, int(at), got, expected)
            for place, row in enumerate(asking.tolist()):
                self._compare_maps(place, row, int(position[row]), got, expected)

    def _compare_logits(self, row: int, at: int, got: dict[str, Array], expected: Any) -> None:
        self.parity.note("logits", got["logits"][row], expected.logits[row, at])
        total = torch.logsumexp(expected.logits[row, at], -1, keepdim=True)
        self.parity.note("log_sum_exp", got["log_sum_exp"][row], total)

    def _compare_maps(self, place: int, row: int, at: int, got: dict[str, Array], expected: Any) -> None:
        for tap in (tap for tap in self.taps if tap.graph == "step"):
            maps = expected.cross_attentions if tap.kind == "cross" else expected.decoder_attentions
            weights, unit = expected_weights(tap, maps, self.norms), unit_of(tap, self.norms)
            keys = weights.shape[3] if tap.kind == "cross" else at + 1
            self.parity.note(tap.name, got[tap.output][place, :, 0, :keys] / unit, weights[row, :, at, :keys] / unit)

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
            got = stepper.step(sequences[:, at], np.full(rows, at, np.int32), np.arange(0))
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
