"""Retention: how long logs, documents and sessions keep what they hold."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

__all__ = ["RetentionPolicy"]


class RetentionPolicy(msgspec.Struct, frozen=True):
    """A policy. ``project`` is None for one of all projects; without ``max_age`` or ``max_count``, that bound does not apply."""

    project: str | None
    subject: str
    kind: str
    max_age: timedelta | None
    max_count: int | None
    actor: str
    updated_at: datetime
