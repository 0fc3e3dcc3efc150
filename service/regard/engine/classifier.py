"""The classification engine: one-step requests, batched by a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regard.config import EngineSettings
from regard.engine.observer import Observer
from regard.engine.request import Classification, FloatArray, Phases
from regard.engine.scheduler import Clock, Scheduler
from regard.engine.session import Session
from regard.engine.source import pack
from regard.engine.ticket import Ticket
from regard.errors import EngineError, RegardError
from regard.manifest import Manifest, TapSpec


class Classifier:
    """One instance of a classification model."""

    busy = False
    """Nothing is carried from one step to the next."""

    def __init__(
        self,
        manifest: Manifest,
        session: Session,
        scheduler: Scheduler,
        settings: EngineSettings,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._manifest = manifest
        self._pad_token_id = manifest.text.pad_token_id if manifest.text else 0
        self._session = session
        self._scheduler = scheduler
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self._batch: list[Ticket] = []

    def step(self) -> None:
        """Let go of who has left and classify the next batch."""
        for ticket, error in self._scheduler.elapse(self._clock()):
            ticket.finish(error)
        self._batch = self._scheduler.take(
            free=self._settings.max_rows, held=0, max_tokens=self._settings.max_batch_tokens
        )
        if self._batch:
            try:
                self._classify(self._batch)
            except RegardError as error:
                self.fail_all(error)
            else:
                self._forget()
        self._observer.queue(self._scheduler.waiting, self._scheduler.running)

    def fail_all(self, error: RegardError) -> None:
        """End every request of the batch that has no answer yet with `error`."""
        for ticket in self._batch:
            ticket.finish(error)
        self._forget()

    def _forget(self) -> None:
        for ticket in self._batch:
            self._scheduler.ended(ticket)
        self._batch = []

    def _classify(self, batch: Sequence[Ticket]) -> None:
        started = self._clock()
        sources = [ticket.request.source for ticket in batch]
        wanted = set().union(*(ticket.request.taps for ticket in batch))
        taps = [tap for tap in self._manifest.taps if tap.name in wanted]
        asking = [row for row, ticket in enumerate(batch) if ticket.request.taps]
        feeds = pack(sources, self._pad_token_id) | {"self_tap_rows": np.array(asking, np.int64)}
        logits, *maps = self._session.run(feeds, ["logits", *(tap.output for tap in taps)])
        ended = self._clock()
        self._observer.ran("classifier", len(batch), len(batch) * batch[0].length, ended - started)
        self._scheduler.read(len(batch) * batch[0].length, ended - started)
        for row, ticket in enumerate(batch):
            if not np.isfinite(logits[row]).all():
                ticket.finish(EngineError("the model produced numbers that are not finite"))
                continue
            phases = Phases(started - ticket.submitted_at, ended - started)
            own = {
                tap.name: _own(tap, weights, asking.index(row), ticket)
                for tap, weights in zip(taps, maps, strict=True)
                if tap.name in ticket.request.taps
            }
            ticket.finish(Classification(logits[row].copy(), phases, own))


def _own(tap: TapSpec, weights: FloatArray, index: int, ticket: Ticket) -> FloatArray:
    """Return a request's weights [H, S, S], cut to its own length."""
    return weights[index, :, : ticket.length, : ticket.length].copy()
