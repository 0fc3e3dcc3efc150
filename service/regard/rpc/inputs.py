"""The inputs of one request, served side by side: each has an outcome of its own.

A bad input fails alone. Where every input fails with one and the same code, and the inputs
are not to blame for it (a full queue, a draining server, an expired deadline, a broken engine), the
request as a whole ends with that code, so that callers and proxies can try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Sequence
from typing import TypeVar

from regard.errors import InvalidInputError, RegardError
from regard.rpc.status import answerable

T = TypeVar("T")
_EVENTS_AHEAD = 64
"""Events of a stream that wait for a slow reader before its inputs are held back."""


async def gather(works: Iterable[Coroutine[object, object, T]]) -> list[T | RegardError]:
    """Run `works` side by side; return what each returned or raised, in order.

    If the caller is cancelled, so are all of them. Raises the error that all share, if they do.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(work)) for work in works]
    outcomes = [task.result() for task in tasks]
    raise_shared(outcomes)
    return outcomes


async def _outcome(work: Coroutine[object, object, T]) -> T | RegardError:
    try:
        return await work
    except Exception as error:
        return answerable(error)


def raise_shared(outcomes: Sequence[object]) -> None:
    """Raise the first error if every outcome is an error of one code that is not the inputs' fault."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, RegardError)]
    codes = {error.code for error in errors}
    if len(errors) == len(outcomes) and len(codes) == 1 and InvalidInputError.code not in codes:
        raise errors[0]


async def merge(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T | RegardError], None]:
    """Yield the events of every stream as they come, each with its stream's index.

    An error is its stream's last event. Errors that may turn out to be shared by all are held back
    until a stream gives anything else; if they are shared, that error is raised instead. Closing the
    generator closes every stream.
    """
    queue: asyncio.Queue[tuple[int, T | RegardError] | None] = asyncio.Queue(_EVENTS_AHEAD)
    tasks = [asyncio.create_task(_pump(index, stream, queue)) for index, stream in enumerate(streams)]
    held: list[tuple[int, RegardError]] = []
    holding = True
    try:
        async for index, event in _until_ended(queue, len(tasks)):
            if holding and isinstance(event, RegardError) and event.code != InvalidInputError.code:
                held.append((index, event))
                continue
            holding = False
            for early in held:
                yield early
            held.clear()
            yield index, event
        if len(held) == len(tasks):
            raise_shared([error for _, error in held])
        for early in held:
            yield early
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_ended(queue: asyncio.Queue[T | None], streams: int) -> AsyncIterator[T]:
    while streams:
        event = await queue.get()
        if event is None:
            streams -= 1
        else:
            yield event


async def _pump(
    index: int, stream: AsyncGenerator[T, None], queue: asyncio.Queue[tuple[int, T | RegardError] | None]
) -> None:
    try:
        async for event in stream:
            await queue.put((index, event))
    except Exception as error:
        await queue.put((index, answerable(error)))
    finally:
        await stream.aclose()
    await queue.put(None)
