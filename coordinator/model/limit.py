"""Limits of jobs: how many run at once, start in an interval, or cost in a period."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = ["Limit"]


class Limit(msgspec.Struct, frozen=True):
    """A limit of jobs. ``kind`` is slots, rate or budget; the fields of the other kinds are None.

    ``used`` is what running jobs take of the slots, or what is reserved and spent of the budget in its present period, which ends at
    ``resets_at``. ``free`` is what is left, None where each key has its own. ``users`` are the types and keys of running jobs that
    take most; ``keys`` are those with least left of a rate or budget per key; ``waiting_count`` is how many jobs need it and are queued, or wait for the limit of their ``tree``; 10,000 are counted.
    """

    project: str
    name: str
    kind: str
    queue: str | None
    type: str | None
    per_key: bool
    tree: UUID | None
    slots: int | None
    rate: float | None
    per: timedelta | None
    burst: int | None
    budget: int | None
    period: str | None
    reserve: int | None
    on_exhausted: str | None
    used: int | None
    free: int | None
    resets_at: datetime | None
    users: list[dict[str, Json]]
    keys: list[dict[str, Json]]
    waiting_count: int
    held_until: datetime | None
    held_by: str | None
    hold_reason: str | None
    actor: str
    created_at: datetime
    updated_at: datetime
