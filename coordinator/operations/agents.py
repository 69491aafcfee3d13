"""Agents: register at each start, heartbeat, deregister; lost ones are reaped with all they held."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from coordinator.model.agent import Agent, Reaped
from coordinator.model.operation import Json, Operation, Scope

__all__ = ["Deregister", "Heartbeat", "List", "Named", "ProjectOf", "Reap", "Register"]


class Register(Operation[Agent], frozen=True, kw_only=True):
    """Register a starting agent; the answer's ``id`` is new at each start.

    ``ttl`` (1 second to 1 day): reaped when silent for so long. ``process``: reaped within 2 seconds of its death, too.

    Raises: ``NotFound`` where there is no such project or process.
    """

    function = "agent_register"
    scope = Scope.IN_PROJECT
    speakers = ("name",)
    registers = True

    project: str
    name: str
    role: str | None = None
    job_types: list[str] = msgspec.field(default_factory=list)
    metadata: dict[str, Json] = msgspec.field(default_factory=dict)
    ttl: timedelta = timedelta(seconds=30)
    process: int | None = None


class Heartbeat(Operation[datetime], frozen=True, kw_only=True):
    """Say that an agent lives; answers until when that holds.

    Raises: ``NotFound``: it was given up, and what it held is let go; register again.
    """

    function = "agent_heartbeat"
    scope = Scope.AGENT
    speakers = ("agent",)

    agent: UUID


class Deregister(Operation[bool], frozen=True, kw_only=True):
    """End an agent and let go of everything it holds.

    Raises: ``NotFound``: it is gone already.
    """

    function = "agent_deregister"
    scope = Scope.AGENT
    speakers = ("agent",)

    agent: UUID


class List(Operation[list[Agent]], frozen=True, kw_only=True):
    """List the agents of a project, by name."""

    function = "agent_list"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("name", "id")

    project: str
    role: str | None = None
    after: list[str] | None = None
    limit: int = 1000


class ProjectOf(Operation[str], frozen=True, kw_only=True):
    """Tell which project an agent is of; that never changes.

    Raises: ``NotFound``.
    """

    function = "agent_project"
    reads = True
    internal = True

    agent: UUID


class Named(Operation[bool], frozen=True, kw_only=True):
    """Tell whether an agent of this name is registered in a project.

    Raises: ``NotFound`` where there is no such project.
    """

    function = "agent_named"
    reads = True
    internal = True

    project: str
    name: str


class Reap(Operation[Reaped], frozen=True, kw_only=True):
    """Give up agents whose TTL passed or whose process died."""

    function = "agent_reap"
    internal = True

    limit: int = 1000
