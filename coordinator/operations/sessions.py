"""Sessions: conversations and runs of work, each with messages, steps and a state."""

from __future__ import annotations

import msgspec

from coordinator.model.operation import InProject, Json
from coordinator.model.session import Session

__all__ = ["Archive", "Create", "Delete", "Fork", "List", "Set", "Show"]


class Create(InProject[Session], frozen=True, kw_only=True):
    """Create a session under the key ``session``, by default a new UUID. The first message under a key does the same.

    Raises: ``Conflict`` if the key is taken; ``NotFound`` if there is no such user.
    """

    function = "session_create"
    speakers = ("actor",)
    examples = {"context": {"branch": "main"}, "title": "Review of 42"}

    session: str | None = None
    username: str | None = None
    title: str = ""
    mission: str = ""
    status: str = "active"
    context: dict[str, Json] = msgspec.field(default_factory=dict)
    actor: str | None = None


class Show(InProject[Session], frozen=True, kw_only=True):
    """Show a session.

    Raises: ``NotFound``.
    """

    function = "session_show"
    reads = True
    route = "/v1/sessions/{session}"

    session: str


class List(InProject[list[Session]], frozen=True, kw_only=True):
    """List the sessions of a project, optionally of one user or with one status, the most recently used first.

    Raises: ``NotFound`` if there is no such user.
    """

    function = "session_list"
    reads = True
    page_by = ("updated_at", "session")

    username: str | None = None
    status: str | None = None
    after: list[str] | None = None
    limit: int = 1000


class Set(InProject[Session], frozen=True, kw_only=True):
    """Change a session; omitted options keep their values. A new status reactivates an archived session.

    Raises: ``NotFound`` if there is no such session or user.
    """

    function = "session_set"
    speakers = ("actor",)
    examples = {"context": {"branch": "main"}, "title": "Review of 42"}

    session: str
    username: str | None = None
    title: str | None = None
    mission: str | None = None
    status: str | None = None
    context: dict[str, Json] | None = None
    actor: str | None = None


class Archive(InProject[Session], frozen=True, kw_only=True):
    """Archive a session: it stays readable, but nothing can be appended. Archiving it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "session_archive"
    speakers = ("actor",)

    session: str
    actor: str | None = None


class Fork(InProject[Session], frozen=True, kw_only=True):
    """Copy a session as it was when the entry ``seq`` of its log of ``kind`` was appended; by default, as it is now.

    The copy has the logs up to then, with their numbers, and the documents, with their versions. ``copy`` is its key,
    by default a new UUID. Later changes to one do not affect the other.

    Raises: ``Conflict`` if the entry does not exist (any more) (``ZC335``), or if the key is taken; ``NotFound``.
    """

    function = "session_fork"
    speakers = ("actor",)
    examples = {"title": "Review of 42"}

    session: str
    seq: int | None = None
    kind: str = "message"
    copy: str | None = None
    title: str | None = None
    actor: str | None = None


class Delete(InProject[bool], frozen=True, kw_only=True):
    """Delete a session with its logs, documents and artifacts, and return true.

    A session with more than 10,000 entries, documents or artifacts, or 256 MB, is archived and loses as much, and the
    result is false: call it again.

    Raises: ``NotFound``.
    """

    function = "session_delete"
    speakers = ("actor",)

    session: str
    actor: str | None = None
