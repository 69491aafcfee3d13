"""Who calls: the project, the agent as whom, and how long a call may take."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import anyio

from coordinator.backoff import Backoff
from coordinator.client.presence import Presence
from coordinator.errors import DatabaseUnavailable, InvalidArgument
from coordinator.model.operation import Operation
from coordinator.operations.executor import Executor

__all__ = ["Caller", "Duration", "as_duration"]


Duration = timedelta | float

R = TypeVar("R")


class Caller:
    """Runs operations for one client; ``presence`` is its own agent, if it has one."""

    def __init__(self, executor: Executor, project: str, timeout_s: float, presence: Presence | None) -> None:
        self.executor = executor
        self.project = project
        self.presence = presence
        self._timeout_s = timeout_s

    async def run(self, operation: Operation[R], *, again: bool = False) -> R:
        """Run an operation within the time of a call; a read is tried again while there is any left.

        So is, with ``again``, what the server knows again: a request with an id, for instance.

        Raises: what the operation raises; ``DatabaseUnavailable`` at the latest when the time is up.
        """
        failure: DatabaseUnavailable | None = None
        with anyio.move_on_after(self._timeout_s):
            backoff = Backoff()
            while True:
                try:
                    return await self.executor.run(operation)
                except DatabaseUnavailable as error:
                    failure = error
                    if not (operation.reads or again):
                        break
                await backoff.wait()
        raise failure or DatabaseUnavailable(
            f"no answer from the database within {self._timeout_s:g} seconds",
            hint="A call that changes something may or may not have been done.",
        )

    async def agent_id(self) -> UUID | None:
        """Give the id of this client's agent; none without one.

        Raises: ``NotFound`` when it was given up.
        """
        return None if self.presence is None else await self.presence.alive()

    async def actor(self) -> str | None:
        """Give the name of this client's agent for the record of who did it; none without one.

        Raises: ``NotFound`` when the agent was given up.
        """
        if self.presence is None:
            return None
        await self.presence.alive()
        return self.presence.name

    async def agent_name(self, name: str | None) -> str:
        """Give the name of the agent that is meant: the one given, else this client's own.

        Raises: ``InvalidArgument`` where there is neither; ``NotFound`` when the own agent was given up.
        """
        own = await self.actor() if name is None else None
        if name is None and own is None:
            raise InvalidArgument(
                "no agent is named", hint='Give agent="…" here, or connect with agent="…" to be one yourself.'
            )
        return name or own or ""


def as_duration(value: Duration) -> timedelta:
    """Read a duration: a timedelta, or seconds.

    Raises: ``InvalidArgument`` for what is neither.
    """
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(
            f"a duration of {value!r} is out of range", hint="Give seconds, or a timedelta."
        ) from None
