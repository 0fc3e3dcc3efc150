"""The generation engine: requests join and leave the running batch at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from regard.config import EngineSettings
from regard.engine.observer import Observer
from regard.engine.request import FinishReason, FloatArray, GenerateRequest, Generation, Phases, TokenEvent
from regard.engine.rows import Rows
from regard.engine.scheduler import Clock, EncodeShare, Scheduler, Ticket
from regard.engine.search import candidates_needed, finish_reason, forced_token, greedy
from regard.engine.session import Binding, Session
from regard.engine.source import pack
from regard.errors import EngineError, RegardError
from regard.manifest import GenerationSpec, Manifest, TapSpec

Array = npt.NDArray[Any]


@dataclass
class _Running:
    """One row's request and what it has so far."""

    ticket: Ticket
    request: GenerateRequest
    queue_s: float
    encode_s: float
    decoding_since: float
    encoder_taps: dict[str, FloatArray]
    token_ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    step_taps: dict[str, list[FloatArray]] = field(default_factory=dict)


@dataclass
class _Bound:
    """A binding of the step graph, valid for one layout of the rows."""

    layout: int
    binding: Binding
    candidate_ids: Array
    candidate_scores: Array
    log_sum_exp: Array
    asking: dict[str, list[int]]
    tapped: list[TapSpec]


