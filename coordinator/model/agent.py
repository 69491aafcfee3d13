"""Agents: running incarnations."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = ["Agent", "Reaped"]


class Agent(msgspec.Struct, frozen=True):
    """One running incarnation: ``id`` is new at each start, ``name`` stays."""

    id: UUID
    project: str
    name: str
    role: str | None
    job_types: list[str]
    metadata: dict[str, Json]
    ttl: timedelta
    registered_at: datetime
    heartbeat_at: datetime
    expires_at: datetime


class Reaped(msgspec.Struct, frozen=True):
    """What one look for lost agents did; ``missing`` processes want another look in 0.7 seconds."""

    reaped: int
    missing: int
