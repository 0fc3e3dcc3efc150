"""Interventions in the engine: packed for a graph, and run apart from plain requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event as ThreadEvent
from types import MappingProxyType

import numpy as np

from regard.engine.generator import Generator
from regard.engine.interventions import LayerIntervention, concerns, knocked_out, pack_interventions
from regard.engine.observer import SilentObserver
from regard.engine.request import Event, GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions
from regard.engine.session import OnFirstUse, Session
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket
from regard.errors import RegardError
from regard.testing import END, FakeSession, echo_encoder, echo_package, echo_step

from .packages import taps_of
from .test_engine_generator import Bench

MANIFEST = echo_package().manifest
ENCODER, STEP_SELF, CROSS = MANIFEST.taps
GIVEN = ("head_gate", "bias", "bias_index")


def twin(session: FakeSession) -> FakeSession:
    """Return the same graph with inputs for interventions, which it ignores and keeps in `calls`."""
    inputs = [f"{kind}_{name}" for kind in ("self", "cross") for name in GIVEN]
    return FakeSession(session._compute, [*session.inputs, *inputs])


def test_biases_are_padded_and_fed_once_for_all_heads_that_share_them() -> None:
    """Place 0 adds nothing; another request's bias has a place of its own; gates are open but where they are shut."""
    taps = taps_of("encoder", "self", "encoder", [2, 2])
    manifest = MANIFEST.model_copy(update={"taps": [*taps, CROSS]})
    near = np.full((2, 2), -1, np.float32)
    far = np.full((3, 3), 2, np.float32)
    gates = np.array([1, 0], np.float32)
    requests = [
        {taps[0].name: LayerIntervention(gates, [near, None]), taps[1].name: LayerIntervention(gates, [near, near])},
        {},
        {taps[1].name: LayerIntervention(np.ones(2, np.float32), [None, far])},
    ]
    feeds = pack_interventions(manifest, "encoder", requests, 3)

    assert feeds["self_head_gate"].tolist() == [[[1, 0], [1, 1], [1, 1]], [[1, 0], [1, 1], [1, 1]]]
    assert feeds["self_bias_index"].tolist() == [[[1, 0], [0, 0], [0, 0]], [[1, 1], [0, 0], [0, 2]]]
    assert feeds["self_bias"].shape == (3, 3, 3)
    assert feeds["self_bias"][1].tolist() == [[-1, -1, 0], [-1, -1, 0], [0, 0, 0]]
    assert not feeds["self_bias"][0].any()


def test_every_hypothesis_of_a_request_has_its_interventions() -> None:
    """In a step they are of rows, of which each request has as many as hypotheses."""
    feeds = pack_interventions(MANIFEST, "step", [knocked_out([CROSS], [1]), {}], 4, hypotheses=3)

    assert feeds["cross_head_gate"].tolist() == [[[1, 0]] * 3 + [[1, 1]] * 3]
    assert feeds["cross_bias"].shape == (1, 1, 4)
    assert feeds["self_head_gate"].tolist() == [[[1, 1]] * 6]


def test_a_layer_can_lose_all_its_heads() -> None:
    """No heads named are all."""
    assert knocked_out([CROSS])["decoder.cross.0"].gates.tolist() == [0, 0]


def test_requests_that_intervene_run_apart_and_only_in_the_graphs_that_they_change() -> None:
    """A changed encoder's request decodes beside the plain one; a changed step's encodes beside it."""
    bench = Bench()
    changed = {"encoder": twin(echo_encoder()), "step": twin(echo_step())}
    bench.engine = Generator(
        bench.package.manifest,
        bench.encoder,
        bench.steps,
        bench.scheduler,
        bench.settings,
        bench.clock,
        SilentObserver(),
        MappingProxyType(changed),
    )
    heard: list[list[Event | RegardError]] = [[], [], []]
    for interventions, answers in zip(({}, knocked_out([ENCODER]), knocked_out([CROSS], [1])), heard, strict=True):
        request = GenerateRequest(
            Tokens(np.array([5, 6, 7, END])), GenerationOptions(max_new_tokens=9), interventions=interventions
        )
        bench.scheduler.submit(Ticket(request, answers.append, 0.0))
    bench.run()

    for (result,) in heard:
        assert isinstance(result, Generation)
        assert result.best.token_ids == [5, 6, 7, END]
    assert [len(call["input_ids"]) for call in bench.encoder.calls] == [2]
    assert [call["self_head_gate"].tolist() for call in changed["encoder"].calls] == [[[[0, 0]]]]
    assert {len(call["token_ids"]) for call in bench.steps.calls} == {2}
    assert [call["cross_head_gate"].tolist() for call in changed["step"].calls] == [[[[1, 0]]]] * 4
    assert list(bench.engine.lanes) == [(1, False), (1, True)]
    assert concerns(bench.package.manifest, "step", knocked_out([CROSS]))
    assert not concerns(bench.package.manifest, "step", knocked_out([ENCODER]))


def test_a_graph_on_first_use_is_loaded_once() -> None:
    """A thread that comes for it while another loads it gets the same graph; before, nobody has loaded it."""
    loaded: list[Session] = []
    loading, asked = ThreadEvent(), ThreadEvent()

    def load() -> Session:
        loaded.append(echo_encoder())
        loading.set()
        assert asked.wait(timeout=30)
        return loaded[-1]

    graph = OnFirstUse(load)

    def ask_too() -> Session:
        assert loading.wait(timeout=30)
        asked.set()
        return graph.load()

    assert loaded == []
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.submit(graph.load), threads.submit(ask_too)
    assert len(loaded) == 1
    assert first.result() is second.result() is loaded[0]
    assert graph.inputs == echo_encoder().inputs
