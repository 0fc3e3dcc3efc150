"""Drawing the next token: the distribution that Transformers' warpers leave, and a draw from it.

The warpers take scores in any order and number, so that they work on a shortlist as they do on a
whole vocabulary. The draw is a function of the seed, the sequence and the position alone: it is the
same whatever else is in the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard.engine.request import FloatArray
from regard.engine.search.processors import TokenArray

_DOUBLES = 2.0**-53
"""The step between the doubles that 53 random bits can give, in [0, 1)."""


@dataclass(frozen=True, slots=True)
class Warpers:
    """The options that shape the distribution, applied in this order; 1, 0, 1 and 0 change nothing.

    `top_k` keeps the k best tokens, `top_p` the fewest best whose probabilities sum to p at least
    (Holtzman et al., The Curious Case of Neural Text Degeneration, 2020), `min_p` those whose
    probability is at least p times that of the best.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Return the warped `scores` [n]; tokens that can't be drawn have -inf."""
        warped = scores / np.float32(self.temperature)
        if 0 < self.top_k < len(warped):
            warped = _keep(warped, warped >= np.partition(warped, -self.top_k)[-self.top_k])
        if self.top_p < 1:
            warped = _keep(warped, _in_nucleus(warped, self.top_p))
        if self.min_p > 0:
            warped = _keep(warped, warped >= warped.max() + np.float32(math.log(self.min_p)))
        return warped


def draw(token_ids: TokenArray, scores: FloatArray, uniform: float) -> int:
    """Return the token of `token_ids` [n] on which `uniform`, from [0, 1), falls.

    The probabilities are the softmax of `scores` [n], laid out in the order of the tokens' ids: two
    tokens that tie may then swap their places in a shortlist without any effect.
    """
    drawable = np.flatnonzero(scores > -np.inf)
    order = drawable[np.argsort(token_ids[drawable])]
    shares = np.cumsum(_softmax(scores[order]))
    at = int(np.searchsorted(shares, uniform * shares[-1], side="right"))
    return int(token_ids[order[min(at, len(order) - 1)]])


def uniform(seed: int, sequence: int, position: int) -> float:
    """Return the number in [0, 1) of one position of one of a request's sequences.

    Philox is a function of its key and its counter, without a state to be shared (Salmon et al.,
    Parallel Random Numbers: As Easy as 1, 2, 3, 2011).
    """
    key = np.array([seed, sequence], np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([position, 0, 0, 0], np.uint64)).random_raw()
    return float(int(bits) >> 11) * _DOUBLES


def _keep(scores: FloatArray, kept: npt.NDArray[np.bool_]) -> FloatArray:
    return np.where(kept, scores, np.float32(-np.inf))


def _in_nucleus(scores: FloatArray, top_p: float) -> npt.NDArray[np.bool_]:
    """Return which tokens are left when the worst, of 1 - `top_p` together at most, are taken out."""
    order = np.argsort(scores, kind="stable")
    kept = np.empty(len(scores), bool)
    kept[order] = np.cumsum(_softmax(scores[order])) > 1 - top_p
    kept[order[-1]] = True
    return kept


def _softmax(scores: FloatArray) -> npt.NDArray[np.float64]:
    exponentials = np.exp(scores.astype(np.float64) - float(scores.max()))
    return np.asarray(exponentials / exponentials.sum())
