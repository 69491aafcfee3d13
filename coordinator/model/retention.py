"""Retention: how long logs, documents, sessions and artifacts are kept."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

__all__ = ["RetentionForecast", "RetentionPolicy", "RetentionResult"]


class RetentionPolicy(msgspec.Struct, frozen=True):
    """A policy. ``project`` is None for one of all projects; without ``max_age`` or ``max_count``, that bound does not apply."""

    project: str | None
    subject: str
    kind: str
    max_age: timedelta | None
    max_count: int | None
    actor: str
    updated_at: datetime


class RetentionForecast(msgspec.Struct, frozen=True):
    """What retention would remove now.

    These are ``removed`` entries, versions, documents, sessions or artifacts, from ``count`` logs, documents, sessions or artifacts.

    ``reason`` is the bound that they exceed, max_age or max_count; or ttl, for documents that have expired.
    """

    project: str
    subject: str
    kind: str
    reason: str
    count: int
    removed: int
    oldest_at: datetime


class RetentionResult(msgspec.Struct, frozen=True):
    """How much retention removed; ``kind`` is * for kinds that no policy of all projects names."""

    subject: str
    kind: str
    removed: int
