"""Agents: running programs. The client's own agent is ``client.agent``; these calls work on any agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.agent import Agent, KnownAgent
from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import Json
from coordinator.operations import agents

__all__ = ["DEFAULT_TTL_S", "Agents"]

DEFAULT_TTL_S = 30.0
JOINED_TTL_S = 600.0


class Agents(Verbs):
    """The agents of the client's project."""

    async def register(
        self,
        name: str,
        *,
        role: str | None = None,
        job_types: Sequence[str] = (),
        labels: Sequence[str] = (),
        metadata: Mapping[str, Json] | None = None,
        ttl: Duration = DEFAULT_TTL_S,
    ) -> Agent:
        """Register an agent, and leave its heartbeats to the caller; ``connect(agent=…)`` sends them for you."""
        return await self._caller.run(
            agents.Register(
                project=self._caller.project,
                name=name,
                role=role,
                job_types=list(job_types),
                labels=list(labels),
                metadata=dict(metadata or {}),
                ttl=as_duration(ttl),
            )
        )

    async def join(
        self,
        name: str,
        *,
        role: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        ttl: Duration = JOINED_TTL_S,
    ) -> Agent:
        """Return the registered agent with a name, or register one; either way, extend it and its leases.

        For programs that start and end often under one name. ``metadata`` is merged into the agent's existing metadata.
        """
        return await self._caller.run(
            agents.Join(
                project=self._caller.project,
                name=name,
                role=role,
                metadata=None if metadata is None else dict(metadata),
                ttl=as_duration(ttl),
            )
        )

    async def heartbeat(self, agent: AgentRef) -> datetime:
        """Keep an agent, given by name or id, alive; return when it expires without another heartbeat.

        Raises: ``NotFound``: the agent was reaped, with everything that it held.
        """
        return await self._caller.run(agents.Heartbeat(agent=agent, project=self._project(agent)))

    async def deregister(self, agent: AgentRef) -> None:
        """End an agent, given by name or id, and release everything that it holds.

        Raises: ``NotFound``: it has ended already.
        """
        await self._caller.run(agents.Deregister(agent=agent, project=self._project(agent)))

    async def find(self, agent: str) -> UUID:
        """Return the id of an agent, given its name.

        Raises: ``NotFound``, which says when the last agent of this name ended, or which name was probably meant;
        ``InvalidArgument`` if several agents have the name.
        """
        return await self._caller.run(agents.Find(project=self._caller.project, agent=agent))

    def list(
        self, role: str | None = None, *, ended: bool = False, after: str | None = None, limit: int = PAGE
    ) -> Listing[KnownAgent]:
        """List the agents of the project, by name; with ``ended``, also those that ended in the last 30 days."""
        operation = agents.List(project=self._caller.project, role=role, ended=ended, limit=limit)
        return Listing(self._caller, operation, after)

    def _project(self, agent: AgentRef) -> str | None:
        """Return the project in which to look for an agent: an id needs none."""
        return None if isinstance(agent, UUID) else self._caller.project
