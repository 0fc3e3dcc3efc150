"""The proof of models that have only a decoder: prefill and step against the eager model.

Prompts of ragged lengths are read side by side by the prefill; the eager model gets each alone, without
padding. Then rows are decoded side by side behind them, with one and with four hypotheses a request,
in caches that hold garbage beyond every row's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import torch

from regard.manifest import GenerationSpec, TapSpec
from regard_export.checkpoint import Checkpoint
from regard_export.generation import GREEDY
from regard_export.parity import Parity
from regard_export.samples import Source, expected_weights
from regard_export.stepping import SAMPLE_TOKENS, Array, Feeds, Stepper, greedy, run


@dataclass
class PromptProof:
    """The comparison for one batch of sources."""

    checkpoint: Checkpoint
    generation: GenerationSpec
    sessions: Mapping[str, ort.InferenceSession]
    taps: tuple[TapSpec, ...]
    parity: Parity
    source: Source

    def compare(self) -> None:
        """Note every difference."""
        state = self._compare_prefill()
        for hypotheses in (1, 4):
            self._compare_steps(state, hypotheses)
        for request in range(len(self.source.lengths)):
            self._compare_tokens(state, request)

    def _compare_prefill(self) -> Feeds:
        """Compare the maps of the source's own queries; return the state that rows begin with."""
        reading = [tap for tap in self.taps if tap.graph == "prefill"]
        for rows, feeds in self.source.askings():
            got = run(self.sessions["prefill"], feeds)
            for place, row in enumerate(rows) if reading else ():
                length = int(self.source.lengths[row])
                maps = source_maps(self.checkpoint, self.source.alone(row))
                for tap in reading:
                    ours = got[tap.output][place, :, :length, :length]
                    expected = expected_weights(tap, maps[tap.stack])
                    self.parity.note(tap.name, ours, expected[0, :, :length, :length])
        return {name.replace("first_", "past_"): got[name] for name in got if name.startswith("first_")}

    def _compare_steps(self, state: Feeds, hypotheses: int) -> None:
        """Teacher-force random tokens; a request's rows start at the end of its source, some a step later."""
        rows = len(self.source.lengths) * hypotheses
        read = [self._read(row // hypotheses) for row in range(rows)]
        tokens = np.random.default_rng(1).integers(0, self.generation.vocabulary_size, (rows, SAMPLE_TOKENS))
        tokens[:, 0] = [last for _, last in read]
        cached = np.array([count for count, _ in read])
        expected = [self._expected(row // hypotheses, tokens[row]) for row in range(rows)]
        stepper = Stepper(self.sessions["step"], rows, self.source.lengths, {}, int(cached.max()))
        for row in range(rows):
            own = {name: value[row // hypotheses] for name, value in state.items()}
            stepper.begin(row, own, int(cached[row]))
        for tick in range(SAMPLE_TOKENS + min(rows, 4) - 1):
            at = np.clip(tick - np.arange(rows) % 4, 0, SAMPLE_TOKENS - 1)
            asking = (np.arange(rows), np.arange(0), np.arange(0, rows, 2))[tick % 3]
            got = stepper.step(tokens[np.arange(rows), at], (cached + at).astype(np.int32), asking)
            for row in range(rows):
                self._compare_answer(row, expected[row].logits[0, at[row] - SAMPLE_TOKENS], got)
            for place, row in enumerate(asking.tolist()):
                self._compare_maps(place, int(cached[row] + at[row]), got, expected[row])

    def _compare_answer(self, row: int, logits: torch.Tensor, got: dict[str, Array]) -> None:
        self.parity.note("logits", got["logits"][row], logits)
        self.parity.note("log_sum_exp", got["log_sum_exp"][row], torch.logsumexp(logits, -1, keepdim=True))

    def _compare_maps(self, place: int, position: int, got: dict[str, Array], expected: Any) -> None:
        """Compare the weights of the asking row that is `place`-th among those, whose token is at `position`."""
        for tap in (tap for tap in self.taps if tap.graph == "step"):
            weights = expected.attentions[tap.layer][0, :, position, : position + 1]
            self.parity.note(tap.name, got[tap.output][place, :, 0, : position + 1], weights)

    def _compare_tokens(self, state: Feeds, request: int) -> None:
        """Decode greedily beside `generate()`; a difference counts unless eager saw a tie."""
        spec, (cached, last) = self.generation, self._read(request)
        steps = min(2 * SAMPLE_TOKENS, spec.max_target_tokens + 1 - self._prompt_tokens(request))
        model, source = self.checkpoint.model, self.source.alone(request)
        if "input_ids" in source:  # or generate() takes tokens that happen to be the padding's for padding
            source["attention_mask"] = torch.ones_like(source["input_ids"])
        answer: Any = cast(Any, model).generate(
            **source,
            **GREEDY,
            suppress_tokens=list(spec.suppressed_token_ids) or None,
            max_new_tokens=steps,
            output_logits=True,
            return_dict_in_generate=True,
        )
        written = answer.sequences[0, self._prompt_tokens(request) :].tolist()
        stepper = Stepper(self.sessions["step"], 1, self.source.lengths[[request]], {}, cached)
        stepper.begin(0, {name: value[request] for name, value in state.items()}, cached)
        for at, (fed, token) in enumerate(zip([last, *written[:-1]], written, strict=True)):
            got = stepper.step(np.array([fed]), np.array([cached + at], np.int32), np.arange(0))
            chosen = int(greedy(got["logits"], spec, at, steps)[0])
            self.parity.tokens_compared += 1
            if chosen != token and not self.parity.tied(answer.logits[at][0].numpy(), chosen, token):
                self.parity.tokens_different += 1

    def _read(self, request: int) -> tuple[int, int]:
        """Return how many positions the prefill leaves in the cache, and the token that is fed behind them."""
        length = int(self.source.lengths[request])
        if self.checkpoint.image is not None:
            return length, self.generation.start_token_id
        return length - 1, int(self.source.feeds["input_ids"][request, length - 1])

    def _prompt_tokens(self, request: int) -> int:
        return 1 if self.checkpoint.image is not None else int(self.source.lengths[request])

    def _expected(self, request: int, tokens: Array) -> Any:
        """Return what the eager model makes of a source and the tokens [T] fed behind it."""
        alone = self.source.alone(request)
        if self.checkpoint.image is None:
            tokens = tokens[1:]
        fed = torch.from_numpy(tokens)[None]
        return self.checkpoint.family.complete(self.checkpoint.model, alone, fed, output_attentions=True)


def source_maps(checkpoint: Checkpoint, source: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the eager maps of a source's own queries, by stack and layer: those behind it can't change them."""
    family, model = checkpoint.family, checkpoint.model
    token = torch.zeros(1, 1, dtype=torch.int64)
    maps = {"decoder": family.complete(model, source, token, output_attentions=True).attentions}
    if checkpoint.image is not None:
        maps["encoder"] = family.encode(model, source, output_attentions=True).attentions
    return maps
