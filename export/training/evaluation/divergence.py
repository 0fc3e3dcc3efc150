"""How far answers to the same inputs are from each other: where outputs part, and how sure the model was there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from regard.client import Translation

Floats = npt.NDArray[np.float64]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Output:
    """What came of one input: T token ids, and the natural logarithms [T] of their probabilities.

    `margins` [T], if the request asked for the two likeliest tokens, has by how much each token's is above
    that of the likeliest other one.
    """

    token_ids: tuple[int, ...]
    log_probabilities: Floats
    margins: Floats

    @classmethod
    def of(cls, translation: Translation) -> Output:
        """Return what a translation tells of its tokens, which it must have been asked for."""
        margins = [
            token.log_probability - max(other.log_probability for other in token.top_logprobs if other.token_id != own)
            for token in translation.tokens
            for own in [token.token_id]
            if len(token.top_logprobs) > 1
        ]
        return cls(
            tuple(token.token_id for token in translation.tokens),
            np.array([token.log_probability for token in translation.tokens]),
            np.array(margins),
        )


@dataclass(frozen=True)
class Pair:
    """A reference's output, and another of the same input."""

    reference: Output
    other: Output

    @cached_property
    def alike(self) -> int:
        """How many tokens both begin with."""
        ids = zip(self.reference.token_ids, self.other.token_ids, strict=False)
        return next((at for at, (own, other) in enumerate(ids) if own != other), self._shorter)

    @property
    def parted(self) -> bool:
        """Whether they have different tokens somewhere. Neither is the other's beginning, as both have ends."""
        return self.reference.token_ids != self.other.token_ids

    @property
    def identical(self) -> bool:
        """Whether tokens and probabilities are the same to the bit."""
        return not self.parted and np.array_equal(self.reference.log_probabilities, self.other.log_probabilities)

    @property
    def differences(self) -> Floats:
        """By how much the log-probabilities of the tokens that are alike differ."""
        own, other = (one.log_probabilities[: self.alike] for one in (self.reference, self.other))
        return np.abs(own - other)

    @property
    def _shorter(self) -> int:
        return min(len(self.reference.token_ids), len(self.other.token_ids))


class Divergence:
    """Pairs of outputs, taken together.

    A token is a decision where all before it are alike; of each pair's decisions only the last can be a flip.
    """

    def __init__(self, references: Sequence[Output], others: Sequence[Output]) -> None:
        self._pairs = [Pair(*pair) for pair in zip(references, others, strict=True)]

    @property
    def parted(self) -> float:
        """The share of outputs whose tokens differ."""
        return float(np.mean([pair.parted for pair in self._pairs]))

    @property
    def changed(self) -> float:
        """The share of outputs of which any bit differs, in a token or in a probability."""
        return float(np.mean([not pair.identical for pair in self._pairs]))

    @property
    def flips(self) -> int:
        """How many outputs part."""
        return sum(pair.parted for pair in self._pairs)

    @property
    def flipped(self) -> float:
        """The share of decisions that are flips."""
        return self.flips / (self.flips + sum(pair.alike for pair in self._pairs))

    @property
    def before(self) -> float:
        """The share of the references' tokens that come before the first difference."""
        return sum(pair.alike for pair in self._pairs) / sum(len(pair.reference.token_ids) for pair in self._pairs)

    @cached_property
    def differences(self) -> Floats:
        """By how much log-probabilities differ, of all tokens before a flip."""
        return np.concatenate([pair.differences for pair in self._pairs])

    @property
    def has_margins(self) -> bool:
        """Whether the references tell how sure of their tokens they were."""
        return all(len(pair.reference.margins) == len(pair.reference.token_ids) for pair in self._pairs)

    def by_margin(self, edges: Sequence[float]) -> tuple[list[int], list[int]]:
        """Return the flips, and all decisions, where margins are below the first edge, between edges and above."""
        flips = [pair.reference.margins[pair.alike] for pair in self._pairs if pair.parted]
        held = [margin for pair in self._pairs for margin in pair.reference.margins[: pair.alike]]
        counts = [np.bincount(np.digitize(part, edges), minlength=len(edges) + 1) for part in (flips, flips + held)]
        return counts[0].tolist(), counts[1].tolist()


class Movement:
    """How far the probabilities of classes [texts, classes] are from a reference's."""

    def __init__(self, reference: Probabilities, other: Probabilities) -> None:
        self.parted = float(np.mean(reference.argmax(axis=1) != other.argmax(axis=1)))
        """The share of texts whose likeliest class is another."""
        self.changed = float(np.mean((reference != other).any(axis=1)))
        """The share of texts of which any probability differs by a bit."""
        self.furthest = np.abs(reference - other).max(axis=1)
        """The largest difference of a probability of each text [texts]."""
