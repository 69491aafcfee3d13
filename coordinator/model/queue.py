"""Queues: the policies by which jobs are claimed."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

__all__ = ["Queue"]


class Queue(msgspec.Struct, frozen=True):
    """A queue of jobs. ``fair_by`` is key or none; without ``ageing``, priority is strict.

    ``queued_count`` is how many jobs can be claimed; at most 10,000 are counted. ``unplaced_count`` is about how many
    of them still have their places by an earlier policy, None if none has.
    """

    project: str
    queue: str
    fair_by: str
    ageing: timedelta | None
    weights: dict[str, int]
    max_waiting: int | None
    max_waiting_per_key: int | None
    events: str
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    queued_count: int
    running_count: int
    unplaced_count: int | None
    actor: str
    created_at: datetime
    updated_at: datetime
