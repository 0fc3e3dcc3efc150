"""The engine of what is answered in one step, where its graph fails."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import pytest

from regard.config import EngineSettings
from regard.engine.classifier import Classifier
from regard.engine.observer import SilentObserver
from regard.engine.request import Classification, ClassifyRequest, Event
from regard.engine.scheduler import Scheduler
from regard.engine.source import Pixels, Source, Tokens
from regard.engine.ticket import Ticket
from regard.errors import EngineError, OutOfMemoryError, RegardError
from regard.manifest import Task
from regard.testing import FakeClock, FakeSession

from .packages import manifest_of
from .test_engine_generator import Breakable


@pytest.mark.parametrize("broken", [False, True])
def test_a_fault_ends_its_batch_and_tells_whether_the_device_works(broken: bool) -> None:
    """The callers hear of it either way; the step raises only where nothing can be had of the device any more."""
    device, settings = Breakable(), EngineSettings()
    scheduler = Scheduler(settings)
    graph = FakeSession(device.fail, ["input_ids"])
    graph.memory, device.broken = device, broken
    engine = Classifier(
        manifest_of(Task.CLASSIFICATION), {"classifier": graph}, scheduler, settings, FakeClock(), SilentObserver()
    )
    heard: list[Event | RegardError] = []
    for _ in range(2):
        scheduler.submit(Ticket(ClassifyRequest(Tokens(np.array([5, 6]))), heard.append, 0.0))
    if broken:
        with pytest.raises(EngineError, match="device"):
            engine.step()
    else:
        engine.step()
    assert [type(outcome) for outcome in heard] == [EngineError] * 2
    assert scheduler.running == 0


def test_want_of_memory_ends_those_whom_it_strikes_and_no_other() -> None:
    """An image for which NumPy has no room ends for want of memory; the text of the same batch is answered."""

    def scarce(_: object) -> NoReturn:
        raise MemoryError

    settings = EngineSettings()
    scheduler = Scheduler(settings)
    image = FakeSession(scarce, ["pixel_values"])
    text = FakeSession(lambda feeds: {"logits": np.zeros((len(feeds["input_ids"]), 2), np.float32)}, ["input_ids"])
    graphs = {"image_encoder": image, "text_encoder": text}
    engine = Classifier(manifest_of(Task.CLASSIFICATION), graphs, scheduler, settings, FakeClock(), SilentObserver())
    heard: list[Event | RegardError] = []
    sources: list[Source] = [Pixels(np.zeros((3, 4, 4), np.float32), 2), Tokens(np.array([5, 6]))]
    for source in sources:
        scheduler.submit(Ticket(ClassifyRequest(source), heard.append, 0.0))
    engine.step()
    assert [type(outcome) for outcome in heard] == [OutOfMemoryError, Classification]
    assert scheduler.running == 0
