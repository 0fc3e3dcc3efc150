"""From attention to word links: what an alignment that a package declares means, for export and service alike.

`weights` is what each target word attended to: [..., T, S], at least 0, for T target and S source
words; rows and columns of zeros beyond a pair's words, as of a padded batch, get no link.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Method = Literal["argmax", "intersection", "grow_diagonal"]

_LEAST = 1e-12
_NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def balance(weights: npt.ArrayLike, prior: npt.ArrayLike | None = None) -> Floats:
    """Return weights [..., T, S] without sinks: the share that a word has of those that look at it counts, too.

    Translators rest their attention on a full stop or the sentence's end while they write a word
    that nothing calls for. Such a word is looked at by all rows; to divide columns by their sums
    takes that advantage from it (one round of Sinkhorn and Knopp 1967, and columns once more).
    `prior` [..., T, S] is multiplied in at the end.
    """
    balanced = np.asarray(weights, dtype=np.float64)
    for axis in (-2, -1, -2):
        balanced = balanced / np.maximum(balanced.sum(axis=axis, keepdims=True), _LEAST)
    return balanced if prior is None else balanced * np.asarray(prior)


def diagonal(targets: int, sources: int, tension: float) -> Floats:
    """Return the prior [T, S] of words that stand at like places: exp(-tension * distance), relative to the lengths.

    The distance is that of Dyer et al. 2013 (A simple, fast, and effective reparameterization of
    IBM Model 2), between the words' middles.
    """
    places = (np.arange(targets) + 0.5)[:, np.newaxis] / max(targets, 1)
    distance = np.abs(places - (np.arange(sources) + 0.5) / max(sources, 1))
    prior: Floats = np.exp(-tension * distance)
    return prior


def link(balanced: Floats, method: Method) -> Mask:
    """Return which words are linked [..., T, S].

    `argmax` links each target word to its strongest source word; `intersection` keeps of those the
    ones where it's the source word's strongest, too; `grow_diagonal` grows that by neighbours
    within the union of both, and ends with what has no link yet (Koehn et al. 2005, Edinburgh
    system description: grow-diag-final-and).
    """
    forward = _strongest(balanced, axis=-1)
    if method == "argmax":
        return forward
    backward = _strongest(balanced, axis=-2)
    if method == "intersection":
        return forward & backward
    grown = forward & backward
    for place in np.ndindex(balanced.shape[:-2]):
        _grow(grown[place], forward[place] | backward[place])
    return grown


def confidence(balanced: Floats) -> Floats:
    """Return [..., T, S] how much of each target word's balanced weight a source word has, from 0 to 1."""
    share: Floats = balanced / np.maximum(balanced.sum(axis=-1, keepdims=True), _LEAST)
    return share


def _strongest(weights: Floats, axis: int) -> Mask:
    if not weights.size:
        return np.zeros(weights.shape, dtype=np.bool_)
    best = np.expand_dims(weights.argmax(axis=axis), axis)
    mask = np.zeros(weights.shape, dtype=np.bool_)
    np.put_along_axis(mask, best, True, axis)
    return mask & (weights > 0)


def _grow(links: Mask, union: Mask) -> None:
    """Add to `links` [T, S], in place, what grow-diag-final-and takes from `union`."""
    targets: Mask = np.any(links, axis=1)
    sources: Mask = np.any(links, axis=0)
    queue = [(int(target), int(source)) for target, source in np.argwhere(links)]
    for target, source in queue:  # grows as links are added
        for down, right in _NEIGHBOURS:
            row, column = target + down, source + right
            inside = 0 <= row < len(targets) and 0 <= column < len(sources)
            if inside and union[row, column] and not links[row, column] and not (targets[row] and sources[column]):
                links[row, column] = targets[row] = sources[column] = True
                queue.append((row, column))
    for row, column in np.argwhere(union & ~links):
        if not targets[row] and not sources[column]:
            links[row, column] = targets[row] = sources[column] = True
