"""Agents: they register at each start, send heartbeats, and deregister. Lost agents are reaped, and everything they hold is released."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

import msgspec

from coordinator.model.agent import Agent, KnownAgent, Reaped
from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import InProject, Json, Operation, Scope

__all__ = ["Deregister", "Find", "Heartbeat", "Join", "List", "Named", "ProjectOf", "Prune", "Reap", "Register"]


class Register(InProject[Agent], frozen=True, kw_only=True):
    """Register an agent that starts; it gets a new ``id`` at each start.

    An agent that sends no heartbeat for ``ttl`` (1 second to 1 day) is reaped. With ``process``, it is also reaped within
    2 seconds of that process's death. ``unreserved`` refuses the name of a token or of a database role with more rights;
    a gateway sets it for callers that are agents. The agent may claim jobs of its ``job_types`` whose labels are all among its
    ``labels``.

    Raises: ``NotFound`` if the project or the process does not exist; ``PermissionDenied`` for a reserved name.
    """

    function = "agent_register"
    speakers = ("name",)
    registers = True

    name: str
    role: str | None = None
    job_types: list[str] = msgspec.field(default_factory=list)
    metadata: dict[str, Json] = msgspec.field(default_factory=dict)
    ttl: timedelta = timedelta(seconds=30)
    process: int | None = None
    unreserved: bool = False
    labels: list[str] = msgspec.field(default_factory=list)


class Join(InProject[Agent], frozen=True, kw_only=True):
    """Return the registered agent with a name, or register it: for programs that start and end often under one name, such as the session of a tool.

    A call is a heartbeat, and renews all leases of the agent. ``metadata`` is merged into what it has. With ``process``, it is also reaped
    within 2 seconds of that process's death; one that is dead does not count. ``unreserved`` is as in ``Register``.

    Raises: ``NotFound`` if the project does not exist; ``PermissionDenied`` for a reserved name.
    """

    function = "agent_join"
    speakers = ("name",)
    registers = True

    name: str
    role: str | None = None
    metadata: dict[str, Json] | None = None
    ttl: timedelta = timedelta(minutes=10)
    unreserved: bool = False
    process: int | None = None

    def ending_with(self, process: int | None) -> Self:
        """Return the call with the process of whoever makes it."""
        return self if self.process is not None else msgspec.structs.replace(self, process=process)


class Heartbeat(Operation[datetime], frozen=True, kw_only=True):
    """Extend an agent's registration by its TTL; return when it expires. A name needs its ``project``.

    Raises: ``NotFound`` if the agent was reaped and everything that it held was released; register again.
    """

    function = "agent_heartbeat"
    scope = Scope.AGENT
    speakers = ("agent",)

    agent: AgentRef
    project: str | None = None


class Deregister(Operation[bool], frozen=True, kw_only=True):
    """End an agent, and release everything that it holds. A name needs its ``project``.

    Raises: ``NotFound`` if the agent has already ended.
    """

    function = "agent_deregister"
    scope = Scope.AGENT
    speakers = ("agent",)

    agent: AgentRef
    project: str | None = None


class Find(InProject[UUID], frozen=True, kw_only=True):
    """Return the id of an agent, given its name; an id is returned unchanged.

    Raises: ``NotFound``, which says when the last agent of this name ended, or which name was probably meant;
    ``InvalidArgument`` if several agents have the name.
    """

    function = "agent_find"
    reads = True

    agent: str


class List(InProject[list[KnownAgent]], frozen=True, kw_only=True):
    """List the agents of a project, by name; with ``ended``, also those that ended in the last 30 days."""

    function = "agent_list"
    reads = True
    page_by = ("name", "id")

    role: str | None = None
    ended: bool = False
    after: list[str] | None = None
    limit: int = 1000


class ProjectOf(Operation[str], frozen=True, kw_only=True):
    """Return the project of an agent, which never changes.

    Raises: ``NotFound``.
    """

    function = "agent_project"
    reads = True
    internal = True

    agent: UUID


class Named(Operation[bool], frozen=True, kw_only=True):
    """Return whether a project has a registered agent of this name, which is not reserved.

    Raises: ``NotFound`` if the project does not exist, or the last agent of this name has ended.
    """

    function = "agent_named"
    reads = True
    internal = True

    project: str
    name: str


class Reap(Operation[Reaped], frozen=True, kw_only=True):
    """Reap agents whose TTL has passed or whose process has died."""

    function = "agent_reap"
    internal = True

    limit: int = 1000


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete the records of agents that ended longer ago than ``retention``; return how many. Repeat until 0."""

    function = "agent_prune"
    internal = True

    retention: timedelta = timedelta(days=30)
    limit: int = 10000
