"""The generation engine on the echo translator, one `step()` at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import pytest

from regard.config import EngineSettings
from regard.engine.generator import Generator
from regard.engine.memory import HostMemory, Tensor
from regard.engine.observer import SilentObserver
from regard.engine.request import Event, FinishReason, GenerateRequest, Generation, TapBudget, TokenEvent
from regard.engine.scheduler import Scheduler
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket
from regard.errors import (
    DeadlineExceededError,
    EngineError,
    InvalidInputError,
    OutOfMemoryError,
    QueueFullError,
    RegardError,
    RequestCancelledError,
)
from regard.testing import END, HEADS, VOCABULARY, FakeClock, FakeSession, echo_encoder, echo_package, echo_step


class Bench:
    """An engine of echo sessions, and what its callers have heard."""

    def __init__(self, **settings: Any) -> None:
        self.settings = EngineSettings(**{"max_rows": 4} | settings)
        self.clock = FakeClock()
        self.encoder, self.steps = echo_encoder(), echo_step()
        self.scheduler = Scheduler(self.settings)
        self.package = echo_package()
        self.engine = Generator(
            self.package.manifest,
            self.encoder,
            self.steps,
            self.scheduler,
            self.settings,
            self.clock,
            SilentObserver(),
        )

    def submit(self, source: list[int], **options: Any) -> tuple[Ticket, list[Event | RegardError]]:
        """Queue a request; the list fills with what its caller hears."""
        heard: list[Event | RegardError] = []
        given = ("taps", "tap_budget", "deadline", "streaming")
        fields = {name: options.pop(name) for name in given if name in options}
        searched = GenerationOptions(**{"max_new_tokens": 64} | options)
        request = GenerateRequest(Tokens(np.array([*source, END])), searched, **fields)
        ticket = Ticket(request, heard.append, self.clock())
        self.scheduler.submit(ticket)
        return ticket, heard

    def run(self, steps: int = 500) -> None:
        """Step until nothing is left to do."""
        for _ in range(steps):
            if not self.engine.busy and not self.scheduler.waiting:
                return
            self.engine.step()
        raise AssertionError("the engine did not come to rest")


def sources(count: int, longest: int = 50) -> list[list[int]]:
    """Return token sequences of random lengths."""
    random = np.random.default_rng(0)
    return [random.integers(3, 99, random.integers(1, longest)).tolist() for _ in range(count)]


def test_rows_that_come_and_go_never_mix() -> None:
    """Thirty requests of all lengths, over four rows that are moved and reused, each get their own echo."""
    bench = Bench()
    asked = sources(30)
    answers = [bench.submit(source)[1] for source in asked]
    bench.run()
    for source, heard in zip(asked, answers, strict=True):
        (result,) = heard
        assert isinstance(result, Generation)
        assert result.best.token_ids == [*source, END]
        assert result.best.finish_reason is FinishReason.END_OF_SENTENCE
        assert sum(result.best.log_probabilities) == 0
    assert bench.scheduler.running == 0


def test_a_request_joins_the_running_batch() -> None:
    """A request that comes late decodes beside the one that runs, from its own first position."""
    bench = Bench()
    bench.submit([5, 6, 7, 8, 9])
    bench.engine.step()
    bench.engine.step()
    bench.submit([10, 11])
    bench.engine.step()
    assert bench.steps.calls[-1]["row_length"].tolist() == [2, 0]


def test_generation_stops_at_max_new_tokens() -> None:
    """The third token is the last if three were asked for."""
    bench = Bench()
    _, heard = bench.submit([5, 6, 7, 8, 9], max_new_tokens=3)
    bench.run()
    (result,) = heard
    assert isinstance(result, Generation)
    assert (result.best.token_ids, result.best.finish_reason) == ([5, 6, 7], FinishReason.LENGTH)


def test_a_streaming_request_hears_every_token_before_the_result() -> None:
    """Token events come one a step and in order; the result is last."""
    bench = Bench()
    _, heard = bench.submit([5, 6], streaming=True)
    bench.run()
    assert [event.token_id for event in heard if isinstance(event, TokenEvent)] == [5, 6, END]
    assert isinstance(heard[-1], Generation)


def test_a_cancelled_request_frees_its_row_at_the_next_step() -> None:
    """The row is gone after one step, the caller hears so, and the others go on unharmed."""
    bench = Bench()
    ticket, heard = bench.submit([5] * 20)
    _, other = bench.submit([6] * 20)
    for _ in range(3):
        bench.engine.step()
    ticket.cancelled = True
    bench.engine.step()
    assert bench.steps.calls[-1]["token_ids"].shape[0] == 1
    assert isinstance(heard[0], RequestCancelledError)
    bench.run()
    assert isinstance(other[0], Generation)
    assert other[0].best.token_ids == [6] * 20 + [END]


@pytest.mark.parametrize("running", [True, False])
def test_a_deadline_ends_a_request_whether_it_runs_or_waits(running: bool) -> None:
    """The next step after the deadline lets go of the request."""
    bench = Bench(max_rows=1)
    first = bench.submit([5] * 20, deadline=2.0 if running else None)[1]
    second = bench.submit([6] * 20, deadline=None if running else 2.0)[1]
    bench.engine.step()
    bench.clock.advance(2.0)
    bench.engine.step()
    ended, going = (first, second) if running else (second, first)
    assert isinstance(ended[0], DeadlineExceededError)
    bench.run()
    assert isinstance(going[0], Generation)


def test_a_full_queue_refuses_and_keeps_what_it_holds() -> None:
    """The third request is refused where two may wait; the two are answered."""
    bench = Bench(max_queue=2)
    answers = [bench.submit([5])[1], bench.submit([6])[1]]
    with pytest.raises(QueueFullError, match="2 requests wait"):
        bench.submit([7])
    bench.run()
    assert all(isinstance(heard[0], Generation) for heard in answers)


def test_a_row_that_turns_nan_fails_alone_and_is_wiped() -> None:
    """Its request ends with an error, the others with their echo, and so does the next in its place."""
    bench = Bench(max_rows=2)
    _, poisoned = bench.submit([5] * 9)
    _, other = bench.submit([6] * 9)
    bench.engine.step()
    cross = bench.engine.lanes[1, False].rows._cross["cross_key.0"]
    cross[0] = np.nan
    bench.engine.step()
    assert isinstance(poisoned[0], EngineError)
    assert not np.isnan(cross).any()
    _, later = bench.submit([7] * 9)
    bench.run()
    assert isinstance(other[0], Generation) and other[0].best.token_ids == [6] * 9 + [END]
    assert isinstance(later[0], Generation) and later[0].best.token_ids == [7] * 9 + [END]


def test_a_failing_encoder_batch_fails_its_own_requests_only() -> None:
    """A request already decoding is not touched by the failure of those that come after it."""
    bench = Bench()
    _, running = bench.submit([5] * 5)
    bench.engine.step()

    def fail(_: object) -> dict[str, Any]:
        raise EngineError("the model failed on this input")

    sound, bench.engine._encoder = bench.engine._encoder, FakeSession(fail, ["input_ids"])
    _, failing = bench.submit([6] * 5)
    bench.engine.step()
    assert isinstance(failing[0], EngineError)
    bench.engine._encoder = sound
    bench.run()
    assert isinstance(running[0], Generation)
    assert bench.scheduler.running == 0


def test_a_failing_step_ends_its_rows_and_the_engine_lives_on() -> None:
    """What was running hears an error; the next request is answered."""
    bench = Bench()
    _, running = bench.submit([5] * 5)
    bench.engine.step()

    def fail(_: object) -> dict[str, Any]:
        raise EngineError("the model failed on the running batch")

    sound, bench.steps._compute = bench.steps._compute, fail
    bench.engine.step()
    assert isinstance(running[0], EngineError)
    bench.steps._compute = sound
    _, later = bench.submit([7])
    bench.run()
    assert isinstance(later[0], Generation)


def test_weights_are_computed_for_the_rows_that_ask_and_no_others() -> None:
    """Of three rows only the second asks: the graph hears its index alone, and the weights are its own."""
    bench = Bench()
    bench.submit([5] * 4)
    _, asking = bench.submit([6] * 4, taps=frozenset({"decoder.cross.0", "decoder.self.0", "encoder.self.0"}))
    bench.submit([7] * 4)
    bench.run()
    assert bench.encoder.calls[0]["self_tap_rows"].tolist() == [1]
    assert bench.steps.calls[0]["cross_tap_rows"].tolist() == [1]
    (result,) = asking
    assert isinstance(result, Generation)
    shapes = {name: weights.shape for name, weights in result.best.taps.items()}
    assert shapes == {"encoder.self.0": (2, 5, 5), "decoder.cross.0": (2, 5, 5), "decoder.self.0": (2, 5, 5)}
    assert result.best.taps["decoder.cross.0"][:, 0].tolist() == [[2.0] * 5] * 2
    assert np.triu(result.best.taps["decoder.self.0"][0], 1).sum() == 0


def test_a_request_that_asks_for_no_weights_binds_none() -> None:
    """Without an asking row the lists of rows are empty and nothing is fetched beside the candidates."""
    bench = Bench()
    _, heard = bench.submit([5] * 4)
    bench.run()
    assert all(call["cross_tap_rows"].size == call["self_tap_rows"].size == 0 for call in bench.steps.calls)
    assert bench.encoder.calls[0]["self_tap_rows"].size == 0
    assert isinstance(heard[0], Generation) and heard[0].best.taps == {}


def test_an_output_ends_where_its_weights_come_over_their_budget() -> None:
    """Ten tokens' queries fit and the eleventh's don't; taps without a budget don't count; others get their echo."""
    bench = Bench()
    own, cross = "decoder.self.0", "decoder.cross.0"
    query = HEADS * 21 * np.dtype(np.float32).itemsize
    tight, exact = (
        bench.submit(
            [5] * 20,
            taps=frozenset({own, cross}),
            tap_budget=TapBudget(frozenset({cross}), queries * query),
            streaming=True,
        )[1]
        for queries in (10, 21)
    )
    _, other = bench.submit([6] * 20)
    bench.run()
    *tokens, over = tight
    assert isinstance(over, InvalidInputError) and over.field == "attention"
    assert "with 11 tokens the output's weights come to 1,848 bytes" in over.message
    assert "reads at most 1,680 for an input; ask for fewer layers" in over.message
    assert len(tokens) == 11
    assert isinstance(exact[-1], Generation) and exact[-1].best.taps[cross].nbytes == 21 * query
    assert isinstance(other[0], Generation) and other[0].best.token_ids == [6] * 20 + [END]


def test_beams_share_the_budget_of_their_request() -> None:
    """What is enough for one sequence is too little for three beams, however few of them are returned."""
    bench = Bench(max_rows=8)
    cross = frozenset({"decoder.cross.0"})
    asked = {"taps": cross, "tap_budget": TapBudget(cross, HEADS * 21 * 21 * 4, ("quality",))}
    _, greedy = bench.submit([5] * 20, **asked)
    _, beams = bench.submit([5] * 20, num_beams=3, **asked)
    bench.run()
    assert isinstance(greedy[0], Generation)
    assert isinstance(beams[0], InvalidInputError) and beams[0].field == "quality"
    assert "quality: with 8 tokens" in beams[0].message
    assert "ask for fewer new tokens, beams or sequences" in beams[0].message


def test_a_result_without_memory_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights can't be put together; whoever shares its steps gets an echo."""
    bench = Bench()
    _, large = bench.submit([5] * 9, taps=frozenset({"decoder.self.0"}))
    _, other = bench.submit([6] * 9)

    def scarce(*_: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr("regard.engine.search.hypothesis._stack", scarce)
    bench.run()
    assert isinstance(large[0], OutOfMemoryError)
    assert isinstance(other[0], Generation) and other[0].best.token_ids == [6] * 9 + [END]


def test_nothing_is_bound_again_while_the_rows_stay() -> None:
    """Between a request's admission and its end, every step uses the same binding."""
    bench = Bench()
    bench.submit([5] * 20)
    bench.engine.step()
    lane = bench.engine.lanes[1, False]
    first = lane._bound
    for _ in range(10):
        bench.engine.step()
    assert lane._bound is first


def test_bindings_are_kept_for_a_few_layouts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many numbers of rows and candidates come by, what is kept for the next time stays bounded."""
    monkeypatch.setattr("regard.engine.lane.MOST_SHARED", 3)
    bench = Bench()
    asked = sources(30)
    answers = [bench.submit(source, top_logprobs=index % 7)[1] for index, source in enumerate(asked)]
    kept = []
    while bench.engine.busy or bench.scheduler.waiting:
        bench.engine.step()
        kept.append(len(bench.engine.lanes[1, False]._shared))
    assert max(kept) == 3
    assert [heard[0].best.token_ids for heard in answers if isinstance(heard[0], Generation)] == [
        [*source, END] for source in asked
    ]


def test_buffers_that_were_outgrown_are_not_held_while_rows_want_taps() -> None:
    """A binding that is kept for plain rows is let go as soon as others are bound to longer buffers."""
    bench = Bench()
    bench.submit([5] * 3, max_new_tokens=1)
    bench.run()
    lane = bench.engine.lanes[1, False]
    (kept,) = lane._shared.values()
    bench.submit([6] * 40, taps=frozenset({"decoder.cross.0"}))
    bench.engine.step()
    assert lane._bound is not kept
    assert not lane._shared


def test_running_rows_wait_for_no_more_than_a_batch_and_their_share() -> None:
    """A batch of three seconds, at a share of a half, is followed by three steps of a second before the next."""
    bench = Bench(max_rows=8, max_batch_tokens=12, max_encode_share=0.5)
    slow(bench.encoder, bench.clock, 3.0)
    slow(bench.steps, bench.clock, 1.0)
    bench.submit([5] * 40)
    bench.engine.step()
    for _ in range(6):
        bench.submit([6] * 5)
    batches = []
    for _ in range(8):
        bench.engine.step()
        batches.append(len(bench.encoder.calls) - 1)
    assert batches == [1, 1, 1, 2, 2, 2, 3, 3]
    assert bench.encoder.calls[-1]["input_ids"].shape == (2, 6)


def test_an_idle_engine_encodes_all_that_wait() -> None:
    """With no row to stand still, every batch that fits is encoded before the first step."""
    bench = Bench(max_rows=8, max_batch_tokens=12, max_encode_share=0.1)
    slow(bench.encoder, bench.clock, 3.0)
    for _ in range(6):
        bench.submit([6] * 5)
    bench.engine.step()
    assert bench.steps.calls[0]["token_ids"].shape[0] == 6
    assert len(bench.encoder.calls) == 3


def test_searches_of_all_widths_run_side_by_side() -> None:
    """Greedy, beams of two and three, and samples share twelve rows; each gets its own echo."""
    bench = Bench(max_rows=12)
    kinds: list[dict[str, Any]] = [
        {},
        {"num_beams": 2},
        {"num_beams": 3, "num_return_sequences": 3},
        {"do_sample": True, "top_k": 1, "num_return_sequences": 2, "seed": 1},
        {"no_repeat_ngram_size": 60},
    ]
    asked = [(source, kinds[index % len(kinds)]) for index, source in enumerate(sources(40, longest=20))]
    answers = [bench.submit(source, **options)[1] for source, options in asked]
    bench.run()
    for (source, options), heard in zip(asked, answers, strict=True):
        (result,) = heard
        assert isinstance(result, Generation)
        assert result.best.token_ids == [*source, END]
        assert len(result.sequences) == options.get("num_return_sequences", 1)
        assert [one.score for one in result.sequences] == sorted((one.score for one in result.sequences), reverse=True)
    assert bench.scheduler.running == 0


def test_a_beam_of_four_is_four_rows() -> None:
    """What is told of the queue counts the rows of those who run, and the requests of those who wait."""
    told: list[tuple[int, int]] = []

    class Noting(SilentObserver):
        def queue(self, waiting: int, rows: int) -> None:
            told.append((waiting, rows))

    bench = Bench(max_rows=5)
    bench.engine._observer = Noting()
    bench.submit([5] * 9, num_beams=4)
    bench.submit([6])
    bench.submit([7])
    bench.engine.step()
    assert told == [(1, 5)]
    bench.run()
    assert told[-1] == (0, 0)


def test_nothing_passes_a_request_that_waits_for_room() -> None:
    """A beam search of four waits for the second of two rows to end; a request behind it waits with it."""
    bench = Bench(max_rows=5)
    for length in (3, 6):
        bench.submit([5] * length)
    bench.engine.step()
    _, wide = bench.submit([6] * 2, num_beams=4)
    _, narrow = bench.submit([7])
    for _ in range(2):
        bench.engine.step()
    assert (bench.scheduler.waiting, bench.scheduler.running) == (2, 2)
    bench.run()
    assert isinstance(wide[0], Generation) and wide[0].best.token_ids == [6, 6, END]
    assert isinstance(narrow[0], Generation)


def test_more_beams_than_there_are_rows_are_refused_at_once() -> None:
    """The message names the setting; four beams in four rows are taken."""
    bench = Bench(max_rows=4)
    with pytest.raises(InvalidInputError, match=r"5 beams or sequences.* at most 4 .*engine\.max_rows"):
        bench.submit([5], num_beams=5)
    _, heard = bench.submit([5], num_beams=4)
    bench.run()
    assert isinstance(heard[0], Generation)


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"no_repeat_ngram_size": 60}], ids=["beams", "bans"])
def test_a_stream_hears_a_token_once_it_is_settled(options: dict[str, Any]) -> None:
    """Put together, what was sent is the best sequence, and nothing of it is sent twice."""
    bench = Bench()
    _, heard = bench.submit([5, 6, 7, 8], streaming=True, **options)
    bench.run()
    assert [event.token_id for event in heard if isinstance(event, TokenEvent)] == [5, 6, 7, 8, END]
    assert isinstance(heard[-1], Generation)


def test_a_request_whose_options_ban_every_token_fails_alone() -> None:
    """It hears that its options are to blame; the other gets its echo."""
    bench = Bench()
    _, banned = bench.submit([5] * 9, suppress_tokens=tuple(range(100)))
    _, beams = bench.submit([6] * 9, num_beams=2, suppress_tokens=tuple(range(100)))
    _, other = bench.submit([7] * 9)
    bench.run()
    assert isinstance(banned[0], InvalidInputError)
    assert isinstance(beams[0], InvalidInputError)
    assert isinstance(other[0], Generation) and other[0].best.token_ids == [7] * 9 + [END]


def test_alternatives_are_no_more_than_the_tokens_that_may_come() -> None:
    """Where three are left, five are asked for and three are given; a request of as many rows gets its echo beside."""
    bench = Bench(max_rows=10)
    banned = tuple(token for token in range(VOCABULARY) if token not in {5, 7, END})
    _, few = bench.submit([5] * 4, num_return_sequences=5, alternatives_position=0, suppress_tokens=banned)
    _, beams = bench.submit([6] * 9, num_beams=5)
    bench.run()
    assert isinstance(few[0], Generation)
    assert [sequence.token_ids[0] for sequence in few[0].sequences] == [5, END, 7]
    assert isinstance(beams[0], Generation) and beams[0].best.token_ids == [6] * 9 + [END]


def test_an_output_that_ends_before_its_alternatives_part_is_one() -> None:
    """The echo of four tokens and its end has a fifth position to part at, and no sixth."""
    bench = Bench(max_rows=10)
    heard = [bench.submit([5] * 4, num_return_sequences=3, alternatives_position=at)[1] for at in (4, 5)]
    bench.run()
    reached, unreached = (events[0] for events in heard)
    assert isinstance(reached, Generation) and len(reached.sequences) == 3
    assert isinstance(unreached, Generation)
    assert [sequence.token_ids for sequence in unreached.sequences] == [[5] * 4 + [END]]


def test_a_fault_in_one_search_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller hears of a fault of the engine, with its cause for the log; the others of its lane get their echo."""
    bench = Bench()
    _, struck = bench.submit([5] * 9, no_repeat_ngram_size=60)
    _, other = bench.submit([6] * 9, no_repeat_ngram_size=60)
    bench.engine.step()
    monkeypatch.setattr(bench.engine.lanes[1, False].running[0].search, "advance", lambda _: {}["missing"])
    bench.run()
    assert isinstance(struck[0], EngineError) and isinstance(struck[0].__cause__, KeyError)
    assert isinstance(other[0], Generation) and other[0].best.token_ids == [6] * 9 + [END]


def test_the_likeliest_tokens_of_every_position_are_told_to_those_who_ask() -> None:
    """The token itself and the end lead everywhere, the suppressed one among the rest; others hear nothing."""
    bench = Bench()
    _, asking = bench.submit([5, 6], top_logprobs=3)
    _, beams = bench.submit([5, 6], top_logprobs=2, num_beams=2)
    _, silent = bench.submit([5, 6])
    bench.run()
    assert isinstance(asking[0], Generation) and isinstance(beams[0], Generation)
    told = [[one.token_id for one in position] for position in asking[0].best.top_logprobs]
    assert told == [[5, END, 0], [6, END, 0], [END, 0, 2]]
    assert beams[0].best.top_logprobs[:2] == [[(5, 0.0), (END, -1.0)], [(6, 0.0), (END, -1.0)]]
    assert isinstance(silent[0], Generation) and silent[0].best.top_logprobs == []


def test_logits_are_bound_for_searches_that_need_them_and_no_others() -> None:
    """Greedy and plain beams run on candidates alone."""
    bench = Bench()
    options: dict[str, Any]
    for options in ({}, {"num_beams": 2}, {"repetition_penalty": 2.0}):
        bench.submit([5], **options)
        bench.engine.step()
        (lane,) = [lane for lane in bench.engine.lanes.values() if lane.running]
        assert lane._bound is not None
        assert (lane._bound.scores.logits is not None) == ("repetition_penalty" in options)
        bench.run()


def slow(session: FakeSession, clock: FakeClock, seconds: float) -> None:
    """Let every run of a session take time."""
    compute = session._compute

    def computing(feeds: Any) -> Any:
        clock.advance(seconds)
        return compute(feeds)

    session._compute = computing


def test_where_memory_runs_out_only_those_who_need_more_of_it_end() -> None:
    """At position 32 the longest request ends, the others get their echo; so does who comes when there is memory."""
    bench = Bench(max_rows=4)
    scarce = Scarce()
    bench.steps.memory = scarce
    _, long = bench.submit([5] * 40)
    bench.engine.step()
    _, late = bench.submit([6] * 20)
    scarce.refusals = 1
    bench.run()
    assert isinstance(long[0], OutOfMemoryError)
    assert isinstance(late[0], Generation) and late[0].best.token_ids == [6] * 20 + [END]
    _, again = bench.submit([7] * 40)
    bench.run()
    assert isinstance(again[0], Generation) and again[0].best.token_ids == [7] * 40 + [END]


def test_a_newcomer_without_memory_for_its_rows_ends_alone() -> None:
    """Of a batch of ten, the ninth needs rows that can't be had; the rest are answered."""
    bench = Bench(max_rows=16)
    scarce = Scarce()
    bench.steps.memory = scarce
    bench.submit([4] * 7)
    bench.run()
    scarce.refusals = 1
    answers = [bench.submit([5 + number] * 7)[1] for number in range(10)]
    bench.run()
    outcomes = [heard[0] for heard in answers]
    assert [isinstance(outcome, OutOfMemoryError) for outcome in outcomes] == [False] * 8 + [True, False]
    assert bench.scheduler.running == 0


@pytest.mark.parametrize("graph", ["encoder", "steps"])
def test_a_bug_ends_the_batch_that_it_strikes_and_leaves_nothing_behind(graph: str) -> None:
    """An error that nobody foresaw is one of the engine to those concerned, with its cause for the log."""
    bench = Bench()
    session = getattr(bench, graph)
    sound, session._compute = session._compute, lambda _: {}["missing"]
    _, struck = bench.submit([5])
    bench.engine.step()
    session._compute = sound
    assert isinstance(struck[0], EngineError) and isinstance(struck[0].__cause__, KeyError)
    assert (bench.scheduler.waiting, bench.scheduler.running) == (0, 0)


@pytest.mark.parametrize("graph", ["encoder", "steps"])
def test_a_device_that_has_failed_leaves_nobody_waiting(graph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs, in whichever lane, or was to be read hears of the fault; the step says that nothing works now."""
    bench = Bench(max_rows=5)
    bench.steps.memory = device = Breakable()
    running = [bench.submit([5] * 9)[1], bench.submit([6] * 9, num_beams=2)[1]] if graph == "steps" else []
    bench.engine.step()
    struck = [*running, bench.submit([7] * 9)[1]]
    device.broken = True
    for session in (bench.encoder, bench.steps):
        monkeypatch.setattr(session, "_compute", device.fail)
    with pytest.raises(EngineError, match="device"):
        bench.engine.step()
    assert all(isinstance(heard[0], EngineError) for heard in struck)
    assert (bench.scheduler.waiting, bench.scheduler.running) == (0, 0)
    with pytest.raises(EngineError, match="device"):
        bench.engine.fail_all(EngineError("the engine failed on the running batch"))


def test_a_fault_that_passes_is_not_the_device_s_end() -> None:
    """What was in the rows is gone with them, and who comes next begins with zeros."""
    bench = Bench()
    bench.steps.memory = device = Breakable()
    _, struck = bench.submit([5] * 9)
    bench.engine.step()
    sound, bench.steps._compute = bench.steps._compute, device.fail
    bench.engine.step()
    assert isinstance(struck[0], EngineError)
    assert bench.engine.lanes == {}
    bench.steps._compute = sound
    _, later = bench.submit([6] * 40)
    bench.run()
    assert isinstance(later[0], Generation) and later[0].best.token_ids == [6] * 40 + [END]


class Breakable(HostMemory):
    """A device of which nothing can be had once it is broken."""

    broken = False

    def zeros(self, shape: Sequence[int], dtype: str) -> Tensor:
        """Return an array of zeros, while the device works."""
        if self.broken:
            self.fail()
        return super().zeros(shape, dtype)

    def fail(self, *_: object) -> NoReturn:
        """Fail as every run on a broken device does."""
        raise EngineError("the device has failed")


class Scarce(HostMemory):
    """Refuses to resize so many times."""

    refusals = 0

    def resized(self, tensors: Sequence[Tensor], axis: int, size: int, kept: int, positions: int) -> list[Tensor]:
        """Return arrays of another size, unless they are refused; sources may always be longer."""
        if self.refusals and not (axis == 2 and tensors[0].shape[2] < 16):
            self.refusals -= 1
            raise MemoryError
        return super().resized(tensors, axis, size, kept, positions)
