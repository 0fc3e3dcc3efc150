"""Callers who refuse by themselves what Regard's clients would, beside those who send whatever they have."""

from __future__ import annotations

from load_tests.peers.loads import Ask, T
from regard.client import Failure, RequestFailed
from regard.client.throttle import Throttle

REFUSED = "RESOURCE_EXHAUSTED"
_REFUSAL = RequestFailed(Failure(8, REFUSED, retry_after_s=1.0))


def throttling(ask: Ask[T]) -> Ask[T]:
    """Return what asks as `ask` does, but for the requests that are refused before they are sent."""
    throttle = Throttle()

    async def asking(request: T) -> str:
        if throttle.refusal() is not None:
            return REFUSED
        outcome = await ask(request)
        throttle.answered(_REFUSAL if outcome == REFUSED else None)
        return outcome

    return asking
