"""The engine of what is answered in one step, where its graph fails."""

from __future__ import annotations

import numpy as np
import pytest

from regard.config import EngineSettings
from regard.engine.classifier import Classifier
from regard.engine.observer import SilentObserver
from regard.engine.request import ClassifyRequest, Event
from regard.engine.scheduler import Scheduler
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket
from regard.errors import EngineError, RegardError
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