class Generator:
    """One instance: an encoder, a decoder step, and the rows between them."""

    def __init__(
        self,
        manifest: Manifest,
        encoder: Session,
        step: Session,
        scheduler: Scheduler,
        settings: EngineSettings,
        clock: Clock,
        observer: Observer,
    ) -> None:
        if manifest.generation is None or manifest.text is None:
            raise ValueError("the package holds no generation model")
        self._manifest = manifest
        self._pad_token_id = manifest.text.pad_token_id
        self._spec: GenerationSpec = manifest.generation
        self._encoder = encoder
        self._step = step
        self._scheduler = scheduler
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self.rows = Rows(manifest, settings.max_rows)
        self._encode_share = EncodeShare(settings.max_encode_share)
        self._running: list[_Running] = []
        self._bound: _Bound | None = None
        self._num_candidates = np.array([candidates_needed(self._spec)])
        self._no_rows = np.zeros(0, np.int64)
        self._taps = {tap.name: tap for tap in manifest.taps}

    @property
    def busy(self) -> bool:
        """Whether rows are being decoded."""
        return bool(self._running)

    def step(self) -> None:
        """Let go of who has left, admit who waits, and give every row its next token."""
        self._drop_overdue()
        self._admit()
        if self._running:
            self._decode()
        self._observer.queue(self._scheduler.waiting, self._scheduler.running)

    def fail_all(self, error: RegardError) -> None:
        """End every running request with `error` and start from empty rows."""
        for running in self._running:
            running.ticket.finish(error)
        self._scheduler.release(len(self._running))
        self._running.clear()
        self.rows.reset()

    def _drop_overdue(self) -> None:
        now = self._clock()
        for ticket, error in self._scheduler.overdue(now):
            ticket.finish(error)
        for row in reversed(range(len(self._running))):
            error_now = self._running[row].ticket.overdue(now)
            if error_now is not None:
                self._leave(row, error_now)

    def _admit(self) -> None:
        """Encode waiting requests: all that fit if no row would wait, one batch at most otherwise."""
        decoding = bool(self._running)
        if decoding and self._encode_share.owes:
            return
        while batch := self._take():
            try:
                self._encode(batch)
            except RegardError as error:
                for ticket in batch:
                    ticket.finish(error)
                self._scheduler.release(len(batch))
            if decoding:
                return
        if not decoding:
            self._encode_share.forget()

    def _take(self) -> list[Ticket]:
        return self._scheduler.take(
            free=self.rows.free, held=self.rows.count, max_tokens=self._settings.max_batch_tokens
        )

    def _encode(self, batch: Sequence[Ticket]) -> None:
        """Run the encoder on a batch, longest first, and turn each request into a row."""
        started = self._clock()
        taps, asking = self._asked_of("encoder", [ticket.request for ticket in batch])
        feeds = pack([ticket.request.source for ticket in batch], self._pad_token_id)
        feeds["self_tap_rows"] = np.array(asking, np.int64)
        states = self._manifest.cross_state
        fetches = [spec.encoder_output for spec in states] + [tap.output for tap in taps]
        outputs = self._encoder.run(feeds, fetches)
        encoded = self._clock()
        self._observer.ran("encoder", len(batch), len(batch) * batch[0].length, encoded - started)
        self._encode_share.encoded(encoded - started)
        cross, maps = outputs[: len(states)], outputs[len(states) :]
        for row, ticket in enumerate(batch):
            state = {spec.step_input: tensor[row] for spec, tensor in zip(states, cross, strict=True)}
            self.rows.admit(state, ticket.length, self._spec.start_token_id)
            request = ticket.request
            assert isinstance(request, GenerateRequest)
            own = {
                tap.name: weights[asking.index(row), :, : ticket.length, : ticket.length].copy()
                for tap, weights in zip(taps, maps, strict=True)
                if tap.name in request.taps
            }
            self._running.append(
                _Running(ticket, request, started - ticket.submitted_at, encoded - started, encoded, own)
            )

    def _asked_of(self, graph: str, requests: Sequence[Any]) -> tuple[list[TapSpec], list[int]]:
        """Return the taps of a graph that any request wants, and the rows that want one."""
        taps = [tap for tap in self._manifest.taps if tap.graph == graph]
        wanted = [{tap.name for tap in taps} & request.taps for request in requests]
        union = set().union(*wanted)
        return [tap for tap in taps if tap.name in union], [row for row, names in enumerate(wanted) if names]

    def _decode(self) -> None:
        """Run one step of all rows, choose their tokens, and let go of those that are finished."""
        started = self._clock()
        self.rows.prepare()
        bound = self._bind()
        try:
            maps = bound.binding.run()
        except RegardError as error:
            self.fail_all(error)
            return
        choice = greedy(bound.candidate_ids, bound.candidate_scores, bound.log_sum_exp, self._spec)
        now = self._clock()
        self._observer.ran("step", self.rows.count, self.rows.count, now - started)
        self._encode_share.decoded(now - started)
        self._collect(bound, maps)
        tokens = choice.token_ids
        reasons: list[FinishReason | None] = []
        for row, running in enumerate(self._running):
            limit = running.request.max_new_tokens
            log_probability = float(choice.log_probabilities[row])
            forced = forced_token(len(running.token_ids), limit, self._spec)
            if forced is not None:
                tokens[row], log_probability = forced, 0.0
            token = int(tokens[row])
            running.token_ids.append(token)
            running.log_probabilities.append(log_probability)
            reasons.append(finish_reason(token, len(running.token_ids), limit, self._spec))
            if running.request.streaming and choice.finite[row]:
                running.ticket.emit(TokenEvent(token, log_probability))
        self.rows.advance(tokens)
        for row in reversed(range(len(self._running))):
            if not choice.finite[row]:
                self._leave(row, EngineError("the model produced numbers that are not finite"), clear=True)
            elif (reason := reasons[row]) is not None:
                self._leave(row, self._result(self._running[row], reason, now))

    def _bind(self) -> _Bound:
        """Bind the rows' buffers; nothing is bound again while the rows stay where they are."""
        if self._bound is not None and self._bound.layout == self.rows.layout:
            return self._bound
        count, candidates = self.rows.count, int(self._num_candidates[0])
        asking: dict[str, list[int]] = {}
        tapped: list[TapSpec] = []
        for kind in ("self", "cross"):
            names = {tap.name for tap in self._taps.values() if tap.graph == "step" and tap.kind == kind}
            asking[kind] = [row for row, running in enumerate(self._running) if names & running.request.taps]
            wanted = set().union(*(names & self._running[row].request.taps for row in asking[kind]))
            tapped += [self._taps[name] for name in sorted(wanted)]
        inputs = self.rows.inputs() | {"num_candidates": self._num_candidates}
        inputs |= {f"{kind}_tap_rows": np.array(rows, np.int64) for kind, rows in asking.items()}
        outputs = self.rows.outputs() | {
            "candidate_ids": np.zeros((count, candidates), np.int64),
            "candidate_scores": np.zeros((count, candidates), np.float32),
            "log_sum_exp": np.zeros((count, 1), np.float32),
        }
        binding = self._step.bind(inputs, outputs, [tap.output for tap in tapped])
        self._bound = _Bound(
            self.rows.layout,
            binding,
            outputs["candidate_ids"],
            outputs["candidate_scores"],
            outputs["log_sum_exp"],
            asking,
            tapped,
        )
        return self._bound

    def _collect(self, bound: _Bound, maps: list[Array]) -> None:
        """Keep the new query's weights for the rows that ask, cut to the keys that are theirs."""
        for tap, weights in zip(bound.tapped, maps, strict=True):
            lengths = self.rows.source_length if tap.kind == "cross" else self.rows.row_length + 1
            for index, row in enumerate(bound.asking[tap.kind]):
                running = self._running[row]
                if tap.name in running.request.taps:
                    own = weights[index, :, 0, : lengths[row]].copy()
                    running.step_taps.setdefault(tap.name, []).append(own)

    def _result(self, running: _Running, reason: FinishReason, now: float) -> Generation:
        taps = running.encoder_taps | {name: _stack(queries) for name, queries in running.step_taps.items()}
        phases = Phases(running.queue_s, running.encode_s, now - running.decoding_since)
        return Generation(running.token_ids, running.log_probabilities, reason, phases, taps)

    def _leave(self, row: int, outcome: Generation | RegardError, *, clear: bool = False) -> None:
        """End a row's request; the last row takes its place."""
        running = self._running[row]
        moved = self.rows.release(row, clear=clear)
        last = self._running.pop()
        if moved is not None:
            self._running[row] = last
        self._scheduler.release()
        running.ticket.finish(outcome)


def _stack(queries: list[FloatArray]) -> FloatArray:
    """Put queries [H, keys], of equal or growing numbers of keys, into [H, T, most keys]."""
    stacked = np.zeros((queries[0].shape[0], len(queries), queries[-1].shape[1]), np.float32)
    for at, query in enumerate(queries):
        stacked[:, at, : query.shape[1]] = query
    return stacked
