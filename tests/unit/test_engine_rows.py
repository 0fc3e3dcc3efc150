"""The rows' buffers: what is kept, moved and cleared as they grow and shrink."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest

from regard.engine.memory import HostMemory
from regard.engine.rows import FIRST_POSITIONS, Rows
from regard.testing import HEADS, echo_package

from .packages import IMAGE


def admit(rows: Rows, value: float, length: int) -> int:
    """Admit a row whose cross-attention state is `value` everywhere."""
    return rows.admit({"cross_key.0": np.full((HEADS, length, 1), value, np.float32)}, length, first_token=0)


def test_rows_grow_past_their_first_blocks_and_keep_their_state() -> None:
    """Twenty rows of forty positions each still hold what was written when there were eight of 32."""
    rows = Rows(echo_package().manifest, max_rows=20)
    for index in range(20):
        assert admit(rows, index, 3) == index
        rows.inputs()["past_key.0"][index] = index
    for _ in range(FIRST_POSITIONS + 8):
        rows.prepare()
        rows.advance(np.zeros(20, np.int64))
    cache = rows.inputs()["past_key.0"]
    assert cache.shape[2] > FIRST_POSITIONS
    assert cache[:, 0, 0, 0].tolist() == list(range(20))
    assert rows.inputs()["cross_key.0"][:, 0, 0, 0].tolist() == list(range(20))


def test_a_freed_row_is_filled_by_the_last() -> None:
    """Its cache, source and lengths come along, and the caller is told which row moved."""
    rows = Rows(echo_package().manifest, max_rows=4)
    for index in range(3):
        admit(rows, index + 1, index + 2)
    rows.inputs()["past_key.0"][2] = 9
    rows.prepare()
    rows.advance(np.array([10, 11, 12]))
    assert rows.release(0) == 2
    assert rows.token_ids.tolist() == [12, 11]
    assert rows.source_length.tolist() == [4, 3]
    assert rows.inputs()["past_key.0"][0, 0, 0, 0] == 9
    assert rows.inputs()["cross_key.0"][0, 0, :, 0].tolist() == [3] * 4 + [0] * 4
    assert rows.release(1) is None


def test_source_positions_fit_the_longest_row() -> None:
    """The cross-attention buffers widen for a long source and narrow again when it has left."""
    rows = Rows(echo_package().manifest, max_rows=4)
    admit(rows, 1, 3)
    admit(rows, 2, 60)
    assert rows.inputs()["cross_key.0"].shape[2] == 64
    rows.release(1)
    admit(rows, 3, 4)
    assert rows.inputs()["cross_key.0"].shape[2] == 8
    assert rows.inputs()["cross_key.0"][0, 0, :, 0].tolist() == [1] * 3 + [0] * 5


def test_the_positions_of_an_image_are_not_padded() -> None:
    """There are as many of every image, and no mask would keep a step from looking at others."""
    rows = Rows(echo_package().manifest.model_copy(update={"image": IMAGE}), max_rows=4)
    admit(rows, 1, IMAGE.positions)
    assert rows.inputs()["cross_key.0"].shape[2] == IMAGE.positions == 7
    rows.release(0)
    admit(rows, 2, IMAGE.positions)
    assert rows.inputs()["cross_key.0"].shape[2] == IMAGE.positions


def test_nothing_of_the_former_request_is_left_beyond_the_source() -> None:
    """A short source in the place of a long one is followed by zeros, not by the other's state."""
    rows = Rows(echo_package().manifest, max_rows=2)
    admit(rows, np.nan, 8)
    rows.release(0)
    admit(rows, 1, 2)
    assert rows.inputs()["cross_key.0"][0, 0, :, 0].tolist() == [1, 1] + [0] * 6


def read_prompts(rows: int) -> Rows:
    """Return rows whose caches begin with what a prefill gave."""
    manifest = echo_package().manifest
    state = tuple(spec.model_copy(update={"first_output": spec.output}) for spec in manifest.state)
    text = manifest.generation and manifest.generation.model_copy(update={"max_target_tokens": 4096})
    changed = {"state": state, "cross_state": (), "generation": text}
    return Rows(manifest.model_copy(update=changed), max_rows=rows)


def admit_prompt(rows: Rows, value: float, cached: int) -> int:
    """Admit a row whose cache begins with `cached` positions of `value`."""
    names = [name for name in rows.inputs() if name.startswith("past_")]
    return rows.admit({name: np.full((HEADS, cached, 1), value, np.float32) for name in names}, 1, 0, cached)


