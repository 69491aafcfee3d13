"""Following a list on the command line: its rows now, then new ones, across interruptions."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from msgspec.structs import replace

from coordinator.backoff import Backoff
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.errors import DatabaseUnavailable
from coordinator.model.operation import Operation
from coordinator.model.page import after_last
from coordinator.operations.waiting import followed

__all__ = ["follow"]

R = TypeVar("R")
T = TypeVar("T")


async def follow(call: Invocation, read: Operation[list[R]], write: Callable[[list[R]], Awaitable[T | None]]) -> T:
    """Write the rows of a list with ``woken_by`` as they arrive, until ``write`` returns a value; return that value.

    Raises: what the operation raises; ``DatabaseUnavailable`` if the first connection fails.
    """
    backoff = Backoff(0.1, 5.0)
    connected = lost = False
    while True:
        try:
            async with (
                call.open(direct=True) as executor,
                executor.wake(project=call.project, topics=read.woken_by) as wake,
                aclosing(followed(executor, read, wake)) as pages,
            ):
                if lost:
                    sys.stderr.write("connected again\n")
                connected, lost = True, False
                async for page in pages:
                    backoff.reset()
                    read = replace(read, after=after_last(read, page))
                    if (answer := await write(page)) is not None:
                        return answer
        except DatabaseUnavailable as error:
            if not connected:
                raise
            if not lost:
                sys.stderr.write(plain(f"{error.message}; trying again") + "\n")
            lost = True
        await backoff.wait()
