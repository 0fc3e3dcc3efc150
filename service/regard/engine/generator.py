"""The generation engine: requests join and leave the running batch at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from regard.config import EngineSettings
from regard.engine.asked import Asked
from regard.engine.encode_share import EncodeShare
from regard.engine.interventions import concerns, pack_interventions
from regard.engine.lane import Lane, Running
from regard.engine.memory import Tensor, prove
from regard.engine.observer import Observer
from regard.engine.request import GenerateRequest
from regard.engine.scheduler import Clock, Scheduler
from regard.engine.session import NO_TWINS, Session
from regard.engine.source import pack
from regard.engine.ticket import Ticket
from regard.errors import RegardError, failure_of
from regard.manifest import Manifest

Array = npt.NDArray[Any]


class Generator:
    """One instance: an encoder, or the prefill in its place, a decoder step, and the lanes of rows between them.

    Requests of one width, such as beam searches of four beams, share a lane and every run of its
    step; all lanes share `max_rows`. Requests that intervene in a graph are run by its twin, apart from
    the others.
    """

    def __init__(
        self,
        manifest: Manifest,
        encoder: Session,
        step: Session,
        scheduler: Scheduler,
        settings: EngineSettings,
        clock: Clock,
        observer: Observer,
        intervened: Mapping[str, Session] = NO_TWINS,
    ) -> None:
        if manifest.generation is None or manifest.text is None:
            raise ValueError("the package holds no generation model")
        self._manifest = manifest
        self._pad_token_id = manifest.text.pad_token_id
        self._encoder = encoder
        self._step = step
        self._intervened = intervened
        self._scheduler = scheduler
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self.lanes: dict[tuple[int, bool], Lane] = {}
        """By width and whether its step is intervened in; the plain lane of width 1 is kept, others while in use."""
        self._struck = False
        """Whether a graph has failed in this step: the device is then tried before the next."""
        self._encode_share = EncodeShare(settings.max_encode_share)

    @property
    def busy(self) -> bool:
        """Whether rows are being decoded."""
        return any(lane.running for lane in self.lanes.values())

    def step(self) -> None:
        """Let go of who has left, admit who waits, and give every row its next token.

        Faults of the graphs end the requests that they strike. Raises what the device does if it works no more.
        """
        self._struck = False
        self._drop_overdue()
        self._admit()
        for place, lane in list(self.lanes.items()):
            if lane.running:
                self._decode(place, lane)
            elif place != (1, False):
                del self.lanes[place]
        self._observer.queue(self._scheduler.waiting, self._scheduler.running_rows)
        if self._struck:
            prove(self._step.memory)

    def fail_all(self, error: RegardError) -> None:
        """End every running request with `error`. Raises what the device does if it works no more."""
        for lane in self.lanes.values():
            lane.fail_all(error)
        self.lanes.clear()
        prove(self._step.memory)

    def _decode(self, place: tuple[int, bool], lane: Lane) -> None:
        started = self._clock()
        try:
            rows = lane.step()
        except Exception as error:
            self._struck = True
            lane.fail_all(failure_of(error))
            del self.lanes[place]
            return
        if not rows:
            return
        seconds = self._clock() - started
        self._observer.ran("step", rows, rows, seconds)
        self._scheduler.stepped(rows, seconds)
        self._encode_share.decoded(seconds)

    def _drop_overdue(self) -> None:
        now = self._clock()
        for ticket, error in self._scheduler.elapse(now):
            ticket.finish(error)
        for lane in self.lanes.values():
            lane.drop_overdue(now)

    def _admit(self) -> None:
        """Encode waiting requests: all that fit if no row would wait, one batch at most otherwise."""
        decoding = self.busy
        if decoding and self._encode_share.owes:
            return
        while batch := self._take():
            reader = self._manifest.reader
            changed = [concerns(self._manifest, reader, ticket.request.interventions) for ticket in batch]
            for apart in (False, True):
                self._encode([ticket for ticket, change in zip(batch, changed, strict=True) if change is apart], apart)
            if decoding:
                return
        if not decoding:
            self._encode_share.forget()

    def _take(self) -> list[Ticket]:
        used = sum(lane.rows.count for lane in self.lanes.values())
        return self._scheduler.take(
            free=self._settings.max_rows - used, held=used, max_tokens=self._settings.max_batch_tokens
        )

    def _encode(self, batch: Sequence[Ticket], intervened: bool) -> None:
        """Run the encoder, or its twin, on the parts of a batch, longest first, and turn each request into rows."""
        for part in self._scheduler.parts(batch):
            try:
                newcomers = self._read(part, intervened)
            except Exception as error:
                self._struck = True
                for ticket in part:
                    self._refuse(ticket, error)
                continue
            for running, state in newcomers:
                try:
                    self._lane(running.request, running.ticket.width).admit(running, state)
                except Exception as error:
                    self._refuse(running.ticket, error)

    def _refuse(self, ticket: Ticket, error: Exception) -> None:
        """End a request that was taken and got no rows."""
        self._scheduler.ended(ticket)
        ticket.finish(failure_of(error))

    def _read(self, batch: Sequence[Ticket], intervened: bool) -> list[tuple[Running, dict[str, Tensor]]]:
        """Run the encoder, or the prefill, on a batch; return each request and what its rows begin with."""
        started = self._clock()
        reader = self._manifest.reader
        asked = Asked.of(self._manifest, reader, [ticket.request.taps for ticket in batch])
        feeds = pack([ticket.request.source for ticket in batch], self._pad_token_id) | asked.feeds
        states, vectors = self._given_to_rows()
        encoder = self._encoder
        if intervened:
            encoder = self._intervened[reader]
            interventions = [ticket.request.interventions for ticket in batch]
            feeds |= pack_interventions(self._manifest, reader, interventions, batch[0].length)
        kept, fetched = encoder.run_keeping(feeds, list(states.values()), [*vectors.values(), *asked.outputs])
        maps = fetched[len(vectors) :]
        encoded = self._clock()
        self._observer.ran(reader, len(batch), len(batch) * batch[0].length, encoded - started)
        self._scheduler.read(len(batch) * batch[0].length, encoded - started)
        self._encode_share.encoded(encoded - started)
        newcomers: list[tuple[Running, dict[str, Tensor]]] = []
        for row, ticket in enumerate(batch):
            state: dict[str, Tensor] = {name: tensor[row] for name, tensor in zip(states, kept, strict=True)}
            state |= {name: array[row] for name, array in zip(vectors, fetched, strict=False)}
            request = ticket.request
            assert isinstance(request, GenerateRequest)
            own = asked.of_row(row, maps, ticket.length)
            running = Running(ticket, request, started - ticket.submitted_at, encoded - started, encoded, own)
            newcomers.append((running, state))
        return newcomers

    def _given_to_rows(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the outputs that rows begin with, by the step's inputs: those that stay in its memory, and others."""
        states = {spec.step_input: spec.encoder_output for spec in self._manifest.cross_state}
        vectors: dict[str, str] = {}
        for spec in self._manifest.state:
            if spec.first_output is not None:
                (states if spec.kind == "kv" else vectors)[spec.input] = spec.first_output
        return states, vectors

    def _lane(self, request: GenerateRequest, width: int) -> Lane:
        intervened = concerns(self._manifest, "step", request.interventions)
        place = (width, intervened)
        if place not in self.lanes:
            step = self._intervened["step"] if intervened else self._step
            shared = (self._scheduler, self._clock, self._settings.max_rows, width)
            self.lanes[place] = Lane(self._manifest, step, *shared, intervened=intervened)
        return self.lanes[place]
