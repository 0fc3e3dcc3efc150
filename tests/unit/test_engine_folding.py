"""Rows that are alike, as those of a request are before anything was read, and the one that stands for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from regard.engine.observer import SilentObserver
from regard.engine.request import Generation
from regard.engine.rows import Rows
from regard.manifest import StateSpec
from regard.testing import END, HEADS, PAD, echo_package

from .test_engine_generator import Bench


class Ran(SilentObserver):
    """Keeps how many rows each step ran."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def ran(self, graph: str, rows: int, tokens: int, seconds: float) -> None:
        """Note a run."""
        if graph == "step":
            self.steps.append(rows)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "num_return_sequences": 3},
        {"do_sample": True, "top_k": 1, "seed": 4, "num_return_sequences": 3},
    ],
    ids=["beams", "samples"],
)
def test_the_first_step_runs_one_row_for_a_request(options: dict[str, Any]) -> None:
    """Two requests of three rows begin with two; all rows come from there on, and each has its own echo."""
    bench = Bench(max_rows=9)
    bench.engine._observer = ran = Ran()
    sources = [[5, 6, 7, 8], [9, 10]]
    answers = [bench.submit(source, **options)[1] for source in sources]
    bench.engine.step()
    bench.engine.step()
    shapes = [(len(call["token_ids"]), len(call["cross_key.0"])) for call in bench.steps.calls]
    assert shapes == [(2, 2), (6, 2)]
    assert ran.steps == [2, 6]
    bench.run()
    for source, (result,) in zip(sources, answers, strict=True):
        assert isinstance(result, Generation)
        assert result.best.token_ids == [*source, END]
        assert len(result.sequences) == 3


def test_who_joins_others_brings_all_rows() -> None:
    """There is a step to be run for those anyway: another one, of fewer rows, would only be added."""
    bench = Bench(max_rows=9)
    bench.submit([5] * 9, num_beams=3)
    bench.engine.step()
    _, late = bench.submit([6] * 3, num_beams=3)
    bench.engine.step()
    assert [len(call["token_ids"]) for call in bench.steps.calls] == [1, 6]
    bench.run()
    assert isinstance(late[0], Generation) and late[0].best.token_ids == [6, 6, 6, END]


def test_every_row_has_what_the_one_was_asked_for() -> None:
    """Weights and likeliest tokens of the first step are in all sequences."""
    bench = Bench(max_rows=9)
    _, heard = bench.submit(
        [5, 6],
        do_sample=True,
        seed=4,
        num_return_sequences=3,
        top_logprobs=2,
        taps=frozenset({"decoder.self.0", "decoder.cross.0"}),
    )
    bench.run()
    (result,) = heard
    assert isinstance(result, Generation)
    for sequence in result.sequences:
        length = len(sequence.token_ids)
        assert len(sequence.top_logprobs) == length
        assert sequence.taps["decoder.self.0"].shape == (HEADS, length, length)
        assert sequence.taps["decoder.cross.0"].shape == (HEADS, length, 3)
        assert sequence.top_logprobs[0] == result.best.top_logprobs[0]
        assert (sequence.taps["decoder.cross.0"][:, 0] == result.best.taps["decoder.cross.0"][:, 0]).all()
        assert sequence.taps["decoder.self.0"][:, 0].any()


def test_one_row_in_the_place_of_many_does_not_screen() -> None:
    """Beams are ranked by scores that a lone row's graph may round otherwise."""
    bench = Bench()
    bench.steps.inputs |= {"num_screened"}
    bench.submit([5, 6], num_beams=2)
    bench.engine.step()
    bench.submit([5, 6])
    bench.engine.step()
    screened = {len(call["token_ids"]): call["num_screened"].tolist() for call in bench.steps.calls}
    assert len(bench.steps.calls) == 3
    assert bench.steps.calls[0]["num_screened"].tolist() == [0]
    assert screened[1] == [32]


def test_folded_rows_are_laid_out_again() -> None:
    """Tokens, caches and recurrent state: what one row read and wrote is every row's, and no other request's."""
    manifest = echo_package().manifest
    recurrent = StateSpec(
        input="past_state.0", output="present_state.0", kind="recurrent", dtype="float", heads=1, head_size=2
    )
    rows = Rows(manifest.model_copy(update={"state": [*manifest.state, recurrent]}), max_rows=9, width=3)
    for index in range(3):
        begin = np.full(2, 10.0 * index, np.float32)
        rows.admit({"cross_key.0": np.ones((HEADS, 2, 1), np.float32), "past_state.0": begin}, 2, first_token=index)
    rows.prepare()
    assert rows.fold()
    inputs = rows.inputs()
    assert rows.count == rows.per_request * 3 == 3
    assert inputs["token_ids"][:, 0].tolist() == [0, 1, 2]
    assert inputs["past_state.0"].tolist() == [[0, 0], [10, 10], [20, 20]]
    inputs["past_key.0"][:, :, 0, 0] = np.array([[7], [8], [9]])
    rows.outputs()["present_state.0"][:] = inputs["past_state.0"] + 1
    rows.unfold()
    rows.advance(np.arange(20, 29))
    inputs = rows.inputs()
    assert rows.count == 9
    assert rows.token_ids.tolist() == list(range(20, 29))
    assert rows.row_length.tolist() == [1] * 9
    assert inputs["past_key.0"][:, 0, 0, 0].tolist() == [7] * 3 + [8] * 3 + [9] * 3
    assert inputs["past_state.0"][:, 0].tolist() == [1] * 3 + [11] * 3 + [21] * 3
    rows.prepare()
    assert not rows.fold()


def test_a_request_of_one_row_is_not_folded() -> None:
    """Nothing stands for anything there."""
    rows = Rows(echo_package().manifest, max_rows=2)
    rows.admit({"cross_key.0": np.ones((HEADS, 2, 1), np.float32)}, 2, first_token=PAD)
    assert not rows.fold()
