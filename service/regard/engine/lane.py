"""Running requests of one width, side by side: one run of the step graph moves all of them on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regard.engine.interventions import pack_interventions
from regard.engine.memory import HostMemory, Tensor
from regard.engine.prompt import prompt_of
from regard.engine.request import (
    FloatArray,
    GenerateRequest,
    Generation,
    Phases,
    TokenEvent,
    TokenLogprob,
)
from regard.engine.rows import Rows
from regard.engine.scheduler import Clock, Scheduler
from regard.engine.search.beams import BeamSearch, rank
from regard.engine.search.greedy import Greedy, greedy
from regard.engine.search.hypothesis import Hypothesis
from regard.engine.search.shortlist import StepScores
from regard.engine.search.strategy import Search, search_of
from regard.engine.session import Binding, Session
from regard.engine.ticket import Ticket
from regard.errors import EngineError, InvalidInputError, RegardError, failure_of
from regard.manifest import GenerationSpec, Manifest, TapSpec

Array = npt.NDArray[Any]

SCREENED, MOST_OF_SCREENED = 32, 8
"""How many tokens a row that is decoded alone screens for the candidates, and for how many of these at most."""
MOST_SHARED = 256
"""Bindings that are kept for when they are needed again: some KiB each, of thousands that requests can ask for."""


@dataclass(eq=False)
class Running:
    """A request that is being decoded; `sent` counts the tokens that its caller has heard."""

    ticket: Ticket
    request: GenerateRequest
    queue_s: float
    encode_s: float
    decoding_since: float
    encoder_taps: dict[str, FloatArray]
    search: Search = field(init=False)
    sent: int = field(default=0, init=False)

    def tell(self, hypothesis: Hypothesis, settled: int) -> None:
        """Send the tokens that are there to stay and were not sent before."""
        scored = self.request.options.return_scores
        for at in range(self.sent, settled):
            last = hypothesis.finish_reason is not None and at == len(hypothesis.token_ids) - 1
            taps = {name: queries[at] for name, queries in hypothesis.step_taps.items()}
            log_probability = hypothesis.log_probabilities[at] if scored else math.nan
            self.ticket.emit(TokenEvent(hypothesis.token_ids[at], log_probability, last, taps))
        self.sent = max(self.sent, settled)


@dataclass
class _Bound:
    """A binding of the step graph; `asking` has the rows that want taps, by the input that names them."""

    binding: Binding
    scores: StepScores
    asking: dict[str, list[int]]
    tapped: list[TapSpec]


class _Plain(NamedTuple):
    """What a binding depends on where nobody wants taps: two layouts that agree in it can share one."""

    allocation: int
    requests: int
    rows: int
    candidates: int
    logits: bool
    scored: bool


class Lane:
    """The requests that take `width` rows each. A lane of width 1 holds any number of searches of one row.

    One that is `intervened` has a step that takes interventions, and requests that have some there.
    """

    def __init__(
        self,
        manifest: Manifest,
        step: Session,
        scheduler: Scheduler,
        clock: Clock,
        max_rows: int,
        width: int,
        *,
        intervened: bool = False,
    ) -> None:
        self._intervened = intervened
        assert manifest.generation is not None
        self._manifest = manifest
        self._spec: GenerationSpec = manifest.generation
        self._step = step
        self._scheduler = scheduler
        self._clock = clock
        self._width = width
        self._folds = width > 1 and not intervened and isinstance(step.memory, HostMemory)
        """Whether fewer rows take less time: on devices they hardly do."""
        self._taps = {tap.name: tap for tap in manifest.taps_of("step")}
        self._norm_rows = dict.fromkeys(tap.rows_input for tap in manifest.norm_taps if tap.graph == "step")
        self._bound: _Bound | None = None
        self._bound_layout = 0
        self._shared: dict[_Plain, _Bound] = {}
        self._logits = np.zeros((0, self._spec.vocabulary_size), np.float32)
        self.rows = Rows(manifest, max_rows, width, step.memory)
        self.running: list[Running] = []

    def admit(self, running: Running, encoded: Mapping[str, Tensor]) -> None:
        """Take a request in; `encoded` is what its rows begin with, as `Rows.admit` takes it."""
        prompt = prompt_of(running.request.source, self._manifest)
        running.search = search_of(running.request.options, self._spec, prompt.token_ids)
        self.rows.admit(encoded, running.ticket.length, prompt.token_ids[-1], prompt.cached)
        self.running.append(running)

    def drop_overdue(self, now: float) -> None:
        """Let go of the requests that were cancelled or whose deadline has passed."""
        for index in reversed(range(len(self.running))):
            error = self.running[index].ticket.overdue(now)
            if error is not None:
                self._leave(index, error)

    def fail_all(self, error: RegardError) -> None:
        """End every request with `error`. What a failed step has left in the rows is unknown: the lane has served."""
        for running in self.running:
            self._scheduler.ended(running.ticket)
            running.ticket.finish(error)
        self.running.clear()

    def step(self) -> int:
        """Give every row its next token, and let go of the requests that are done.

        Return how many rows the graph has run. Where all of them begin, those of a request are alike, and one is run
        for all. Raises `EngineError`, and leaves the requests where they are, if the graph fails.
        """
        self._make_room()
        if not self.running:
            return 0
        folded = self._folds and self.rows.fold()
        bound = self._bind()
        maps = bound.binding.run()
        count = self.rows.count
        scores = bound.scores.repeated(self._width) if folded else bound.scores
        held = self._collect(bound, maps, scores)
        outcomes, fed = self._search(scores)
        for index, num_bytes in held.items():
            outcomes[index] = outcomes[index] or self._over_budget(index, num_bytes)
        if folded:
            self.rows.unfold()
        self.rows.advance(np.array(fed))
        if self._width > 1 and not folded:
            self._fork()
        now = self._clock()
        for index in reversed(range(len(self.running))):
            error, running = outcomes[index], self.running[index]
            if error is not None:
                self._leave(index, error, clear=isinstance(error, EngineError))
            elif running.search.done:
                self._leave(index, self._result(running, now))
        return count

    def _make_room(self) -> None:
        """Give every row room for its next position; requests for which there is none left end."""
        try:
            self.rows.prepare()
        except RegardError as error:
            for index in reversed(range(len(self.running))):
                if self.rows.full(index):
                    self._leave(index, error)
            if self.running:
                self.rows.prepare()

    def _search(self, scores: StepScores) -> tuple[list[RegardError | None], list[int]]:
        """Let every search choose; return what went wrong for each request, and each row's next token."""
        width = self._width
        searches = [running.search for running in self.running]
        best = greedy(scores, self._spec) if any(isinstance(one, Greedy) for one in searches) else scores.best
        beams = {at: one for at, one in enumerate(searches) if isinstance(one, BeamSearch) and not one.needs_logits}
        ranked = rank(beams, scores) if beams else {}
        finite = [math.isfinite(log_probability) for _, log_probability in best]
        outcomes: list[RegardError | None] = [None] * len(self.running)
        fed: list[int] = []
        for index, running in enumerate(self.running):
            search = running.search
            try:
                if not all(finite[index * width : (index + 1) * width]):
                    raise EngineError("the model produced numbers that are not finite")
                if isinstance(search, Greedy):
                    search.take(*best[index])
                elif isinstance(search, BeamSearch) and index in ranked:
                    search.take(ranked[index])
                else:
                    search.advance(scores.of(index * width, width))
                fed += [hypothesis.token_ids[-1] for hypothesis in search.hypotheses]
            except Exception as error:
                outcomes[index] = failure_of(error)
                fed += [self._spec.pad_token_id] * self._width
                continue
            if running.request.streaming and not search.done:
                running.tell(search.hypotheses[0], search.settled)
        return outcomes, fed

    def _fork(self) -> None:
        """Let the rows that their searches want elsewhere go on from there."""
        forks = [(index, *copy) for index, running in enumerate(self.running) for copy in running.search.copies]
        if forks:
            self.rows.fork(forks)

    def _bind(self) -> _Bound:
        """Bind the rows' buffers; nothing is bound again while it would be the same."""
        if self._bound is None or self._bound_layout != self.rows.layout:
            self._bound, self._bound_layout = self._bound_anew(), self.rows.layout
        return self._bound

    def _bound_anew(self) -> _Bound:
        needed = max(max(running.search.best_needed, running.request.options.top_logprobs) for running in self.running)
        candidates = min(needed, self._spec.vocabulary_size)
        logits = any(running.search.needs_logits for running in self.running)
        scored = any(running.request.options.needs_probabilities for running in self.running)
        plain = _Plain(self.rows.allocation, self.rows.requests, self.rows.count, candidates, logits, scored)
        if next(iter(self._shared), plain).allocation != plain.allocation:
            self._shared.clear()  # bindings hold their buffers
        if self._intervened or any(not self._taps.keys().isdisjoint(one.request.taps) for one in self.running):
            return self._make_bound(candidates, logits=logits, scored=scored)
        bound = self._shared.pop(plain, None) or self._make_bound(candidates, logits=logits, scored=scored)
        self._shared[plain] = bound  # last, as the latest that was needed
        if len(self._shared) > MOST_SHARED:
            del self._shared[next(iter(self._shared))]
        return bound

    def _make_bound(self, candidates: int, *, logits: bool, scored: bool) -> _Bound:
        count = self.rows.count
        asking: dict[str, list[int]] = {}
        tapped: list[TapSpec] = []
        for rows_input in ("self_tap_rows", "cross_tap_rows", *self._norm_rows):
            names = {tap.name for tap in self._taps.values() if tap.rows_input == rows_input}
            asking[rows_input] = [row for row in range(count) if names & self._of(row).request.taps]
            wanted = set().union(*(names & self._of(row).request.taps for row in asking[rows_input]))
            tapped += [self._taps[name] for name in sorted(wanted)]
        inputs = self.rows.inputs() | {"num_candidates": np.array([candidates]), "scored": np.array([scored])}
        if "num_screened" in self._step.inputs:
            alone = count == self._width == 1 and candidates <= MOST_OF_SCREENED and not logits
            inputs["num_screened"] = np.array([SCREENED if alone else 0])
        inputs |= {name: np.array(rows, np.int64) for name, rows in asking.items()}
        if self._intervened:
            interventions = [running.request.interventions for running in self.running]
            inputs |= pack_interventions(self._manifest, "step", interventions, self.rows.source_positions, self._width)
        scores: dict[str, Array] = {
            "candidate_ids": np.zeros((count, candidates), np.int64),
            "candidate_scores": np.zeros((count, candidates), np.float32),
            "log_sum_exp": np.zeros((count, 1), np.float32),
        }
        if logits:
            scores["logits"] = self._logits_buffer()
        binding = self._step.bind(inputs, self.rows.outputs() | scores, [tap.output for tap in tapped])
        return _Bound(binding, StepScores(**scores), asking, tapped)

    def _of(self, row: int) -> Running:
        return self.running[row // self.rows.per_request]

    def _logits_buffer(self) -> FloatArray:
        """Return room for the scores [count, V] that the graph computes anyway; it is kept between bindings."""
        if len(self._logits) < self.rows.count:
            self._logits = np.zeros((2 * self.rows.count, self._spec.vocabulary_size), np.float32)
        return self._logits[: self.rows.count]

    def _collect(self, bound: _Bound, maps: Sequence[Array], scores: StepScores) -> dict[int, int]:
        """Keep what was asked for of this step: the query's weights, cut to its own keys, and the likeliest tokens.

        Return what the weights of each request that has a budget for them come to by now, in bytes.
        """
        held: dict[int, int] = {}
        stood_for = self._width // self.rows.per_request
        for tap, weights in zip(bound.tapped, maps, strict=True):
            for index, row in enumerate(bound.asking[tap.rows_input]):
                request, within = divmod(row, self.rows.per_request)
                running = self.running[request]
                if tap.name not in running.request.taps:
                    continue
                keys = self.rows.source_length[request] if tap.kind == "cross" else self.rows.row_length[row] + 1
                budget = running.request.tap_budget
                for hypothesis in running.search.hypotheses[within : within + stood_for]:
                    queries = hypothesis.step_taps.setdefault(tap.name, [])
                    queries.append(weights[index, :, 0, :keys].copy())
                    if budget is not None and tap.name in budget.taps:
                        held[request] = held.get(request, 0) + len(queries) * queries[-1].nbytes
        for request, running in enumerate(self.running):
            if running.request.options.top_logprobs:
                own = scores.of(request * self._width, self._width)
                for within, hypothesis in enumerate(running.search.hypotheses):
                    likeliest = own.row(within).likeliest(running.request.options.top_logprobs)
                    hypothesis.top_logprobs.append([TokenLogprob(*pair) for pair in likeliest])
        return held

    def _over_budget(self, index: int, num_bytes: int) -> InvalidInputError | None:
        """Return the refusal of a request whose output has too many weights already, if it has."""
        running = self.running[index]
        budget = running.request.tap_budget
        if budget is None or num_bytes <= budget.max_bytes:
            return None
        fewer = "layers, new tokens" if "attention" in budget.fields else "new tokens"
        tokens = len(running.search.hypotheses[0].token_ids)
        return InvalidInputError(
            f"{' and '.join(budget.fields)}: with {tokens} tokens the output's weights come to "
            f"{num_bytes:,} bytes, of all its beams and sequences, and the server reads at most {budget.max_bytes:,} "
            f"for an input; ask for fewer {fewer}, beams or sequences, or send fewer inputs at once",
            field=budget.fields[0],
        )

    def _result(self, running: Running, now: float) -> Generation | RegardError:
        """Return what a search has come to, or what keeps that from being put together, such as want of memory."""
        results = running.search.results
        if running.request.streaming:
            running.tell(results[0], len(results[0].token_ids))
        phases = Phases(running.queue_s, running.encode_s, now - running.decoding_since)
        try:
            scored = running.request.options.return_scores
            sequences = [hypothesis.sequence(running.encoder_taps, scored=scored) for hypothesis in results]
            return Generation(sequences, phases)
        except Exception as error:
            return failure_of(error)

    def _leave(self, index: int, outcome: Generation | RegardError, *, clear: bool = False) -> None:
        """End a request; the last one takes its place."""
        running = self.running[index]
        moved = self.rows.release(index, clear=clear)
        last = self.running.pop()
        if moved is not None:
            self.running[index] = last
        steps = len(outcome.best.token_ids) if isinstance(outcome, Generation) else None
        self._scheduler.ended(running.ticket, steps)
        running.ticket.finish(outcome)
