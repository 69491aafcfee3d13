"""The caller: its project, its agent, and how long a call may take."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import TypedDict, TypeVar
from uuid import UUID

import anyio

from coordinator.backoff import Backoff
from coordinator.client.presence import Presence
from coordinator.errors import DatabaseUnavailable, InvalidArgument
from coordinator.model import duration
from coordinator.model.agent_ref import AgentRef
from coordinator.model.lag import tolerating
from coordinator.model.operation import Operation
from coordinator.model.position import Positions, reported
from coordinator.operations import agents
from coordinator.operations.at_least import AtLeast
from coordinator.operations.executor import Executor

__all__ = ["Caller", "Duration", "Verbs", "as_duration"]

Duration = timedelta | float | str
"""A timedelta, seconds, or text such as "10m"."""

R = TypeVar("R")


class _AuthorFields(TypedDict):
    project: str
    actor: str | None


class Caller:
    """Runs operations for one client; ``presence`` is its own agent, if it has one."""

    def __init__(self, executor: Executor, project: str, timeout_s: float, presence: Presence | None) -> None:
        self.executor = executor
        self.project = project
        self.presence = presence
        self.positions = Positions()
        self.plain = self
        """The caller whose reads wait for nothing."""
        self._timeout_s = timeout_s
        self.max_lag_s: float | None = None
        """Maximum age of its lists, in seconds."""

    def at_least(self, position: str) -> Caller:
        """Return a caller of the same client whose reads include a position."""
        caller = copy.copy(self)
        caller.executor = AtLeast(self.executor, position)
        return caller

    def max_lag(self, max_lag_s: float) -> Caller:
        """Return a caller of the same client whose lists may be this old."""
        caller = copy.copy(self)
        caller.max_lag_s = max_lag_s
        return caller

    async def run(self, operation: Operation[R], *, again: bool = False) -> R:
        """Run an operation within the time of a call, and retry a read during this time.

        With ``again``, it also retries a write that the server recognises, for instance by a request id.

        Raises: what the operation raises; ``DatabaseUnavailable`` when the time is up.
        """
        begun_after = self.positions.last
        with reported() as positions, tolerating(self.max_lag_s):
            result = await self._run(operation, again=again)
        self.positions.add(positions, begun_after)
        return result

    async def _run(self, operation: Operation[R], *, again: bool) -> R:
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
            hint="A write may have succeeded.",
        )

    async def agent_id(self) -> UUID | None:
        """Return the id of this client's agent, if it has one.

        Raises: ``NotFound`` when the agent was reaped.
        """
        return None if self.presence is None else await self.presence.alive()

    async def acting(self, agent: AgentRef | None) -> UUID:
        """Return the id of the given agent, or of this client's own, so that this agent holds the result, and not a later one with its name.

        Raises: ``InvalidArgument`` without either; ``NotFound``.
        """
        if agent is not None and not isinstance(agent, UUID):
            return await self.run(agents.Find(project=self.project, agent=agent))
        own = await self.agent_id() if agent is None else agent
        if own is None:
            raise InvalidArgument("no agent is named", hint='Pass agent="…" here, or connect with agent="…".')
        return own

    async def actor(self) -> str | None:
        """Return the name of this client's agent, if it has one, to record as the actor.

        Raises: ``NotFound`` when the agent was reaped.
        """
        if self.presence is None:
            return None
        await self.presence.alive()
        return self.presence.name

    async def author(self) -> _AuthorFields:
        """Return the fields of a write that say in which project it is, and who makes it.

        Raises: ``NotFound`` when the agent was reaped.
        """
        return {"project": self.project, "actor": await self.actor()}

    async def agent_name(self, agent: AgentRef | None) -> str:
        """Return the given name or id, or the name of this client's agent.

        Raises: ``InvalidArgument`` without either; ``NotFound`` when this client's agent was reaped.
        """
        name = await self.actor() if agent is None else str(agent)
        if name is None:
            raise InvalidArgument(
                "no agent is named", hint='Pass agent="…" here, or connect with agent="…" to be an agent.'
            )
        return name


def as_duration(value: Duration) -> timedelta:
    """Convert seconds, or text such as "10m", to a timedelta; return a timedelta unchanged.

    Raises: ``InvalidArgument``.
    """
    if isinstance(value, timedelta):
        return value
    try:
        return duration.read(value)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"invalid duration {value!r}", hint='Pass seconds, a timedelta, or text: "30s", "1h30m".'
        ) from None


class Verbs:
    """The verbs of a noun, which run as one caller."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
