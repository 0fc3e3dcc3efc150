from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from regard.cli.demo.inputs import load_inputs
from regard.cli.demo.measures import AllAnswers, Answers, batch_sizes, row_sum_error, shapes
from regard.cli.demo.server import serving
from regard.cli.demo.summary import faults
from regard.client import Attention, AttentionMap, AttentionOptions, Client
from regard.errors import ConfigurationError
from regard.vision.picture import ImageLimits, read_picture

METRICS = """
# TYPE regard_run_rows histogram
regard_run_rows_bucket{graph="step",le="1.0",model="m",version="1"} 2.0
regard_run_rows_bucket{graph="step",le="2.0",model="m",version="1"} 2.0
regard_run_rows_bucket{graph="step",le="4.0",model="m",version="1"} 5.0
regard_run_rows_bucket{graph="step",le="8.0",model="m",version="1"} 6.0
regard_run_rows_bucket{graph="step",le="+Inf",model="m",version="1"} 7.0
regard_run_rows_count{graph="step",model="m",version="1"} 7.0
regard_run_rows_sum{graph="step",model="m",version="1"} 35.0
regard_run_rows_count{graph="step",model="other",version="1"} 9.0
"""


def attention(weights) -> Attention:
    """Return an attention of one map."""
    one = AttentionMap("self", "encoder", 3, (0,), "none", "source", "source", (), (), np.array(weights, np.float32))
    return Attention("token", (one,), "", "fp32")


@pytest.fixture
def answers(server) -> AllAnswers:
    """Answers in which all is well."""

    def twice(ask) -> Answers:
        plain, explained = [ask("hello there")], [ask("hello there", attention=AttentionOptions())]
        return Answers(plain, 1.0, explained, 1.0, explained, explained)

    with Client(server.target) as client:
        return AllAnswers(twice(client.translate), twice(client.translate), twice(client.classify))


def test_the_inputs_are_ten_and_five_and_five():
    """There are ten sentences and five scenes with references, some drawn, and utterances with one out of scope."""
    inputs = load_inputs()
    assert len({sentence.source for sentence in inputs.sentences}) == 10
    assert all(sentence.references for sentence in inputs.sentences)
    assert 2 <= sum(sentence.drawn for sentence in inputs.sentences) <= 3
    assert [read_picture(scene.image, ImageLimits(40_000, 192 * 192), "image").size for scene in inputs.scenes] == [
        (192, 192)
    ] * 5
    assert all(scene.references for scene in inputs.scenes)
    assert sum(scene.drawn for scene in inputs.scenes) == 2
    assert len(inputs.utterances) == 5
    assert sum(utterance.label == "oos" for utterance in inputs.utterances) == 1


def test_row_sums_are_measured():
    """The error is the largest distance of a row's sum from 1, and infinite where there is no number."""
    assert row_sum_error(attention([[[0.5, 0.5], [0.75, 0.5]]])) == 0.25
    assert row_sum_error(attention([[[0.5, 0.5], [np.nan, 0.5]]])) == float("inf")


def test_shapes_bear_the_names_of_their_layers():
    """A map's shape stands under its stack, kind and layer."""
    assert shapes(attention([[[1.0, 0.0]]])) == {"encoder.self.3": [1, 1, 2]}


def test_batch_sizes_come_from_the_histogram():
    """Cumulative buckets become the runs of each number of rows, of the model asked for."""
    assert batch_sizes(METRICS, "m") == {
        "step": {"runs": 7, "mean_rows": 5.0, "runs_by_rows": {"1": 2, "3-4": 3, "5-8": 1, "9 or more": 1}}
    }


def test_all_is_well(answers):
    """Answers that don't change with attention, and rows that sum to 1, are no fault."""
    assert answers.row_sum_error < 1e-6
    assert faults({"row_sum_error": 2e-7, "server_has_torch": False}, answers) == []


def test_faults_are_told(server, answers):
    """Every fault is told in a sentence."""
    with Client(server.target) as client:
        other = [client.translate("goodbye")]
    changed = replace(answers.translations, explained=other)
    found = faults(
        {"row_sum_error": float("nan"), "server_has_torch": True}, AllAnswers(changed, changed, answers.classifications)
    )
    assert [" ".join(sentence.split()[:2]) for sentence in found] == [
        "a row",
        "a translation",
        "a caption",
        "the server",
    ]


def test_a_server_that_cannot_start_says_why(tmp_path):
    """If the server ends before it serves, the last line of its log is the error."""
    with (
        pytest.raises(ConfigurationError, match=r"ended before it served: .*models"),
        serving(tmp_path / "nowhere", tmp_path / "log"),
    ):
        pytest.fail("a server runs without models")
