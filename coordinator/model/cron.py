"""Crons: jobs that are enqueued on a schedule."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = ["Cron", "CronTime"]


class Cron(msgspec.Struct, frozen=True):
    """A schedule and its job. ``next_at`` is None while it is paused; ``error`` says why the job of that time is late."""

    project: str
    cron: str
    schedule: str
    zone: str
    missed: str
    job: dict[str, Json]
    next_at: datetime | None
    last_at: datetime | None
    last_job: UUID | None
    error: str | None
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    actor: str
    created_at: datetime
    updated_at: datetime


class CronTime(msgspec.Struct, frozen=True):
    """A time of a schedule; ``local`` is the same in the schedule's time zone, such as ``Fri 2026-11-27 08:30``."""

    at: datetime
    local: str
