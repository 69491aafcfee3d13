"""Locks: who holds what, what a request became, what a path's state is."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

__all__ = ["Grant", "Lock", "PathCheck", "Renewal", "Waiter"]


class Lock(msgspec.Struct, frozen=True):
    """A lock that is held. ``slot`` of ``slots``: its place in a counted one."""

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


class Grant(msgspec.Struct, frozen=True):
    """What a request has for one resource: the lock, or while not ``granted`` a place in the queue until ``expires_at``."""

    resource: str
    mode: str
    slot: int | None
    fencing_token: int | None
    acquired_at: datetime | None
    expires_at: datetime
    ticket: int | None
    granted: bool


class Renewal(msgspec.Struct, frozen=True):
    """Until when a renewed lock is held."""

    resource: str
    fencing_token: int
    expires_at: datetime


class PathCheck(msgspec.Struct, frozen=True):
    """Whether an agent may write a path: ``state`` free, mine or held; the rest is about the lock that decides it."""

    path: str
    state: str
    resource: str | None
    agent_id: UUID | None
    agent: str | None
    mode: str | None
    fencing_token: int | None
    expires_at: datetime | None


class Waiter(msgspec.Struct, frozen=True):
    """Who waits for a resource; the smaller ticket comes first."""

    ticket: int
    resource: str
    mode: str
    agent_id: UUID
    agent: str
    enqueued_at: datetime
    expires_at: datetime
