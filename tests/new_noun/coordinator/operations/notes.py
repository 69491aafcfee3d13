"""Notes: short texts that agents of a project leave for each other."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.note import Note
from coordinator.model.operation import Batch, InProject

__all__ = ["Delete", "Expire", "List", "Write"]


class Write(InProject[Note], frozen=True, kw_only=True):
    """Write a note, or replace the one with the same key. ``ttl`` is 1 second to 366 days."""

    function = "note_write"
    speakers = ("actor",)
    examples = {"text": "The build is slow on Mondays."}

    key: str
    text: str
    ttl: timedelta = timedelta(days=1)
    actor: str | None = None


class List(InProject[list[Note]], frozen=True, kw_only=True):
    """List notes in byte order of their keys."""

    function = "note_list"
    reads = True
    page_by = ("key",)

    after: list[str] | None = None
    limit: int = 1000


class Delete(InProject[bool], frozen=True, kw_only=True):
    """Delete a note.

    Raises: ``NotFound``.
    """

    function = "note_delete"
    speakers = ("actor",)

    key: str
    actor: str | None = None


class Expire(Batch, frozen=True, kw_only=True):
    """Delete notes whose TTL has passed; return how many. Repeat until 0."""

    function = "note_expire"
