"""The engine of what is answered in one step: requests, batched by a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from regard.config import EngineSettings
from regard.engine.asked import Asked
from regard.engine.interventions import pack_interventions
from regard.engine.memory import prove
from regard.engine.observer import Observer
from regard.engine.request import Classification, Phases
from regard.engine.scheduler import Clock, Scheduler
from regard.engine.session import NO_TWINS, Session
from regard.engine.source import Pixels, Source, pack
from regard.engine.ticket import Ticket
from regard.errors import EngineError, RegardError, failure_of
from regard.manifest import Manifest, Task


class Classifier:
    """One instance of a model that classifies, answers or embeds.

    A model has one graph, or, if it compares texts with images, one for either. Requests that intervene
    are answered by the graph's twin, in runs of their own.
    """

    busy = False
    """Nothing is carried from one step to the next."""

    def __init__(
        self,
        manifest: Manifest,
        sessions: Mapping[str, Session],
        scheduler: Scheduler,
        settings: EngineSettings,
        clock: Clock,
        observer: Observer,
        intervened: Mapping[str, Session] = NO_TWINS,
    ) -> None:
        self._intervened = intervened
        self._manifest = manifest
        self._pad_token_id = manifest.text.pad_token_id if manifest.text else 0
        self._sessions = sessions
        self._scheduler = scheduler
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self._batch: list[Ticket] = []
        self._struck = False
        """Whether a graph has failed in this step: the device is then tried before the next."""

    def step(self) -> None:
        """Let go of who has left and classify the next batch. Raises what the device does if it works no more."""
        self._struck = False
        for ticket, error in self._scheduler.elapse(self._clock()):
            ticket.finish(error)
        self._batch = self._scheduler.take(
            free=self._settings.max_rows, held=0, max_tokens=self._settings.max_batch_tokens
        )
        for graph in self._sessions:
            own = [ticket for ticket in self._batch if self._graph_of(ticket.request.source) == graph]
            self._answer(graph, [ticket for ticket in own if not ticket.request.interventions])
            self._answer(graph, [ticket for ticket in own if ticket.request.interventions])
        self._forget()
        self._observer.queue(self._scheduler.waiting, self._scheduler.running_rows)
        if self._struck:
            self._prove()

    def fail_all(self, error: RegardError) -> None:
        """End every request of the batch that has no answer yet with `error`; raises as `step` does."""
        for ticket in self._batch:
            ticket.finish(error)
        self._forget()
        self._prove()

    def _prove(self) -> None:
        for session in self._sessions.values():
            prove(session.memory)

    def _forget(self) -> None:
        for ticket in self._batch:
            self._scheduler.ended(ticket)
        self._batch = []

    def _graph_of(self, source: Source) -> str:
        if len(self._sessions) == 1:
            return next(iter(self._sessions))
        return "image_encoder" if isinstance(source, Pixels) else "text_encoder"

    def _answer(self, graph: str, batch: Sequence[Ticket]) -> None:
        for part in self._scheduler.parts(batch):
            try:
                self._run(graph, part)
            except Exception as error:
                self._struck, failure = True, failure_of(error)
                for ticket in part:
                    ticket.finish(failure)

    def _run(self, graph: str, batch: Sequence[Ticket]) -> None:
        started = self._clock()
        sources = [ticket.request.source for ticket in batch]
        asked = Asked.of(self._manifest, graph, [ticket.request.taps for ticket in batch])
        feeds = pack(sources, self._pad_token_id) | asked.feeds
        session = self._sessions[graph]
        if batch[0].request.interventions:
            session = self._intervened[graph]
            interventions = [ticket.request.interventions for ticket in batch]
            feeds |= pack_interventions(self._manifest, graph, interventions, batch[0].length)
        answer = "embeddings" if self._manifest.task is Task.SIMILARITY else "logits"
        outputs, *maps = session.run(feeds, [answer, *asked.outputs])
        ended = self._clock()
        self._observer.ran(graph, len(batch), len(batch) * batch[0].length, ended - started)
        self._scheduler.read(len(batch) * batch[0].length, ended - started)
        for row, ticket in enumerate(batch):
            output = outputs[row] if outputs.ndim == 2 else outputs[row, : ticket.length]
            if not np.isfinite(output).all():
                ticket.finish(EngineError("the model produced numbers that are not finite"))
                continue
            phases = Phases(started - ticket.submitted_at, ended - started)
            ticket.finish(Classification(output.copy(), phases, asked.of_row(row, maps, ticket.length)))
