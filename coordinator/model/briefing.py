"""Briefings: what an agent should know before it continues."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

__all__ = ["Briefing", "BriefingItem", "BriefingKind"]


class BriefingKind(StrEnum):
    """What an item of a briefing is about."""

    DIRECTIVE = "directive"
    SIGNAL = "signal"
    AGENT = "agent"
    LOCK = "lock"


class BriefingItem(msgspec.Struct, frozen=True):
    """One thing that an agent should know. ``more``: how many of the kind follow that are not shown; 0 except in its last item.

    ``key`` is the number of a directive, the key of a signal, the work tree of an agent, or the resource of a lock. ``agent`` is
    who sent, set, works or holds. ``text`` is the beginning of the body, of the value, or of the task; a signal without it is no longer set.
    """

    kind: BriefingKind
    key: str | None
    agent: str | None
    text: str | None
    started_at: datetime | None
    expires_at: datetime | None
    more: int


class Briefing(msgspec.Struct, frozen=True):
    """The signals that an agent watches, and the versions that it was told."""

    project: str
    agent: str
    patterns: list[str]
    told: dict[str, int]
    read_at: datetime
