"""Agents: each is one run of a program."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = ["Agent", "KnownAgent", "Reaped"]


class Agent(msgspec.Struct, frozen=True):
    """One run of an agent: ``id`` is new at each start, ``name`` stays the same."""

    id: UUID
    project: str
    name: str
    role: str | None
    job_types: list[str]
    labels: list[str]
    metadata: dict[str, Json]
    ttl: timedelta
    registered_at: datetime
    heartbeat_at: datetime
    expires_at: datetime


class KnownAgent(Agent, frozen=True):
    """An agent that is registered, or has ended: ``end_reason`` is deregistered, expired or process died."""

    ended_at: datetime | None
    end_reason: str | None


class Reaped(msgspec.Struct, frozen=True):
    """How many agents one call reaped, and the name, id and reason of each; if processes are ``missing``, call again in 0.7 seconds."""

    reaped: int
    missing: int
    agents: list[str]
