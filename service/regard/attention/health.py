"""The health of cross-attention: how sharp it is, what of the source it reaches, where it rests, what it comes back to.

`weights` are the rows of an output over its source, float [..., T, S] for T target and S source
positions, each at least 0 and summing to 1. No figure tells by itself that an output is bad: a sound
model has its own usual values, and what counts is that they change.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RUN = 2
"""The items of a run that is looked for again: of 2, 3 and 4, 2 told most repeated phrases of development sentences."""


@dataclass(frozen=True, slots=True)
class Health:
    """The figures of one output, each from 0 to 1."""

    entropy: float
    """The mean over the target's positions of `entropy`."""
    coverage: float
    """The mean over the source's positions of `coverage`, special ones left out."""
    sink_share: float
    """The mean over the target's positions of the weight on the source's special tokens, as its end or language."""
    repeated_positions: float
    """`repetition` of the source positions that the target's look at most."""
    repeated_ngrams: float
    """`repetition` of the target's tokens, special ones left out."""


def measure(weights: npt.ArrayLike, tokens: Sequence[int], sinks: npt.ArrayLike, special: npt.ArrayLike) -> Health:
    """Return the health of an output of T `tokens` by its `weights` [T, S].

    `sinks` [S] marks the special positions of the source; `special` [T] those of the output, which count
    for none of the figures: nobody expects its end to look at a word.
    """
    rows = np.asarray(weights, dtype=np.float64)
    resting, own = np.asarray(sinks, dtype=np.bool_), ~np.asarray(special, dtype=np.bool_)
    rows, words = rows[own], [token for token, kept in zip(tokens, own, strict=True) if kept]
    reached = coverage(rows)[~resting]
    return Health(
        entropy=_mean(entropy(rows)),
        coverage=_mean(reached),
        sink_share=_mean(rows[:, resting].sum(axis=-1)),
        repeated_positions=repetition(rows.argmax(axis=-1).tolist()) if rows.size else 0.0,
        repeated_ngrams=repetition(words),
    )


def entropy(weights: npt.ArrayLike) -> Floats:
    """Return [..., T] how widely each row is spread: 0 is on one position, 1 is evenly over all.

    Shannon's entropy, -sum p log p, divided by the logarithm of the number of positions, its largest; as
    of attention, Ghader & Monz 2017 (What does attention in neural machine translation pay attention to?).
    """
    rows = np.asarray(weights, dtype=np.float64)
    surprise = -(rows * np.log(np.where(rows > 0, rows, 1.0))).sum(axis=-1)
    spread: Floats = np.clip(surprise / np.log(max(rows.shape[-1], 2)), 0.0, 1.0)
    return spread


def coverage(weights: npt.ArrayLike) -> Floats:
    """Return [..., S] how much attention each source position got from all rows together, 1 at most.

    It is min(sum_t p_ts, 1), whose logarithms are summed to the coverage penalty of Wu et al. 2016
    (Google's neural machine translation system, section 7, equation 14); unclipped, it is the coverage
    vector of Tu et al. 2016 (Modeling coverage for neural machine translation) with a fertility of 1.
    """
    reached: Floats = np.minimum(np.asarray(weights, dtype=np.float64).sum(axis=-2), 1.0)
    return reached


def repetition(items: Sequence[Hashable], length: int = RUN) -> float:
    """Return the share of runs of `length` items that were there before; 0 if there is at most one run.

    1 - distinct / all, the seq-rep-n of Welleck et al. 2020 (Neural text generation with unlikelihood
    training, section 6).
    """
    runs = [tuple(items[at : at + length]) for at in range(len(items) - length + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0
