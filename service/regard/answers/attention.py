"""Attention: its maps, their axes, and the rows of a stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Segment:
    """A token or a word, and where it stands in its text, in code points; `end` is exclusive.

    A special token, such as the end of the sentence, stands nowhere: `start` equals `end`. `part` is 1
    in the second text of a pair, such as the context of a question.
    """

    text: str
    start: int
    end: int
    special: bool
    token_id: int | None
    part: int = 0


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Where the patches of an image lie: the elements of an axis that are not special, row by row.

    The grid covers the part of the image that starts at `left`, `top` and is `width` by `height`,
    all in pixels of the image with its EXIF orientation applied; that is all of it, unless the
    model looks at a crop.
    """

    rows: int
    columns: int
    image_width: int
    image_height: int
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class SoundFrames:
    """When the elements of an axis over a window of sound are: element i, i times `seconds_per_frame` after `start_s`.

    The sound ends at `end_s`; the elements from there on are silence, and special.
    """

    start_s: float
    end_s: float
    seconds_per_frame: float


def _shares(weights: npt.NDArray[np.float32], weighting: str) -> npt.NDArray[np.float32]:
    if weighting == "none":
        return weights
    total = weights.sum(axis=-1, keepdims=True)
    shares: npt.NDArray[np.float32] = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return shares


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMap:
    """The weights of one layer: float32 [heads, queries, keys], as the model computed them.

    `heads` lists the heads in the map or, after a reduction, those that went in (the first
    dimension of `weights` is then 1). `query_axis` and `key_axis` are `source`, `target`,
    `decoder_input` or `patches`; `queries` and `keys` label them, and an axis over an image has a grid
    as well, one over sound frames.

    Where only the largest weights of every query were asked for, `weights` is [heads, queries, top_k],
    from the largest on, and `key_indices` of the same shape has their places in `keys`; `dense()` puts
    them there. `max_error` is how far a weight may be from what was computed, by its `encoding`. With
    the `weighting` "value_norm", weights are multiplied by the norms of transformed values, and rows sum to anything.
    """

    kind: str
    stack: str
    layer: int
    heads: tuple[int, ...]
    reduction: str
    query_axis: str
    key_axis: str
    queries: tuple[Segment, ...]
    keys: tuple[Segment, ...]
    weights: npt.NDArray[np.float32]
    query_grid: PatchGrid | None = None
    key_grid: PatchGrid | None = None
    query_frames: SoundFrames | None = None
    key_frames: SoundFrames | None = None
    key_indices: npt.NDArray[np.uint32] | None = None
    encoding: str = "float32"
    max_error: float = 0.0
    weighting: str = "none"

    def dense(self) -> npt.NDArray[np.float32]:
        """Return the weights [heads, queries, keys]: `weights` as they are, or 0 where none came for a key."""
        if self.key_indices is None:
            return self.weights
        dense = np.zeros((*self.weights.shape[:2], len(self.keys)), np.float32)
        np.put_along_axis(dense, self.key_indices.astype(np.intp), self.weights, axis=2)
        return dense

    def shares(self) -> npt.NDArray[np.float32]:
        """Return `dense()` with what is multiplied by norms as shares of its row, which sum to 1."""
        return _shares(self.dense(), self.weighting)


@dataclass(frozen=True, slots=True, eq=False)
class AttentionRow:
    """What the token `query` of an output, counted from 0, attended to: a row, float32 [heads, keys], of a map.

    The other fields are those of `AttentionMap`; the keys are the first of their axis, as far as the token could see.
    """

    query: int
    kind: str
    layer: int
    heads: tuple[int, ...]
    reduction: str
    key_axis: str
    weights: npt.NDArray[np.float32]
    weighting: str = "none"

    def shares(self) -> npt.NDArray[np.float32]:
        """Return the weights as shares, as `AttentionMap.shares` does."""
        return _shares(self.weights, self.weighting)


@dataclass(frozen=True, slots=True)
class Attention:
    """Every map that was asked for, and which weights, in which precision, they come from."""

    granularity: str
    maps: tuple[AttentionMap, ...]
    package_sha256: str
    precision: str
