"""Sessions: conversations and runs of work, each with messages, steps and a state."""

from __future__ import annotations

import msgspec

from coordinator.model.operation import Json, Operation, Scope
from coordinator.model.session import Session

__all__ = ["Archive", "Create", "List", "Set", "Show"]


class Create(Operation[Session], frozen=True, kw_only=True):
    """Create a session under the key ``session``, by default a new UUID. The first message under a key does the same.

    Raises: ``Conflict`` if the key is taken; ``NotFound`` if there is no such user.
    """

    function = "session_create"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    project: str
    session: str | None = None
    username: str | None = None
    title: str = ""
    mission: str = ""
    status: str = "active"
    context: dict[str, Json] = msgspec.field(default_factory=dict)
    actor: str | None = None


class Show(Operation[Session], frozen=True, kw_only=True):
    """Show a session.

    Raises: ``NotFound``.
    """

    function = "session_show"
    reads = True
    scope = Scope.IN_PROJECT
    route = "/v1/sessions/{session}"

    project: str
    session: str


class List(Operation[list[Session]], frozen=True, kw_only=True):
    """List the sessions of a project, of a user or with a status if given, the one that was used last first.

    Raises: ``NotFound`` if there is no such user.
    """

    function = "session_list"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("updated_at", "session")

    project: str
    username: str | None = None
    status: str | None = None
    after: list[str] | None = None
    limit: int = 1000


class Set(Operation[Session], frozen=True, kw_only=True):
    """Change parts of a session; what is not given stays. Another status makes an archived session usable again.

    Raises: ``NotFound`` if there is no such session or user.
    """

    function = "session_set"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    project: str
    session: str
    username: str | None = None
    title: str | None = None
    mission: str | None = None
    status: str | None = None
    context: dict[str, Json] | None = None
    actor: str | None = None


class Archive(Operation[Session], frozen=True, kw_only=True):
    """Archive a session: it stays readable, and takes nothing more. Archiving it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "session_archive"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    project: str
    session: str
    actor: str | None = None
