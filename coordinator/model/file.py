"""Files: what agents have seen of them, and what is decided before an edit."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

__all__ = ["FileGrant", "FileState", "FileStep", "FileView"]


class FileState(StrEnum):
    """Whether a file may be edited. With any of the last four, nothing was granted."""

    GRANTED = "granted"
    STALE = "stale"
    FREE = "free"
    HELD = "held"
    WAITING = "waiting"
    DEADLOCK = "deadlock"


class FileStep(StrEnum):
    """When the content of a file is recorded: before a read, after it, or after a write."""

    READING = "reading"
    READ = "read"
    WRITTEN = "written"


class FileGrant(msgspec.Struct, frozen=True):
    """What is decided about one file: its lease, or who holds it, and who has changed it since.

    ``state`` is a `FileState`. A file that is ``stale`` has to be read first; its lease is granted, too. ``holder_task`` is the task in the metadata of the holder, ``held`` the
    resource that it holds, ``waiting`` how many wait for it. ``changed_by`` is None if nobody has recorded the change.
    ``elsewhere`` says who holds the same file in other work trees, in the call that grants the lease.
    """

    path: str
    state: str
    agent_id: UUID
    expires_at: datetime | None
    ticket: int | None
    holder_id: UUID | None
    holder: str | None
    holder_owner: str | None
    holder_task: str | None
    held: str | None
    held_since: datetime | None
    held_until: datetime | None
    waiting: int | None
    changed_by: str | None
    changed_at: datetime | None
    elsewhere: str | None


class FileView(msgspec.Struct, frozen=True):
    """The content of a file as an agent, or an owner below it, last saw it. ``hash``: - if there was no file; None: unknown."""

    project: str
    path: str
    agent: str
    owner: str
    hash: str | None
    seen_at: datetime
    wrote_at: datetime | None
