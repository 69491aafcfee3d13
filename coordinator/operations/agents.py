"""Agents: register at each start, heartbeat, deregister; lost ones are reaped with all they held."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

import msgspec

from coordinator.model.agent import Agent, Reaped
from coordinator.model.operation import Json, Operation

__all__ = ["Deregister", "Heartbeat", "List", "Named", "Project", "Reap", "Register"]


class Register(Operation[Agent], frozen=True, kw_only=True):
    """Register a starting agent; the answer's ``id`` is new at each start.

    ``ttl`` (1 second to 1 day): reaped when silent for so long. ``process``: reaped within 2 seconds of its death, too.

    Raises: ``NotFound`` where there is no such project or process.
    """

    function: ClassVar[str] = "agent_register"
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

    function: ClassVar[str] = "agent_heartbeat"
    agent: UUID


class Deregister(Operation[bool], frozen=True, kw_only=True):
    """End an agent and let go of everything it holds.

    Raises: ``NotFound``: it is gone already.
    """

    function: ClassVar[str] = "agent_deregister"
    agent: UUID


class List(Operation[list[Agent]], frozen=True, kw_only=True):
    """List the agents of a project, by name."""

    function: ClassVar[str] = "agent_list"
    reads: ClassVar[bool] = True
    page_by: ClassVar[tuple[str, ...]] = ("name", "id")
    project: str
    role: str | None = None
    after: list[str] | None = None
    limit: int = 1000


class Project(Operation[str], frozen=True, kw_only=True):
    """Tell which project an agent is of; that never changes.

    Raises: ``NotFound``.
    """

    function: ClassVar[str] = "agent_project"
    reads: ClassVar[bool] = True
    internal: ClassVar[bool] = True
    agent: UUID


class Named(Operation[bool], frozen=True, kw_only=True):
    """Tell whether an agent of this name is registered in a project.

    Raises: ``NotFound`` where there is no such project.
    """

    function: ClassVar[str] = "agent_named"
    reads: ClassVar[bool] = True
    internal: ClassVar[bool] = True
    project: str
    name: str


class Reap(Operation[Reaped], frozen=True, kw_only=True):
    """Give up agents whose TTL passed or whose process died."""

    function: ClassVar[str] = "agent_reap"
    internal: ClassVar[bool] = True
    limit: int = 1000
