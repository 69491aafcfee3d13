"""Locks: who holds and who waits, what a request returns, and the state of a path."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

__all__ = ["Grant", "Lock", "LockBlocker", "PathCheck", "Renewal", "Waiter"]


class Lock(msgspec.Struct, frozen=True):
    """A lock that is held, by an agent or, if ``owner`` is not empty, by an owner below it. Of a counted lock, ``slot`` of ``slots``.

    ``job`` is the job whose attempt holds it.
    """

    resource: str
    kind: str
    mode: str
    slots: int | None
    slot: int | None
    agent_id: UUID
    agent: str
    fencing_token: int
    acquired_at: datetime
    expires_at: datetime
    project: str
    owner: str
    job: UUID | None


class Grant(msgspec.Struct, frozen=True):
    """The result of a request for one resource: a lock or, if not ``granted``, a place in the queue until ``expires_at``."""

    resource: str
    mode: str
    slot: int | None
    fencing_token: int | None
    acquired_at: datetime | None
    expires_at: datetime
    ticket: int | None
    granted: bool


class Renewal(msgspec.Struct, frozen=True):
    """When a renewed lock expires."""

    resource: str
    fencing_token: int
    expires_at: datetime


class PathCheck(msgspec.Struct, frozen=True):
    """Whether an agent may write a path: ``state`` is free, mine or held. The other fields describe the lock that decides it."""

    path: str
    state: str
    resource: str | None
    agent_id: UUID | None
    agent: str | None
    mode: str | None
    fencing_token: int | None
    expires_at: datetime | None
    owner: str | None


class Waiter(msgspec.Struct, frozen=True):
    """A place in the queue for a resource; the smallest ticket comes first."""

    ticket: int
    resource: str
    mode: str
    agent_id: UUID
    agent: str
    enqueued_at: datetime
    expires_at: datetime
    slots: int | None
    project: str
    owner: str


class LockBlocker(msgspec.Struct, frozen=True):
    """Who waits for whom: ``agent`` for ``for_agent``, which holds what overlaps, or whose ``for_ticket`` is earlier."""

    project: str
    ticket: int
    agent_id: UUID
    agent: str
    resource: str
    for_agent_id: UUID
    for_agent: str
    for_resource: str
    for_ticket: int | None
    owner: str
    for_owner: str
