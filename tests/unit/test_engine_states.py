"""The scheduler, the engines and their rows under whatever may come: no clock, no thread.

The translator is the echo, so an answer tells whose it is. `make test-state` tries many more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from regard.config import EngineSettings
from regard.engine.generator import Generator
from regard.engine.lane import Lane
from regard.engine.memory import Array, HostMemory, Tensor
from regard.engine.observer import SilentObserver
from regard.engine.request import Event, FinishReason, GenerateRequest, Generation, Priority, TokenEvent
from regard.engine.rows import FIRST_POSITIONS
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
from regard.testing import END, PAD, FakeClock, echo_encoder, echo_package, echo_step

FIRST_TOKEN, TOKENS = 3, 97
SEARCHES: list[dict[str, Any]] = [
    {},
    {"no_repeat_ngram_size": 60},
    {"num_beams": 2},
    {"num_beams": 3, "num_return_sequences": 2},
    {"num_beams": 5},
    {"do_sample": True, "top_k": 1, "num_return_sequences": 2, "seed": 1},
    {"top_logprobs": 2},
]
FAULTS = {"a graph that fails": EngineError("the model failed"), "a bug": KeyError("logits")}


@dataclass(frozen=True)
class Order:
    """What a request asks for, and of what kind it is."""

    client: str
    priority: Priority
    length: int
    search: dict[str, Any]
    new_tokens: int
    patience_s: float | None
    streaming: bool
    poisoned: bool


ORDERS = st.builds(
    Order,
    client=st.sampled_from("abc"),
    priority=st.sampled_from(Priority),
    length=st.sampled_from([40, 60, 3, 20, 2, 31, 50, 9]),
    search=st.sampled_from(SEARCHES),
    new_tokens=st.sampled_from([63, 63, 20, 5, 1]),
    patience_s=st.sampled_from([None, None, None, 0.001, 0.1, 3.0]),
    streaming=st.booleans(),
    poisoned=st.sampled_from([False] * 7 + [True]),
)


class ScarceMemory(HostMemory):
    """Refuses the next allocations, as many as it is told to: all, or those of longer caches alone."""

    refusals = 0
    for_caches_only = False

    def zeros(self, shape: Sequence[int], dtype: str) -> Tensor:
        """Return an array of zeros, unless it is refused."""
        self._ask(grows_caches=False)
        return super().zeros(shape, dtype)

    def resized(self, tensors: Sequence[Tensor], axis: int, size: int, kept: int, positions: int) -> list[Tensor]:
        """Return arrays of another size, unless they are refused."""
        self._ask(grows_caches=axis == 2 and tensors[0].shape[2] == FIRST_POSITIONS < size)
        return super().resized(tensors, axis, size, kept, positions)

    def _ask(self, *, grows_caches: bool) -> None:
        if self.refusals and (grows_caches or not self.for_caches_only):
            self.refusals -= 1
            raise MemoryError


class Graphs:
    """The echo's two graphs, which take time and fail as they are told to."""

    def __init__(self, clock: FakeClock) -> None:
        self.memory = ScarceMemory()
        self.poisoned: set[tuple[int, int]] = set()
        self.fault: dict[str, Exception | None] = {"encoder": None, "step": None}
        self._clock = clock
        self.encoder, self.step = echo_encoder(), echo_step()
        self.encoder._compute = self._faulty("encoder", self._poisoning(self.encoder._compute))
        self.step._compute = self._faulty("step", self.step._compute)
        self.step.memory = self.memory

    def _faulty(self, graph: str, compute: Any) -> Any:
        def computing(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            self._clock.advance(0.01)
            fault, self.fault[graph] = self.fault[graph], None
            if fault is not None:
                raise fault
            outputs: Mapping[str, Array] = compute(feeds)
            return outputs

        return computing

    def _poisoning(self, compute: Any) -> Any:
        """Let the encoder give numbers that are not finite for the sources that are poisoned."""

        def computing(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            outputs = dict(compute(feeds))
            for row, source in enumerate(feeds["input_ids"]):
                if (int(source[0]), int(source[1])) in self.poisoned:
                    outputs["cross_key.0"][row] = np.nan
            return outputs

        return computing


class OrderedScheduler(Scheduler):
    """Checks, whenever a batch is taken, that nothing passes the request whose turn it is."""

    def take(self, *, free: int, held: int, max_tokens: int) -> list[Ticket]:
        """Take a batch."""
        places = [(priority, *place) for priority, queue in self._queues.items() for place in queue._order]
        share = -(-(self._waiting_rows + self.running_rows) // self._instances)
        batch = super().take(free=free, held=held, max_tokens=max_tokens)
        if places and share > held:
            first = min(places)[-1]
            assert isinstance(first, Ticket)
            assert (first in batch) == (first.width <= free) and bool(batch) == (first in batch)
        longest = max((ticket.length for ticket in batch), default=0)
        widths = [ticket.width for ticket in batch]
        assert sum(widths) <= free and (not batch or sum(widths) - max(widths) < share - held)
        assert len(batch) <= 1 or longest * len(batch) <= max_tokens
        return batch


@dataclass(eq=False)
class Asked:
    """One request, what its caller has heard, and what may have gone wrong with it."""

    ticket: Ticket
    source: list[int]
    heard: list[Event | RegardError]
    poisoned: bool
    excuses: set[type[RegardError]] = field(default_factory=set)

    @property
    def outcomes(self) -> list[Event | RegardError]:
        """What has ended it: one thing at most."""
        return [event for event in self.heard if not isinstance(event, TokenEvent)]

    def check(self) -> None:
        """Hold the outcome to the echo, or to what has happened to the request."""
        (outcome,) = self.outcomes
        if isinstance(outcome, RegardError):
            assert type(outcome) in self.excuses, outcome
            return
        assert isinstance(outcome, Generation) and not self.poisoned
        request = self.ticket.request
        assert isinstance(request, GenerateRequest)
        whole = [*self.source, END]
        expected = whole[: request.options.max_new_tokens]
        assert outcome.best.token_ids == expected
        ended = FinishReason.END_OF_SENTENCE if expected == whole else FinishReason.LENGTH
        assert outcome.best.finish_reason is ended
        if request.streaming:
            assert [event.token_id for event in self.heard if isinstance(event, TokenEvent)] == expected


class EngineMachine(RuleBasedStateMachine):
    """One or two instances of the echo, stepped by hand."""

    requests = Bundle("requests")

    @initialize(
        rows=st.sampled_from([12, 20, 12, 4, 1]),
        queue=st.sampled_from([12, 12, 4, 1]),
        instances=st.integers(1, 2),
        batch_tokens=st.sampled_from([16, 64, 1024]),
        queue_s=st.sampled_from([60.0, 0.05]),
        encode_share=st.sampled_from([0.1, 0.5]),
    )
    def start(
        self, rows: int, queue: int, instances: int, batch_tokens: int, queue_s: float, encode_share: float
    ) -> None:
        """Make the engines."""
        self.settings = EngineSettings(
            max_rows=rows,
            max_queue=queue,
            max_batch_tokens=batch_tokens,
            max_queue_s=queue_s,
            max_encode_share=encode_share,
            priority_ageing_s=1.0,
        )
        self.clock = FakeClock()
        self.scheduler = OrderedScheduler(self.settings, instances)
        self.graphs = Graphs(self.clock)
        shared = (self.graphs.encoder, self.graphs.step, self.scheduler, self.settings, self.clock, SilentObserver())
        self.engines = [Generator(echo_package().manifest, *shared) for _ in range(instances)]
        self.asked: list[Asked] = []

    @rule(target=requests, orders=st.lists(ORDERS, min_size=1, max_size=6))
    def submit(self, orders: list[Order]) -> MultipleResults[Asked]:
        """Let requests come."""
        return multiple(*[self._submit(self._request(order)) for order in orders])

    @rule(
        target=requests, lengths=st.lists(st.integers(2, 60), min_size=4, max_size=12), search=st.sampled_from(SEARCHES)
    )
    def crowd(self, lengths: list[int], search: dict[str, Any]) -> MultipleResults[Asked]:
        """Let requests come that nothing is wrong with, so that rows fill; and let them begin."""
        orders = [Order("d", Priority.NORMAL, length, search, 63, None, False, False) for length in lengths]
        asked = [self._submit(self._request(order)) for order in orders]
        self._step(self.engines[0])
        return multiple(*asked)

    def _request(self, order: Order) -> Asked:
        """Return a request whose first two tokens are its name."""
        name = divmod(len(self.asked), TOKENS)
        source = [FIRST_TOKEN + name[0], FIRST_TOKEN + name[1]]
        source += [FIRST_TOKEN + (7 * place + len(self.asked)) % TOKENS for place in range(order.length - 2)]
        request = GenerateRequest(
            Tokens(np.array([*source, END])),
            GenerationOptions(**{"max_new_tokens": order.new_tokens} | order.search),
            deadline=None if order.patience_s is None else self.clock() + order.patience_s,
            streaming=order.streaming and "num_return_sequences" not in order.search,
            client=order.client,
            priority=order.priority,
        )
        heard: list[Event | RegardError] = []
        asked = Asked(Ticket(request, heard.append, self.clock()), source, heard, order.poisoned)
        if order.poisoned:
            self.graphs.poisoned.add((source[0], source[1]))
            asked.excuses.add(EngineError)
        if order.patience_s is not None:
            asked.excuses.add(DeadlineExceededError)
        return asked

    def _submit(self, asked: Asked) -> Asked:
        self.asked.append(asked)
        waiting = self.scheduler.waiting
        try:
            leaving = self.scheduler.submit(asked.ticket)
        except (QueueFullError, InvalidInputError) as refusal:
            assert isinstance(refusal, QueueFullError) or asked.ticket.width > self.settings.max_rows
            assert self.scheduler.waiting == waiting
            asked.excuses.add(type(refusal))
            asked.ticket.finish(refusal)
            return asked
        for displaced, error in leaving:
            (of,) = [one for one in self.asked if one.ticket is displaced]
            assert displaced.number < asked.ticket.number
            of.excuses.add(QueueFullError)
            displaced.finish(error)
        return asked

    @rule(asked=consumes(requests))
    def cancel(self, asked: Asked) -> None:
        """Let a caller go, whether its request waits, runs or has ended."""
        asked.excuses.add(RequestCancelledError)
        if self.scheduler.cancel(asked.ticket):
            asked.ticket.finish(RequestCancelledError("the request was cancelled"))

    @rule(instance=st.integers(0, 1), steps=st.sampled_from([3, 10, 35, 1]))
    def step(self, instance: int, steps: int) -> None:
        """Let an instance work."""
        engine = self.engines[instance % len(self.engines)]
        for _ in range(steps):
            self._step(engine)

    def _step(self, engine: Generator) -> None:
        """Let an instance do one step, and hold whoever failed in it to what has happened."""
        running = {
            one.ticket: lane.rows.full(index)
            for lane in engine.lanes.values()
            for index, one in enumerate(lane.running)
        }
        open_before = [asked for asked in self.asked if not asked.outcomes]
        armed, refusals = dict(self.graphs.fault), self.graphs.memory.refusals
        engine.step()
        broken = {graph for graph, fault in armed.items() if fault is not None and self.graphs.fault[graph] is None}
        refused = refusals - self.graphs.memory.refusals
        failed = [asked for asked in open_before if asked.outcomes and isinstance(asked.outcomes[0], RegardError)]
        without_memory = [asked.ticket for asked in failed if isinstance(asked.outcomes[0], OutOfMemoryError)]
        newcomers = [ticket for ticket in without_memory if ticket not in running]
        assert len(newcomers) <= refused
        assert all(running[ticket] and refused for ticket in without_memory if ticket in running)
        in_fault = [one.ticket for one in failed if isinstance(one.outcomes[0], EngineError) and not one.poisoned]
        assert "step" in broken or all("encoder" in broken and ticket not in running for ticket in in_fault)
        assert len({ticket.width for ticket in in_fault if ticket in running}) <= 1
        for asked in failed:
            if asked.ticket in without_memory or asked.ticket in in_fault:
                asked.excuses.add(type(asked.outcomes[0]))  # type: ignore[arg-type]

    @rule(graph=st.sampled_from(["encoder", "step"]), fault=st.sampled_from(sorted(FAULTS)))
    def break_a_graph(self, graph: str, fault: str) -> None:
        """Let the next run of a graph fail."""
        self.graphs.fault[graph] = FAULTS[fault]

    @rule(count=st.integers(1, 3), for_caches_only=st.booleans())
    def run_out_of_memory(self, count: int, for_caches_only: bool) -> None:
        """Let the next allocations fail."""
        self.graphs.memory.refusals = count
        self.graphs.memory.for_caches_only = for_caches_only

    @rule(seconds=st.sampled_from([0.05, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @precondition(lambda self: hasattr(self, "asked"))
    @invariant()
    def every_request_is_in_one_place(self) -> None:
        """It waits, runs in one lane, or has ended, once; the counters say the same."""
        waiting = list(self.scheduler._waiting)
        running = [one.ticket for engine in self.engines for lane in engine.lanes.values() for one in lane.running]
        ended = [asked.ticket for asked in self.asked if asked.outcomes]
        assert all(len(asked.outcomes) <= 1 for asked in self.asked)
        places = [id(ticket) for ticket in (*waiting, *running, *ended)]
        assert sorted(places) == sorted(id(asked.ticket) for asked in self.asked)
        assert (self.scheduler.waiting, self.scheduler.running) == (len(waiting), len(running))
        assert self.scheduler._running_rows == sum(ticket.width for ticket in running)
        assert len(waiting) <= self.settings.max_queue
        timed = [ticket for ticket in waiting if ticket.request.deadline is not None]
        assert {id(place[2]) for place in self.scheduler._deadlines} == {id(ticket) for ticket in timed}

    @precondition(lambda self: hasattr(self, "asked"))
    @invariant()
    def the_queues_add_up(self) -> None:
        """Work and rows are those of what waits; a client's requests stand in the order in which they came."""
        for queue in self.scheduler._queues.values():
            tickets = list(queue)
            assert queue.rows == sum(ticket.width for ticket in tickets)
            assert abs(queue.work_s - sum(ticket.work_s for ticket in tickets)) < 1e-9
            assert set(queue._passed_over) == {ticket.request.client for ticket in tickets}
            for client, account in queue._accounts.items():
                assert set(account.places) == {ticket for ticket in tickets if ticket.request.client == client}

    @precondition(lambda self: hasattr(self, "asked"))
    @invariant()
    def rows_hold_what_their_hypotheses_say(self) -> None:
        """Every row's cache, length, token and source are those of the sequence that it stands for."""
        for engine in self.engines:
            assert sum(lane.rows.count for lane in engine.lanes.values()) <= self.settings.max_rows
            for lane in engine.lanes.values():
                check_rows(lane)

    def teardown(self) -> None:
        """Let everything end: each caller has its answer or its reason, and nothing is left of it."""
        if not hasattr(self, "asked"):
            return
        for _ in range(3000):
            if not self.scheduler.waiting and not any(engine.busy for engine in self.engines):
                break
            for engine in self.engines:
                self._step(engine)
        assert (self.scheduler.waiting, self.scheduler.running, self.scheduler._running_rows) == (0, 0, 0)
        for asked in self.asked:
            asked.check()
        for queue in self.scheduler._queues.values():
            assert (queue.work_s, queue.rows, len(queue._accounts), list(queue)) == (0, 0, 0, [])
        for engine in self.engines:
            assert sum(lane.rows.count for lane in engine.lanes.values()) == 0


def check_rows(lane: Lane) -> None:
    """Hold a lane's rows to the sequences of its requests."""
    rows, width = lane.rows, lane._width
    assert rows.requests == len(lane.running) and rows.count == width * len(lane.running)
    cache, cross = rows._state["past_key.0"], rows._cross["cross_key.0"]
    assert isinstance(cache, np.ndarray) and isinstance(cross, np.ndarray)
    for index, running in enumerate(lane.running):
        source = running.request.source
        assert isinstance(source, Tokens)
        assert rows.source_length[index] == source.length
        held = cross[index, 0, : source.length, 0]
        assert held.tolist() == source.input_ids.tolist() or np.isnan(held).all()
        for within, hypothesis in enumerate(running.search.hypotheses):
            row, read = index * width + within, [PAD, *hypothesis.token_ids]
            assert rows.token_ids[row] == read[-1]
            assert rows.row_length[row] == len(read) - 1
            assert cache[row, :, : len(read) - 1, 0].tolist() == [read[:-1]] * cache.shape[1]


TestStates = EngineMachine.TestCase
TestStates.settings = settings(
    max_examples=int(os.environ.get("REGARD_STATE_EXAMPLES", "120")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
