"""What `generate()` of Transformers finds, one request at a time, and by how little it decided."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationMixin, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from regard.engine.request import FloatArray
from regard.engine.search.sampling import uniform
from regard.manifest import GenerationSpec

Arguments = Mapping[str, torch.Tensor]
"""The source, as the eager model takes it."""
_IMPOSSIBLE = -1e8
"""Beams that `generate()` doesn't mean to choose have scores below."""
_OURS_ALONE = {"seed", "prefix_token_ids", "top_logprobs", "alternatives_position"}


@dataclass(frozen=True, slots=True)
class Expected:
    """The sequences [n] without the start token, padded; the scores of a beam search.

    `missed` has, for each sequence and position, by how much each token [V] was not the one taken: a
    difference of scores, or of a draw from the border of the token's share, or of any token from the border
    of what a warper keeps, which moves the shares of all. Beams are decided all
    together: `margin` is the least difference between two scores that mattered to them.
    """

    sequences: list[list[int]]
    scores: list[float] | None
    missed: list[list[FloatArray]]
    margin: float = np.inf

    def excuse(self, ours: Sequence[Sequence[int]]) -> float:
        """Return by how little `ours`, which differ, could have been expected: ties are below 1e-4."""
        if self.scores is not None:
            return self.margin
        return max(
            self._missed(at, one, other)
            for at, (one, other) in enumerate(zip(ours, self.sequences, strict=True))
            if one != other[: len(one)]
        )

    def _missed(self, sequence: int, ours: Sequence[int], theirs: Sequence[int]) -> float:
        at = next(at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other)
        return float(self.missed[sequence][at][ours[at]])


