"""Artifacts: named bytes of a project or a session, such as logs, diffs and reports."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

__all__ = ["Artifact", "Upload"]


class Artifact(msgspec.Struct, frozen=True):
    """An artifact, without its bytes. ``session`` is the key of the session that it belongs to; None: it belongs to the project.

    ``sha256`` is the hash of its content in hexadecimal, ``updated_at`` when that content was stored.
    """

    project: str
    artifact: str
    session: str | None
    media_type: str
    bytes: int
    sha256: str
    kept: bool
    actor: str
    created_at: datetime
    updated_at: datetime
    id: int


class Upload(msgspec.Struct, frozen=True):
    """An upload in progress: ``parts`` are the numbers of those that are there. ``complete``: the project has the whole content."""

    upload: UUID
    complete: bool
    parts: list[int]
