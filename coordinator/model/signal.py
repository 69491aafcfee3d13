"""Signals and the rules between them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = ["Rule", "Signal"]


class Signal(msgspec.Struct, frozen=True):
    """A project's key with a value; absent for everybody from ``expires_at`` on (never, if critical)."""

    project: str
    key: str
    value: Json
    version: int
    critical: bool
    agent_id: UUID | None
    actor: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class Rule(msgspec.Struct, frozen=True):
    """What setting a key's last segment clears beside it; ``project`` null: in all projects."""

    project: str | None
    when_set: str
    clears: list[str]
    created_at: datetime
