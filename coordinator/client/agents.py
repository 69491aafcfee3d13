"""Agents: who is there. The client's own agent is ``client.agent``; these calls are for everybody's."""

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
        """Register an agent that the caller keeps alive itself, by heartbeats; ``connect(agent=…)`` does it for you."""
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
        """Say that an agent lives; answers until when that holds.

        Raises: ``NotFound``: it was given up, and what it held is let go.
        """
        return await self._caller.run(agents.Heartbeat(agent=agent))

    async def deregister(self, agent: UUID) -> None:
        """End an agent and let go of everything it holds.

        Raises: ``NotFound``: it is gone already.
        """
        await self._caller.run(agents.Deregister(agent=agent))

    def list(self, role: str | None = None, *, after: str | None = None, limit: int = PAGE) -> Listing[Agent]:
        """List the agents of the project, by name."""
        return Listing(self._caller, agents.List(project=self._caller.project, role=role, limit=limit), after)
