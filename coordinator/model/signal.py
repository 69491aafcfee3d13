"""Signals and the rules between them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = ["Rule", "Signal"]


class Signal(msgspec.Struct, frozen=True):
    """A key of a project with a value. From ``expires_at`` on, nobody sees it; a critical signal does not expire."""

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
    """Setting a key with the last segment ``when_set`` clears the keys ``clears`` next to it; without ``project``, everywhere."""

    project: str | None
    when_set: str
    clears: list[str]
    created_at: datetime
