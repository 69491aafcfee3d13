"""Memories: lessons that agents recorded, and what a search among them found."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["MemoryEntry", "MemoryMatch"]


class MemoryEntry(msgspec.Struct, frozen=True):
    """A lesson. ``confidence`` is what is left of it now; ``superseded_by`` is the memory that replaced it."""

    project: str
    memory_id: str
    context: str
    lesson: str
    tool_name: str | None
    confidence: float
    created_at: datetime
    scope: str
    reinforcements: int
    language: str
    superseded_by: str | None
    actor: str
    updated_at: datetime


class MemoryMatch(MemoryEntry, frozen=True):
    """A memory that a search found, with its ``rank`` among the others.

    ``snippet`` has the words that were found between ``**``. ``partial``: more was found, and only the newest matches were ranked.
    """

    rank: float
    snippet: str
    partial: bool
