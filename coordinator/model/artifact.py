"""Artifacts: named bytes of a project or a session, such as logs, diffs and reports."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

__all__ = ["Artifact", "ArtifactObject", "ArtifactPart", "Upload"]


class Artifact(msgspec.Struct, frozen=True):
    """An artifact, without its bytes. ``session`` is the key of the session that it belongs to; None: it belongs to the project.

    ``sha256`` is the hash of its content in hexadecimal, ``updated_at`` when that content was stored. ``store`` is the
    object store that has the content; None: the database.
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
    store: str | None = None


class Upload(msgspec.Struct, frozen=True):
    """An upload in progress: ``parts`` are the numbers of those that are there. ``complete``: the project has the whole content."""

    upload: UUID
    complete: bool
    parts: list[int]


class ArtifactPart(msgspec.Struct, frozen=True):
    """Bytes of an artifact. If ``data`` is None, they are in an object store: ``length`` bytes from ``first`` on of the object."""

    data: bytes | None
    store: str | None
    object: str | None
    first: int
    length: int


class ArtifactObject(msgspec.Struct, frozen=True):
    """An object to write to an object store, or to delete there; ``bytes`` and ``sha256`` are those of what is to be written."""

    object: int
    key: str
    bytes: int | None
    sha256: str | None
