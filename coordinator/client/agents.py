"""Agents: the running ones. The client's own agent is ``client.agent``; these calls work on any agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from coordinator.client.caller import Caller, Duration, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.agent import Agent
from coordinator.model.operation import Json
from coordinator.operations import agents

__all__ = ["DEFAULT_TTL_S", "Agents"]

DEFAULT_TTL_S = 30.0


class Agents:
    """The agents of the client's project."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def register(
        self,
        name: str,
        *,
        role: str | None = None,
        job_types: Sequence[str] = (),
        metadata: Mapping[str, Json] | None = None,
        ttl: Duration = DEFAULT_TTL_S,
    ) -> Agent:
        """Register an agent and leave its heartbeats to the caller; ``connect(agent=…)`` sends them for you."""
        return await self._caller.run(
            agents.Register(
                project=self._caller.project,
                name=name,
                role=role,
                job_types=list(job_types),
                metadata=dict(metadata or {}),
                ttl=as_duration(ttl),
            )
        )

    async def heartbeat(self, agent: UUID) -> datetime:
        """Keep an agent alive; return when it expires unless there is another heartbeat.

        Raises: ``NotFound``: the agent was reaped, with all that it held.
        """
        return await self._caller.run(agents.Heartbeat(agent=agent))

    async def deregister(self, agent: UUID) -> None:
        """End an agent and release everything that it holds.

        Raises: ``NotFound``: it has ended already.
        """
        await self._caller.run(agents.Deregister(agent=agent))

    def list(self, role: str | None = None, *, after: str | None = None, limit: int = PAGE) -> Listing[Agent]:
        """List the agents of the project, by name."""
        return Listing(self._caller, agents.List(project=self._caller.project, role=role, limit=limit), after)
