"""Projects: each holds its own signals, locks, directives, agents and events."""

from __future__ import annotations

import msgspec

from coordinator.model.operation import Json, Operation, Scope
from coordinator.model.project import Project, ProjectContents

__all__ = ["Create", "Delete", "List", "Set", "Show"]


class Create(Operation[Project], frozen=True, kw_only=True):
    """Create a project. ``settings`` is an object that callers define.

    Raises: ``Conflict`` if the name is taken; ``NotFound`` if there is no such user.
    """

    function = "project_create"
    scope = Scope.PROJECT
    speakers = ("actor",)
    examples = {"title": "The web shop"}

    project: str
    description: str = ""
    username: str | None = None
    title: str = ""
    settings: dict[str, Json] = msgspec.field(default_factory=dict)
    actor: str | None = None


class Set(Operation[Project], frozen=True, kw_only=True):
    """Change a project; omitted options keep their values. ``paths`` determines how its locks compare paths.

    exact: byte by byte; normal: in Unicode normal form C, the default; caseless: the same, and ignoring case, as file
    systems of macOS and Windows do.

    Raises: ``Conflict`` if paths are locked; ``NotFound``.
    """

    function = "project_set"
    scope = Scope.PROJECT
    speakers = ("actor",)
    examples = {"title": "The web shop"}

    project: str
    paths: str | None = None
    description: str | None = None
    username: str | None = None
    title: str | None = None
    settings: dict[str, Json] | None = None
    actor: str | None = None


class List(Operation[list[Project]], frozen=True, kw_only=True):
    """List all projects by name."""

    function = "project_list"
    reads = True
    scope = Scope.OWN_ROWS
    page_by = ("project",)

    after: list[str] | None = None
    limit: int = 1000

    def confine(self, rows: list[Project], project: str) -> list[Project]:
        """Return the project itself."""
        return [row for row in rows if row.project == project]


class Show(Operation[ProjectContents], frozen=True, kw_only=True):
    """Show a project and how much it contains.

    Raises: ``NotFound``.
    """

    function = "project_show"
    reads = True
    scope = Scope.PROJECT
    route = "/v1/projects/{project}"

    project: str


class Delete(Operation[bool], frozen=True, kw_only=True):
    """Delete a project and everything in it.

    Raises: ``NotFound``; ``InvalidArgument`` for the project "default".
    """

    function = "project_delete"
    scope = Scope.PROJECT
    speakers = ("actor",)

    project: str
    actor: str | None = None
