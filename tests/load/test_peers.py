from __future__ import annotations

import asyncio
import json
import statistics
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from load_tests.peers import results
from load_tests.peers.apart import Apart, Within
from load_tests.peers.checkpoints import dummy_tokenizer
from load_tests.peers.contestants.service import Service
from load_tests.peers.curves import Curve, Point, draw
from load_tests.peers.hosting import Host
from load_tests.peers.loads import OK, Asked, Load, closed, opened
from load_tests.peers.memory import GROWTH_BAR, growth, processor_s
from load_tests.peers.products import Run, optimised, products_of, session_options
from load_tests.peers.profile import gathered, operators_ms
from load_tests.peers.rates import best, ratios, rotated, tokens_per_second
from load_tests.peers.refusing import Refusing
from load_tests.peers.results import Figure
from load_tests.peers.sources import Source, longest_first, random_sources, skewed_lengths, uniform_lengths
from load_tests.peers.throttling import REFUSED, throttling


class Echo:
    """A contestant that gives what is asked for, and one token more of texts that say so."""

    def __init__(self, name: str) -> None:
        self.name = name

    def translate(self, sources: list[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Tell the lengths."""
        print("a library's chatter")
        return [source.target_tokens + ("more" in source.text) for source in sources]

    def peak_bytes(self) -> int:
        """Tell what it takes."""
        return 7

    def close(self) -> None:
        """Hold nothing."""


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory) -> Path:
    """A tokenizer of words that are one token each."""
    dummy_tokenizer(200).save_pretrained(directory := tmp_path_factory.mktemp("tokenizer"))
    return directory / "tokenizer.json"


def test_uniform_lengths_span_the_whole_range():
    """Sources have 10 to 40 tokens, evenly spread, and 32 are asked of each."""
    lengths = uniform_lengths(31)
    assert [length.source for length in lengths] == list(range(10, 41))
    assert {length.target for length in lengths} == {32}


def test_skewed_lengths_are_log_normal_within_their_limits():
    """Lengths are from 5 to 200 with a long tail, a translation's is near its source's, and a seed repeats them."""
    lengths = skewed_lengths(4000, 3)
    assert lengths == skewed_lengths(4000, 3) != skewed_lengths(4000, 4)
    for tokens in ([length.source for length in lengths], [length.target for length in lengths]):
        assert min(tokens) >= 5 and max(tokens) <= 200
        assert statistics.median(tokens) == pytest.approx(30, rel=0.1)
        assert statistics.fmean(tokens) > 1.15 * statistics.median(tokens)
        assert np.log(tokens).std() == pytest.approx(0.7, abs=0.1)
    logs = [(np.log(length.source), np.log(length.target)) for length in lengths]
    assert np.corrcoef(np.transpose(logs))[0, 1] > 0.9


def test_sources_encode_to_the_lengths_that_were_asked(tokenizer_file):
    """Every text encodes to as many tokens as its length says, and carries what is to come of it."""
    lengths = skewed_lengths(50, 1)
    sources = random_sources(tokenizer_file, lengths, 5)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    told = sorted((len(tokenizer.encode(source.text).ids), source.target_tokens) for source in sources)
    assert told == sorted((length.source, length.target) for length in lengths)
    ordered = [len(source.token_ids) for source in longest_first(sources)]
    assert ordered == sorted(ordered, reverse=True)


def test_a_wrong_length_is_no_measurement(tokenizer_file):
    """A contestant that gives another number of tokens than was asked isn't timed."""
    source = random_sources(tokenizer_file, uniform_lengths(1), 5)[0]
    assert tokens_per_second(Echo("echo"), [source], 1) > 0
    with pytest.raises(ValueError, match="echo gave 33 tokens for a source that asks for 32"):
        tokens_per_second(Echo("echo"), [Source("more", source.token_ids, source.tokens)], 1)


def test_every_contestant_comes_first_in_turn():
    """Rounds begin with one after the other, and none is left out."""
    assert [rotated("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_the_best_setting_is_taken_by_its_median():
    """One lucky round doesn't make a setting the best, and ratios are of rounds that both had."""
    rates = {"peer 1x2": [10.0, 10.0, 99.0], "peer 2x1": [11.0, 12.0, 11.0], "engine 1x2": [50.0]}
    assert best(rates, "peer") == [11.0, 12.0, 11.0]
    assert ratios([22.0, 24.0, 33.0], [11.0, 12.0]) == [2.0, 2.0]


def test_a_contestant_apart_answers_as_if_it_were_here(tokenizer_file):
    """What it prints doesn't disturb its answers, and what goes wrong with it is told."""
    contestant = Apart(partial(Echo, "far"))
    sources = random_sources(tokenizer_file, uniform_lengths(3), 5)
    assert (contestant.name, contestant.peak_bytes()) == ("far", 7)
    assert contestant.translate(sources, 2) == [32, 32, 32]
    with pytest.raises(RuntimeError, match="TypeError"):
        contestant.translate(5, 1)
    contestant.close()


def test_a_service_s_engine_is_asked_in_its_server(packages, tmp_path):
    """With or without a call the same engine gives what was asked for; the server ends when nothing more is asked."""
    (tmp_path / "demo-en-fr").symlink_to(packages / "demo-en-fr")
    service = Apart(partial(Service, tmp_path, instances=2, threads=1))
    engine, sources = Within(service), random_sources(packages / "demo-en-fr/1/tokenizer.json", uniform_lengths(6), 5)
    assert (service.name, engine.name) == ("service 2x1", "engine 2x1")
    assert service.translate(sources, 3) == engine.translate(sources, 3) == [32] * 6
    assert engine.peak_bytes() == service.peak_bytes() > 2**24
    service.close()


def test_a_server_that_cant_host_is_told(tmp_path):
    """A directory without a model ends the process before it serves."""
    with pytest.raises(RuntimeError, match="the server ended with 1"):
        Host(tmp_path, instances=1, threads=1)


def test_memory_that_every_request_keeps_shows_as_growth():
    """Two KiB a request, of 30,000, are above the bar; a plateau on which batches come and go is not."""
    chance = np.random.default_rng(1)
    asked = np.arange(250, 30_001, 250)
    plateau = chance.uniform(260, 340, len(asked)) * 2**20
    assert abs(growth(plateau)) < GROWTH_BAR
    assert growth(plateau + 2048 * asked) > GROWTH_BAR


async def test_the_least_server_refuses_and_its_processor_time_is_told():
    """Every call ends as a full queue would end it, and costs that process something, but no 50 ms."""
    server = Refusing()
    try:
        async with server.line() as line:
            before_s = processor_s(server.pid)
            load = await closed(line.ask, [(b"{}", 1)] * 200, callers=4)
            assert load.outcomes == {"RESOURCE_EXHAUSTED": 200}
            assert 0 < (processor_s(server.pid) - before_s) / 200 < 0.05
    finally:
        server.stop()


def test_one_part_leaves_the_rows_of_the_others(tmp_path, monkeypatch):
    """Writing a part again replaces its own rows and no others."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    results.write("peers", [Figure("step, a", "ms", [1.0]), Figure("profile, b", "ms", [2.0])])
    file = results.write("peers", [Figure("step, c", "ms", [3.0])], replacing="step,")
    assert [row["name"] for row in json.loads(file.read_text())["rows"]] == ["profile, b", "step, c"]


def graph() -> onnx.ModelProto:
    """Two products by weights, with a bias and an activation between them."""
    chance = np.random.default_rng(1)
    shapes = {"first": (6, 5), "bias": (5,), "second": (5, 4)}
    weights = [
        numpy_helper.from_array(chance.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Add", ["a", "bias"], ["b"]),
        helper.make_node("Tanh", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "second"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1, 6])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1, 4])]
    made = helper.make_graph(nodes, "two", inputs, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_products_alone_are_the_graphs_own(tmp_path):
    """As many products are cut out as the optimised graph has, of the same inputs, and with the same results."""
    onnx.save(graph(), tmp_path / "two.onnx")
    model = optimised(tmp_path / "two.onnx")
    x = np.random.default_rng(2).standard_normal((3, 1, 6)).astype(np.float32)
    y = np.zeros((3, 1, 4), np.float32)
    products = products_of(model, 1, {"x": x}, {"y": y})
    assert [node.op_type for node in products.model.graph.node] == ["MatMul", "MatMul"]
    assert [array.shape for array in products.feeds.values()] == [(3, 1, 6), (3, 1, 5)]
    run = Run(products.model.SerializeToString(), session_options(1), products.feeds, {}, products.outputs)
    run()
    whole = Run(tmp_path / "two.onnx", session_options(1), {"x": x}, {"y": y})
    whole()
    np.testing.assert_allclose(run.fetched()[1], y, rtol=1e-6)


def test_a_profile_sums_kernels_by_operator():
    """Only kernels count, a branch's once, each run has its part, and what takes little is told together."""
    kernels = [("MatMul", 600), ("If", 390), ("MatMul", 380), ("Gather", 8), ("Cast", 12)]
    events = [
        {"cat": "Node", "name": f"n{n}_kernel_time", "dur": duration, "args": {"op_name": operator}}
        for n, (operator, duration) in enumerate(kernels)
    ]
    events += [{"cat": "Session", "name": "model_run", "dur": 9999}, {"cat": "Node", "name": "n0_fence", "dur": 9}]
    spent = operators_ms(events, 2)
    assert spent == {"MatMul": 0.49, "Cast": 0.006, "Gather": 0.004}
    assert gathered(spent) == {"MatMul": 0.49, "Cast": 0.006, "all other operators": 0.004}


async def test_callers_of_a_closed_loop_wait_for_their_answers():
    """Never more requests are under way than there are callers, and each request is asked once."""
    under_way, most, asked = 0, 0, []

    async def ask(request: int) -> str:
        nonlocal under_way, most
        asked.append(request)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return OK

    load = await closed(ask, range(20), callers=3)
    assert (most, asked, load.outcomes) == (3, list(range(20)), {OK: 20})


async def test_requests_of_an_open_loop_wait_for_nobody():
    """All requests are sent though none is answered before the last, and their waits count from when each was due."""
    sent: list[int] = []
    answered = asyncio.Event()

    async def ask(request: int) -> str:
        sent.append(request)
        if len(sent) == 30:
            answered.set()
        await answered.wait()
        return OK

    load = await opened(ask, range(7), rate_per_s=5000.0, seconds=0.05, seed=3)
    assert len(load.asked) == len(sent) > 100
    assert sent[:8] == [0, 1, 2, 3, 4, 5, 6, 0]
    dues = sorted(one.due_s for one in load.asked)
    assert dues[0] >= 0 and dues[-1] < 0.05
    assert all(one.latency_s >= 0 for one in load.asked)


def test_a_load_is_told_by_what_was_answered_within_it():
    """Refusals and late answers are no throughput, a refusal is no answer, and what wasn't offered isn't missed."""
    asked = [Asked(0.1 * number, 0.1 * number + 0.5, OK) for number in range(20)]
    load = Load(2.0, [*asked, Asked(0.0, 0.001, "REFUSED"), Asked(0.0, 0.003, "REFUSED")])
    assert load.outcomes == {OK: 20, "REFUSED": 2}
    assert load.answered_per_s() == 7.5
    assert load.answered_per_s(after_s=1.0) == 10.0
    assert load.latency_ms(0.99) == pytest.approx(500)
    assert load.latency_ms(0.5, "REFUSED") == pytest.approx(2)
    assert load.latency_ms(0.5, "LOST") == float("inf")
    assert load.held(40.0, after_s=1.0) == 1.0
    assert load.held(8.0, after_s=1.0) == 1.25


def test_the_picture_has_every_point_of_every_curve():
    """Each load of each server is a dot for what it answers, its median and its 99th percentile."""
    points = [Point(load, load, 10 * load, 30 * load) for load in (1.0, 2.0, 3.0)]
    picture = ET.fromstring(draw([Curve("regard", points), Curve("peer", points[:2])], "Here."))
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}circle"))) == 3 * (3 + 2)
    words = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"regard", "peer", "Here."} <= set(words)


async def test_callers_who_throttle_ask_less_of_a_server_that_refuses() -> None:
    """And as much as ever of one that answers."""
    asked: list[str] = []

    async def refuse(request: str) -> str:
        asked.append(request)
        return REFUSED

    async def answer(request: str) -> str:
        asked.append(request)
        return OK

    ask = throttling(refuse)
    assert {await ask("a") for _ in range(500)} == {REFUSED}
    assert 10 < len(asked) < 250
    asked.clear()
    ask = throttling(answer)
    assert {await ask("a") for _ in range(500)} == {OK}
    assert len(asked) == 500
