"""The state of running rows, in preallocated tensors.

A row is one hypothesis that is being decoded. Active rows are the prefix [0, count) of every
tensor, so that a step binds views of `count` rows without a copy; a row that leaves is filled by
the last one. Cache tensors [N, H, P, D] are written in place by the step; cross-attention tensors
[N, H, S, D] are written once, when the row is admitted. Capacities grow by blocks: of rows and of
positions P by doubling, of source positions S to just what the longest row needs, because the
cross-attention reads all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from regard.engine.session import zeros
from regard.manifest import Manifest

Array = npt.NDArray[Any]

FIRST_ROWS = 8
FIRST_POSITIONS = 32
SOURCE_BLOCK = 8


class Rows:
    """Rows of one instance. `layout` changes whenever a buffer that was bound no longer holds."""

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        self._manifest = manifest
        self._max_rows = max_rows
        self._max_positions = manifest.generation.max_target_tokens if manifest.generation else 0
        self._capacity = min(FIRST_ROWS, max_rows)
        self._positions = min(FIRST_POSITIONS, self._max_positions)
        self._sources = SOURCE_BLOCK
        self.count = 0
        self.layout = 0
        self._token_ids = np.zeros((max_rows, 1), np.int64)
        self._row_length = np.zeros(max_rows, np.int32)
        self._source_length = np.zeros(max_rows, np.int32)
        self._total_length = np.zeros((), np.int32)
        self._state = {spec.input: self._cache(spec) for spec in manifest.state}
        self._cross = {spec.step_input: self._cross_buffer(spec) for spec in manifest.cross_state}

    @property
    def free(self) -> int:
        """How many more rows could be admitted."""
        return self._max_rows - self.count

    @property
    def token_ids(self) -> Array:
        """The token that each active row feeds to the next step, int64 [count]."""
        return self._token_ids[: self.count, 0]

    @property
    def row_length(self) -> Array:
        """The positions that each active row has in its cache, int32 [count]."""
        return self._row_length[: self.count]

    @property
    def source_length(self) -> Array:
        """The source positions of each active row, int32 [count]."""
        return self._source_length[: self.count]

    def admit(self, cross: Mapping[str, Array], source_length: int, first_token: int) -> int:
        """Append a row and return its index.

        `cross` maps a step's input to the request's state [H, S, D], S at least `source_length`.
        """
        self._reserve_rows(self.count + 1)
        self._reserve_sources(source_length)
        row = self.count
        for name, buffer in self._cross.items():
            buffer[row, :, :source_length] = cross[name][:, :source_length]
            buffer[row, :, source_length:] = 0
        self._token_ids[row], self._row_length[row], self._source_length[row] = first_token, 0, source_length
        self.count += 1
        self.layout += 1
        return row

    def release(self, row: int, *, clear: bool = False) -> int | None:
        """Remove a row and return the index of the row that moved into its place, if one did.

        `clear` wipes its cache, for a row whose numbers are not finite: they would spread through
        masked positions to the next row that is put there.
        """
        last = self.count - 1
        if clear:
            for buffer in (*self._state.values(), *self._cross.values()):
                buffer[row] = 0
        if row != last:
            length, source = self._row_length[last], self._source_length[last]
            for buffer in self._state.values():
                buffer[row, :, :length] = buffer[last, :, :length]
            for buffer in self._cross.values():
                buffer[row, :, :source] = buffer[last, :, :source]
                buffer[row, :, source:] = 0
            for vector in (self._token_ids, self._row_length, self._source_length):
                vector[row] = vector[last]
        self.count = last
        self.layout += 1
        return last if row != last else None

    def reset(self) -> None:
        """Remove and wipe every row."""
        for buffer in (*self._state.values(), *self._cross.values()):
            buffer[...] = 0
        self.count = 0
        self.layout += 1

    def prepare(self) -> None:
        """Make room for one more position in every active row's cache."""
        longest = int(self.row_length.max()) + 1
        self._total_length[...] = longest
        if longest > self._positions:
            self._positions = min(max(2 * self._positions, longest), self._max_positions)
            self._resize(self._state, axis=2, size=self._positions)

    def advance(self, token_ids: Array) -> None:
        """Note that every active row has one position more and feeds `token_ids` [count] next."""
        self._token_ids[: self.count, 0] = token_ids
        self._row_length[: self.count] += 1

    def inputs(self) -> dict[str, Array]:
        """Return views of the active rows, by the names of the step's inputs."""
        views = {
            "token_ids": self._token_ids[: self.count],
            "row_length": self.row_length,
            "total_length": self._total_length,
            "source_length": self.source_length,
        }
        return views | {name: buffer[: self.count] for name, buffer in (self._state | self._cross).items()}

    def outputs(self) -> dict[str, Array]:
        """Return the views that a step writes in place, by the names of its outputs."""
        return {spec.output: self._state[spec.input][: self.count] for spec in self._manifest.state}

    def _cache(self, spec: Any) -> Array:
        return zeros((self._capacity, spec.heads, self._positions, spec.head_size), spec.dtype)

    def _cross_buffer(self, spec: Any) -> Array:
        return zeros((self._capacity, spec.heads, self._sources, spec.head_size), spec.dtype)

    def _reserve_rows(self, rows: int) -> None:
        if rows <= self._capacity:
            return
        self._capacity = min(max(2 * self._capacity, rows), self._max_rows)
        self._resize(self._state, axis=0, size=self._capacity)
        self._resize(self._cross, axis=0, size=self._capacity)

    def _reserve_sources(self, source_length: int) -> None:
        """Fit S to the longest of the active rows and the one to come."""
        longest = max(source_length, int(self.source_length.max(initial=0)))
        needed = -(-longest // SOURCE_BLOCK) * SOURCE_BLOCK
        if self._sources < needed or self._sources >= 2 * needed:
            self._sources = needed
            self._resize(self._cross, axis=2, size=needed)

    def _resize(self, buffers: dict[str, Array], *, axis: int, size: int) -> None:
        """Give every buffer another size along one axis, keeping what fits of the active rows."""
        for name, old in buffers.items():
            shape = list(old.shape)
            shape[axis] = size
            new = np.zeros(shape, old.dtype)
            kept = min(old.shape[2], shape[2])
            new[: self.count, :, :kept] = old[: self.count, :, :kept]
            buffers[name] = new
        self.layout += 1