def test_nothing_of_the_former_request_is_left_beyond_the_prompt() -> None:
    """Neither of its prompt nor of what it wrote itself, in its own row or in the one that moved there."""
    rows = read_prompts(4)
    for length in (40, 20, 30):
        admit_prompt(rows, np.nan, length)
    for _ in range(3):
        rows.prepare()
        rows.inputs()["past_key.0"][np.arange(3), :, rows.row_length] = np.nan
        rows.advance(np.zeros(3, np.int64))
    for request in (1, 0, 0):
        rows.release(request)
    for request in range(3):
        admit_prompt(rows, request + 1, 5)
        cache = rows.inputs()["past_key.0"][request, 0, :, 0]
        assert cache.tolist() == [request + 1] * 5 + [0] * (len(cache) - 5)


def test_large_caches_become_smaller_when_long_texts_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as another comes, and not while one of them is there; what stays is copied."""
    monkeypatch.setattr("regard.engine.rows.SPACIOUS_BYTES", 0)
    rows = read_prompts(8)
    admit_prompt(rows, 1, 2000)
    admit_prompt(rows, 2, 7)
    assert rows.inputs()["past_key.0"].shape[2] == 2000
    assert rows.release(0) == 1
    admit_prompt(rows, 3, 9)
    cache = rows.inputs()["past_key.0"]
    assert cache.shape[2] == 2 * FIRST_POSITIONS
    assert cache[0, 0, :7, 0].tolist() == [2] * 7
    assert cache[1, 0, :10, 0].tolist() == [3] * 9 + [0]


def test_large_caches_stay_where_there_is_no_memory_for_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes finds room in them."""
    monkeypatch.setattr("regard.engine.rows.SPACIOUS_BYTES", 0)
    rows = read_prompts(8)
    admit_prompt(rows, 1, 2000)
    rows.release(0)
    with monkeypatch.context() as scarce:
        scarce.setattr(HostMemory, "resized", Mock(side_effect=MemoryError))
        admit_prompt(rows, 2, 7)
    cache = rows.inputs()["past_key.0"]
    assert cache.shape[2] == 2000
    assert cache[0, 0, :, 0].tolist() == [2] * 7 + [0] * 1993


def test_small_caches_stay_as_they_are() -> None:
    """They are soon needed again, and each time that they grow is a copy."""
    rows = read_prompts(8)
    admit_prompt(rows, 1, 2000)
    rows.release(0)
    admit_prompt(rows, 2, 7)
    assert rows.inputs()["past_key.0"].shape[2] == 2000


def test_a_request_has_as_many_rows_as_it_is_wide() -> None:
    """Two requests of three rows hold six caches and two sources; the one that is left moves as a whole."""
    rows = Rows(echo_package().manifest, max_rows=8, width=3)
    for index in range(2):
        admit(rows, index + 1, index + 2)
    rows.inputs()["past_key.0"][:, 0, 0, 0] = range(6)
    rows.prepare()
    rows.advance(np.arange(10, 16))
    assert rows.count == 6
    assert rows.inputs()["cross_key.0"].shape[0] == rows.source_length.shape[0] == 2
    assert rows.release(0) == 1
    assert rows.inputs()["past_key.0"][:, 0, 0, 0].tolist() == [3, 4, 5]
    assert rows.token_ids.tolist() == [13, 14, 15]
    assert rows.source_length.tolist() == [3]


def test_a_fork_copies_one_rows_state_and_leaves_the_rest() -> None:
    """The second request's third row takes over its first row's cache; nobody else's changes."""
    rows = Rows(echo_package().manifest, max_rows=8, width=3)
    for _ in range(2):
        admit(rows, 1, 2)
    rows.inputs()["past_key.0"][:, 0, 0, 0] = range(6)
    rows.prepare()
    rows.advance(np.zeros(6, np.int64))
    rows.fork([(1, 0, 2, 1)])
    assert rows.inputs()["past_key.0"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3]


def test_a_fork_copies_only_where_the_two_are_unlike() -> None:
    """Of four positions the last two: those before stay what they were, and what is behind them too."""
    rows = Rows(echo_package().manifest, max_rows=2, width=2)
    admit(rows, 1, 2)
    for _ in range(4):
        rows.prepare()
        rows.advance(np.zeros(2, np.int64))
    rows.inputs()["past_key.0"][0] = 5
    rows.fork([(0, 0, 1, 2)])
    assert rows.inputs()["past_key.0"][1, 0, :6, 0].tolist() == [0, 0, 5, 5, 0, 0]


def test_active_rows_are_views() -> None:
    """What a step writes through its output is what the next one reads: nothing is copied."""
    rows = Rows(echo_package().manifest, max_rows=2)
    admit(rows, 1, 2)
    assert np.shares_memory(rows.outputs()["present_key.0"], rows.inputs()["past_key.0"])
