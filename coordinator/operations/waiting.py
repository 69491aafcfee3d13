"""Waiting until a read has a result: it is repeated when an event may have changed the result, and at intervals.

The position in the log is read before the first result, so no event after it is missed. A lost hint costs at most
``POLL_S``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import anyio
from msgspec.structs import replace

from coordinator.errors import Conflict, CoordinatorError, NotFound, WaitTimedOut
from coordinator.model.duration import written
from coordinator.model.event import RESET, Event
from coordinator.model.json import fault_of
from coordinator.model.operation import Operation
from coordinator.model.page import after_last
from coordinator.operations.executor import Runner, Wake
from coordinator.operations.log_reader import LogReader
from coordinator.operations.positions import Included

__all__ = ["concerns", "followed", "until_answered"]

R = TypeVar("R")

POLL_S = 15.0


async def until_answered(runner: Runner, operation: Operation[R], wake: Wake, timeout_s: float | None) -> R:
    """Run an operation with ``woken_by`` until it has a result. ``wake`` is set when the log may have grown.

    Raises: what the operation raises; ``WaitTimedOut``.
    """
    return await _until_answered(runner, operation, wake, timeout_s, _reader(operation))


def concerns(operation: Operation[Any], event: Event) -> bool:
    """Return whether an event may have changed the result of an operation.

    One that stands for others, which nobody can read any more, may have done so: a reset, or an event over a limit.
    """
    return event.type == RESET or fault_of(event.data) is not None or operation.concerned_by(event.data)


def _reader(operation: Operation[R]) -> LogReader:
    about = operation.about()
    return LogReader("now", project=about if isinstance(about, str) else None, topics=operation.woken_by)


async def _until_answered(
    runner: Runner, operation: Operation[R], wake: Wake, timeout_s: float | None, reader: LogReader
) -> R:
    await reader.read(runner)
    with anyio.move_on_after(timeout_s):
        while True:
            try:
                result = await runner.run(operation)
            except CoordinatorError as error:
                if not operation.awaits(error):
                    raise
            else:
                if operation.answered(result):
                    return result
            with anyio.move_on_after(POLL_S):
                while not any(concerns(operation, event) for event in await reader.next(runner, wake)):
                    pass
    raise WaitTimedOut(
        f"no answer within {written(timedelta(seconds=timeout_s or 0))}",
        hint="Wait longer, or ask again later: nothing was changed.",
    )


async def followed(runner: Runner, operation: Operation[list[R]], wake: Wake) -> AsyncGenerator[list[R], None]:
    """Yield the existing rows of a list with ``woken_by``, and then new ones, without end.

    Raises: what the operation raises; ``ServerBehind`` instead if the server has not reached the events that were read
    before.
    """
    known: str | None = None  # the newest event that the server of the last rows had
    while True:
        reader = _reader(operation)
        try:
            rows = await _until_answered(runner, operation, wake, None, reader)
        except NotFound:
            if known is not None:
                with suppress(Conflict):  # events of a lost history are gone
                    await runner.run(Included(position=known))
            raise
        known = reader.after
        yield rows
        operation = replace(operation, after=after_last(operation, rows))
