"""The state of running rows, in preallocated tensors.

A row is one hypothesis that is being decoded; a request has `width` of them, side by side. Active
rows are the prefix [0, count) of every tensor, so that a step binds views of `count` rows without a
copy; a request that leaves is filled by the last one. Cache tensors [N, H, P, D] are written in
place by the step; recurrent states [N, D], which are small, stay on the host, are read from one
array, written to another and copied back; cross-attention tensors [R, H, S, D] are held once for
each request and written once, when it is admitted. Where a prefill has read the source, there are
none, and each row's cache begins with what it gave. Capacities grow by blocks: of requests and of
positions P by doubling, of source positions S to just what the longest request needs, because the
cross-attention reads all of it. Large caches with positions for texts that have left become smaller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from regard.engine.memory import HostMemory, Memory, Move, Tensor, numpy_dtype
from regard.errors import OutOfMemoryError
from regard.manifest import CrossStateSpec, Manifest, StateSpec

Array = npt.NDArray[Any]

FIRST_ROWS = 8
FIRST_POSITIONS = 32
SOURCE_BLOCK = 8
SPACIOUS = 8
"""How many times the positions that rows need caches have at least before they become smaller..."""
SPACIOUS_BYTES = 512 << 20
"""... and what they take at least: smaller ones are soon needed again, and each time they grow is a copy."""


class Rows:
    """Rows of one width.

    `layout` changes whenever another request stands at some row, `allocation` whenever buffers lie
    elsewhere: as long as that doesn't, as many rows are the same views.
    """

    def __init__(self, manifest: Manifest, max_rows: int, width: int = 1, memory: Memory | None = None) -> None:
        self._manifest = manifest
        self._memory = memory or HostMemory()
        self._width = width
        self._max_requests = max_rows // width
        self._max_positions = _most_positions(manifest)
        self._capacity = min(max(FIRST_ROWS // width, 1), self._max_requests)
        self._positions = min(FIRST_POSITIONS, self._max_positions)
        # Every image makes as many positions, so its step has no mask, and they must not be padded.
        self._fixed_sources = manifest.fixed_positions
        self._sources = self._fixed_sources or SOURCE_BLOCK
        self.requests = 0
        self.folded = False
        """Whether one row stands for all of a request."""
        self.layout = self.allocation = 0
        self._token_ids = np.zeros((self._max_requests * width, 1), np.int64)
        self._row_length = np.zeros(self._max_requests * width, np.int32)
        self._reached = self._row_length.copy()  # where what was ever written to a row ends: behind it are zeros
        self._source_length = np.zeros(self._max_requests, np.int32)
        self._total_length = np.zeros((), np.int32)
        self._state = {spec.input: self._cache(spec) for spec in manifest.state if spec.kind == "kv"}
        self._recurrent = {spec.input: self._vectors(spec) for spec in manifest.state if spec.kind == "recurrent"}
        self._written = {name: vectors.copy() for name, vectors in self._recurrent.items()}
        self._cross = {spec.step_input: self._cross_buffer(spec) for spec in manifest.cross_state}
        self._prefilled = [spec.input for spec in manifest.state if spec.kind == "kv" and spec.first_output]

    @property
    def count(self) -> int:
        """How many rows are active."""
        return self.requests * self.per_request

    @property
    def per_request(self) -> int:
        """How many active rows a request has."""
        return 1 if self.folded else self._width

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
        """The source positions of each active request, int32 [requests]."""
        return self._source_length[: self.requests]

    @property
    def source_positions(self) -> int:
        """The positions that the cross-attention state of every request is padded to."""
        return self._sources

    def admit(self, encoded: Mapping[str, Tensor], source_length: int, first_token: int, cached: int = 0) -> int:
        """Append a request's rows and return the request's index.

        `encoded` maps a step's input to the request's cross-attention state [H, S, D], S at least
        `source_length`, to the array [D] that a recurrent state begins with, or to the state
        [H, S, D] whose first `cached` positions every row's cache begins with.
        """
        self._reserve_requests(self.requests + 1)
        self._reserve_sources(source_length)
        self._give_back_positions(cached)
        self._reserve_positions(cached)
        request = self.requests
        buffers, states = list(self._cross.values()), [encoded[name] for name in self._cross]
        self._memory.place(buffers, request, states, source_length, self._sources)
        rows = self._rows_of(request)
        if cached:
            caches, beginnings = ([owner[name] for name in self._prefilled] for owner in (self._state, encoded))
            for row in range(rows.start, rows.stop):
                self._memory.place(caches, row, beginnings, cached, int(self._reached[row]))
            self._reached[rows] = np.maximum(self._reached[rows], cached)
        for name, vectors in self._recurrent.items():
            vectors[rows] = encoded[name]
        self._token_ids[rows], self._row_length[rows], self._source_length[request] = first_token, cached, source_length
        self.requests += 1
        self.layout += 1
        return request

    def release(self, request: int, *, clear: bool = False) -> int | None:
        """Remove a request's rows and return the index of the request that moved into its place, if one did.

        `clear` wipes its cache, for a request whose numbers are not finite: they would spread
        through masked positions to the next one that is put there.
        """
        last = self.requests - 1
        rows, state, cross = self._rows_of(request), list(self._state.values()), list(self._cross.values())
        if clear:
            self._memory.clear(state, rows.start, self._width)
            self._memory.clear(cross, request, 1)
            for vectors in (*self._recurrent.values(), *self._written.values()):
                vectors[rows] = 0
        if request != last:
            moved = self._rows_of(last)
            longest = int(self._row_length[moved].max())
            self._memory.copy(state, [Move(moved.start, rows.start, self._width, longest)])
            self._memory.copy(cross, [Move(last, request, 1, self._sources)])
            self._reached[rows] = np.maximum(self._reached[rows], longest)
            per_row: list[Array] = [self._token_ids, self._row_length, *self._recurrent.values()]
            for vectors in per_row:
                vectors[rows] = vectors[moved]
            self._source_length[request] = self._source_length[last]
        self.requests = last
        self.layout += 1
        return last if request != last else None

    def fork(self, copies: Sequence[tuple[int, int, int, int]]) -> None:
        """Let rows go on from where others are: for each (request, source, target, unlike), `target` from `source`.

        Only the last `unlike` positions of the two are unlike.
        """
        moves, lengths = [], self._row_length.tolist()
        for request, source, target, unlike in copies:
            first = request * self._width
            length = self._row_length[first + target] = lengths[first + source]
            self._reached[first + target] = max(self._reached[first + target], length)
            if unlike:
                moves.append(Move(first + source, first + target, 1, length, length - unlike))
            for vectors in self._recurrent.values():
                vectors[first + target] = vectors[first + source]
        if moves:
            self._memory.copy(list(self._state.values()), moves)

    def fold(self) -> bool:
        """Let one row stand for all of a request until `unfold`, if nothing was read so far: they are alike.

        Return whether that is so. Until then nothing else may be done to the rows.
        """
        self.folded = self._width > 1 and not self.row_length.any()
        if self.folded:
            for vectors in (self._token_ids, *self._recurrent.values()):
                vectors[: self.requests] = vectors[: self.requests * self._width : self._width].copy()
            self.layout += 1
        return self.folded

    def unfold(self) -> None:
        """Give every row of a request what the one that stood for it has read and written."""
        moves = [
            Move(request, row, 1, 1)
            for request in reversed(range(self.requests))  # so that none is overwritten before it is copied
            for row in reversed(range(request * self._width, (request + 1) * self._width))
            if row != request
        ]
        self._memory.copy(list(self._state.values()), moves)
        for vectors in self._written.values():
            vectors[: self.requests * self._width] = np.repeat(vectors[: self.requests], self._width, axis=0)
        self.folded = False
        self.layout += 1

    def prepare(self) -> None:
        """Make room for one more position in every active row's cache.

        Raises `OutOfMemoryError` if there is none for requests that are `full`; the others have it.
        """
        longest = int(self.row_length.max()) + 1
        self._total_length[...] = longest
        self._reserve_positions(longest)
        np.maximum(self._reached[: self.count], self.row_length + 1, out=self._reached[: self.count])

    def full(self, request: int) -> bool:
        """Whether a request's next position has no room in its rows' caches."""
        return int(self._row_length[self._rows_of(request)].max()) >= self._positions

    def advance(self, token_ids: Array) -> None:
        """Note that every active row has one position more and feeds `token_ids` [count] next."""
        self._token_ids[: self.count, 0] = token_ids
        self._row_length[: self.count] += 1
        for name, vectors in self._recurrent.items():
            vectors[: self.count] = self._written[name][: self.count]

    def inputs(self) -> dict[str, Tensor]:
        """Return views of the active rows, by the names of the step's inputs."""
        views: dict[str, Tensor] = {
            "token_ids": self._token_ids[: self.count],
            "row_length": self.row_length,
            "total_length": self._total_length,
            "source_length": self.source_length,
        }
        views |= {name: buffer[: self.count] for name, buffer in self._state.items()}
        views |= {name: vectors[: self.count] for name, vectors in self._recurrent.items()}
        return views | {name: buffer[: self.requests] for name, buffer in self._cross.items()}

    def outputs(self) -> dict[str, Tensor]:
        """Return the views that a step writes its state to, by the names of its outputs."""
        buffers: dict[str, Tensor] = {**self._state, **self._written}
        return {spec.output: buffers[spec.input][: self.count] for spec in self._manifest.state}

    def _rows_of(self, request: int) -> slice:
        return slice(request * self._width, (request + 1) * self._width)

    def _cache(self, spec: StateSpec) -> Tensor:
        shape = (self._capacity * self._width, spec.heads, self._positions, spec.head_size)
        with _allocating():
            return self._memory.zeros(shape, spec.dtype)

    def _vectors(self, spec: StateSpec) -> Array:
        return np.zeros((self._max_requests * self._width, spec.head_size), numpy_dtype(spec.dtype))

    def _cross_buffer(self, spec: CrossStateSpec) -> Tensor:
        with _allocating():
            return self._memory.zeros((self._capacity, spec.heads, self._sources, spec.head_size), spec.dtype)

    def _reserve_requests(self, requests: int) -> None:
        if requests <= self._capacity:
            return
        capacity = min(max(2 * self._capacity, requests), self._max_requests)
        self._resize_caches(0, capacity * self._width)
        self._cross = self._resized(self._cross, 0, capacity, self.requests, self._sources)
        self._capacity = capacity

    def _reserve_positions(self, positions: int) -> None:
        if positions > self._positions:
            grown = min(max(2 * self._positions, positions), self._max_positions)
            self._resize_caches(2, grown)
            self._positions = grown

    def _give_back_positions(self, cached: int) -> None:
        """Let large caches be smaller if active rows, and one to come of `cached` positions, fill little of them."""
        needed = max(cached, int(self.row_length.max(initial=0)), FIRST_POSITIONS)
        if self._positions >= SPACIOUS * needed and sum(map(_bytes, self._state.values())) > SPACIOUS_BYTES:
            with suppress(OutOfMemoryError):  # there is room in those that there are
                self._resize_caches(2, 2 * needed)
                self._positions = 2 * needed

    def _resize_caches(self, axis: int, size: int) -> None:
        kept = int(self.row_length.max(initial=0)) + 1  # and what a step has written that didn't end well
        self._state = self._resized(self._state, axis, size, self.count, kept)
        self._reached[: self.count], self._reached[self.count :] = kept, 0

    def _reserve_sources(self, source_length: int) -> None:
        """Fit S to the longest of the active requests and the one to come."""
        longest = max(source_length, int(self.source_length.max(initial=0)))
        needed = self._fixed_sources or -(-longest // SOURCE_BLOCK) * SOURCE_BLOCK
        if self._sources < needed or self._sources >= 2 * needed:
            self._cross = self._resized(self._cross, 2, needed, self.requests, self._sources)
            self._sources = needed

    def _resized(
        self, buffers: Mapping[str, Tensor], axis: int, size: int, active: int, positions: int
    ) -> dict[str, Tensor]:
        """Return buffers of another size along one axis that keep what fits of the active entries' first positions."""
        with _allocating():
            resized = self._memory.resized(list(buffers.values()), axis, size, active, positions)
        self.layout += 1
        self.allocation += 1
        return dict(zip(buffers, resized, strict=True))


def _bytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def _most_positions(manifest: Manifest) -> int:
    """Return how many positions a row's cache may come to have; those of an image come before its text's."""
    before = manifest.image.positions if manifest.image and manifest.reader == "prefill" else 0
    return before + manifest.generation.max_target_tokens if manifest.generation else 0


@contextmanager
def _allocating() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError from error