class Reference:
    """An eager model, and how its checkpoint decodes."""

    def __init__(self, model: Any, spec: GenerationSpec, tokenizer: Any = None) -> None:
        """Hold a model and, for stop strings, its tokenizer."""
        self._model = model.eval()
        self._spec = spec
        self._tokenizer = tokenizer
        self._searching = getattr(model, "text_decoder", model)  # BLIP lets its part search, and begins by itself

    def search(self, source: Arguments, given: Mapping[str, Any]) -> Expected:
        """Return what `generate()` finds for the options that a request has given."""
        if "alternatives_position" in given:
            return self._alternatives(source, given)
        return self._generate(source, given, given.get("prefix_token_ids", ()))

    def log_probabilities(self, source: Arguments, token_ids: Sequence[int]) -> torch.Tensor:
        """Return the logarithms of all tokens' probabilities at every position [T, V]."""
        logits: torch.Tensor = self.answer(source, token_ids[:-1]).logits[0]
        return logits[-len(token_ids) :].log_softmax(-1)

    def in_float64(self) -> Reference:
        """Return the same model in float64, beside which float32's rounding shows."""
        return Reference(copy.deepcopy(self._model).double(), self._spec, self._tokenizer)

    def with_sdpa(self) -> Reference | None:
        """Return the same model with PyTorch's fused attention, Transformers' default; None if it has none for it."""
        model = copy.deepcopy(self._model)
        try:
            model.set_attn_implementation("sdpa")
        except ValueError:
            return None
        return Reference(model, self._spec, self._tokenizer)

    def attentions(self, source: Arguments, token_ids: Sequence[int]) -> list[torch.Tensor]:
        """Return a decoder's self-attention [H, S, S] of every layer, over its source, prompt and the tokens behind."""
        return [weights[0] for weights in self.answer(source, token_ids, output_attentions=True).attentions]

    @torch.no_grad()
    def answer(self, source: Arguments, token_ids: Sequence[int], **options: Any) -> Any:
        """Run the model on a source, and on what is read before and of `token_ids`."""
        arguments = self._arguments(source, token_ids)
        given = {name: self._as_precise(value) for name, value in arguments.items()}
        return self._model(**given, **options)

    def _as_precise(self, value: torch.Tensor) -> torch.Tensor:
        """Return pixels and sound in the model's precision, and ids as they are."""
        return value.to(self._model.dtype) if value.is_floating_point() else value

    def prompt(self, source: Arguments) -> list[int]:
        """Return what the decoder reads before its first token: what it is to complete, or the start token."""
        if self._model.config.is_encoder_decoder or "input_ids" not in source:
            return [self._spec.start_token_id]
        prompt: list[int] = source["input_ids"][0].tolist()
        return prompt

    def _arguments(self, source: Arguments, token_ids: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return what the model is called with for a source and the tokens behind its prompt."""
        read = torch.tensor([[*self.prompt(source), *token_ids]])
        if self._model.config.is_encoder_decoder:
            return {**source, "decoder_input_ids": read}
        return {**source, "input_ids": read, "attention_mask": torch.ones_like(read)}

    def first_distribution(self, source: Arguments, given: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """Return the probabilities [V] that Transformers' processors and warpers leave for the first token."""
        answer = self._call(source, given | {"max_new_tokens": 2}, ())  # the last one may be forced
        return answer.scores[0][0].double().softmax(-1).numpy()

    def _generate(self, source: Arguments, given: Mapping[str, Any], prefix: Sequence[int]) -> Expected:
        draws: list[FloatArray] = []
        gaps: list[float] = []
        with _drawn_like_ours(given.get("seed", 0), len(prefix), draws), self._watched(gaps):
            answer = self._call(source, given, prefix)
        sequences = [sequence[len(self.prompt(source)) :] for sequence in answer.sequences.tolist()]
        scores = answer.get("sequences_scores")
        if scores is not None:
            gaps.append(_gap(scores, len(scores)))
            return Expected(sequences, scores.tolist(), [], min(gaps))
        steps = draws or [(one.max(1, keepdim=True).values - one).numpy() for one in answer.scores]
        given_before = [np.full(self._spec.vocabulary_size, np.inf, np.float32)] * len(prefix)
        missed = [[*given_before, *(step[row] for step in steps)] for row in range(len(sequences))]
        return Expected(sequences, None, missed)

    def _alternatives(self, source: Arguments, given: Mapping[str, Any]) -> Expected:
        """Return the greedy beginning, behind it each of the best tokens, and behind that a greedy end."""
        greedy = {name: value for name, value in given.items() if name != "num_return_sequences"}
        forced = self._spec.forced_bos_token_id is not None
        position = given["alternatives_position"] + forced
        start = self._call(source, greedy, ())
        missed_by_greedy = [(one[0].max() - one[0]).numpy() for one in start.scores]
        if len(start.scores) <= position:  # it ended before they part
            return Expected([start.sequences[0, len(self.prompt(source)) :].tolist()], None, [missed_by_greedy])
        beginning = start.sequences[0, len(self.prompt(source)) :].tolist()[:position]
        scores = start.scores[position][0]
        before = missed_by_greedy[:position]
        expected = Expected([], None, [])
        for token in scores.topk(given["num_return_sequences"]).indices.tolist():
            tokens, missed = [*beginning, token], [*before, (scores - scores[token]).abs().numpy()]
            if token not in self._spec.eos_token_ids:
                rest = self._generate(
                    source, greedy | {"max_new_tokens": given["max_new_tokens"] - len(tokens)}, tokens
                )
                tokens, missed = rest.sequences[0], [*missed, *rest.missed[0][len(tokens) :]]
            expected.sequences.append(tokens)
            expected.missed.append(missed)
        return expected

    def _call(self, source: Arguments, given: Mapping[str, Any], prefix: Sequence[int]) -> Any:
        options = {name: value for name, value in given.items() if name not in _OURS_ALONE}
        if "stop_strings" in options:
            options |= {"tokenizer": self._tokenizer, "stop_strings": list(options["stop_strings"])}
        if "bad_words_ids" in options:
            own = self._model.generation_config.bad_words_ids or []
            options["bad_words_ids"] = [*own, *map(list, options["bad_words_ids"])]
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            if name in options:
                options[name] = list(options[name])
        alone = self._searching is not self._model
        # Whisper's own puts windows together, and cuts off what they begin with.
        generate = self._model.generate if alone else partial(GenerationMixin.generate, self._model)
        with torch.no_grad():
            return generate(
                **(source if alone and not prefix else self._arguments(source, prefix)),
                **{"do_sample": False} | options,
                return_dict_in_generate=True,
                output_scores=True,
            )

    @contextmanager
    def _watched(self, gaps: list[float]) -> Iterator[None]:
        """Note how close the continuations are between which a beam search decides."""
        inner = self._searching._get_top_k_continuations

        def watch(**arguments: Any) -> Any:
            gaps.extend(_gap(scores, arguments["beams_to_keep"] + 1) for scores in arguments["accumulated_log_probs"])
            return inner(**arguments)

        with mock.patch.object(self._searching, "_get_top_k_continuations", watch):
            yield


def _gap(scores: torch.Tensor, count: int) -> float:
    """Return the least difference between neighbours among the `count` best of `scores` [n]."""
    best = scores.topk(min(count, len(scores))).values
    best = best[best > _IMPOSSIBLE]
    return float((best[:-1] - best[1:]).min()) if len(best) > 1 else np.inf


@contextmanager
def _drawn_like_ours(seed: int, first_position: int, missed: list[FloatArray]) -> Iterator[None]:
    """Let `generate()` draw with our numbers: from its own distribution, in the order of the tokens.

    Each draw adds to `missed` how far its numbers were from every token's share, [n, V], or how far some token was
    from being kept, or left out, by a warper, if that is less.
    """
    borders: list[npt.NDArray[np.float64]] = []

    def multinomial(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        shares = probabilities.double().numpy()
        ends = np.cumsum(shares, axis=1)
        numbers = [uniform(seed, row, first_position + len(missed)) for row in range(len(shares))]
        at = np.array(numbers)[:, None] * ends[:, -1:]
        by = np.where(shares > 0, np.maximum(ends - shares - at, at - ends).clip(0), np.inf)
        missed.append(np.minimum(by, np.min([*borders, np.full(len(by), np.inf)], axis=0)[:, None]))
        borders.clear()
        return torch.from_numpy((ends <= at).sum(axis=1, keepdims=True))

    with mock.patch.object(torch, "multinomial", multinomial), ExitStack() as patches:
        for warper, border in _BORDERS.items():
            patches.enter_context(mock.patch.object(warper, "__call__", _noting(warper.__call__, border, borders)))
        yield


def _noting(
    call: Callable[..., torch.Tensor],
    border: Callable[[Any, torch.Tensor], torch.Tensor],
    borders: list[npt.NDArray[np.float64]],
) -> Callable[..., torch.Tensor]:
    """Return what calls a warper, and notes how close some token of each row is to its border."""

    def called(self: Any, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        borders.append(border(self, scores.double()).nan_to_num(nan=torch.inf, posinf=torch.inf).numpy())
        return call(self, input_ids, scores)

    return called


def border_of_top_k(warper: Any, scores: torch.Tensor) -> torch.Tensor:
    """The worst token that is kept may be close to the best that isn't."""
    best = scores.topk(min(warper.top_k + 1, scores.shape[1])).values
    return best[:, -2] - best[:, -1] if best.shape[1] > warper.top_k else torch.full((len(scores),), torch.inf)


def border_of_top_p(warper: Any, scores: torch.Tensor) -> torch.Tensor:
    """The sum may be close to `top_p`, or the worst token that is kept to the best that isn't: either could be kept."""
    ascending = scores.sort().values
    sums = ascending.softmax(-1).cumsum(-1)[:, :-1]
    left_out = sums <= 1 - warper.top_p
    last_left_out = left_out & ~torch.nn.functional.pad(left_out[:, 1:], (0, 1))
    gaps = torch.where(last_left_out, ascending.diff(), torch.inf)
    return torch.minimum((sums - (1 - warper.top_p)).abs(), gaps).min(dim=1).values


def border_of_min_p(warper: Any, scores: torch.Tensor) -> torch.Tensor:
    """Some token may be close to the least share of the best."""
    below = scores.max(1, keepdim=True).values + np.log(warper.min_p) - scores
    return below.abs().min(dim=1).values


_BORDERS: Mapping[type, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    TopKLogitsWarper: border_of_top_k,
    TopPLogitsWarper: border_of_top_p,
    MinPLogitsWarper: border_of_min_p,
}
"""How close some token of each row [n] is to being kept, or left out, by a warper that looks at scores [n, V]."""
