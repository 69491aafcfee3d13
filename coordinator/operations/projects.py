"""Projects: what holds everything else."""

from __future__ import annotations

from typing import ClassVar

from coordinator.model.operation import Operation
from coordinator.model.project import Project, ProjectContents

__all__ = ["Create", "Delete", "List", "Show"]


class Create(Operation[Project], frozen=True, kw_only=True):
    """Create a project.

    Raises: ``Conflict`` where the name is taken.
    """

    function: ClassVar[str] = "project_create"
    project: str
    description: str = ""
    actor: str | None = None


class List(Operation[list[Project]], frozen=True, kw_only=True):
    """List all projects, by name."""

    function: ClassVar[str] = "project_list"
    reads: ClassVar[bool] = True
    page_by: ClassVar[tuple[str, ...]] = ("name",)
    after: list[str] | None = None
    limit: int = 1000


class Show(Operation[ProjectContents], frozen=True, kw_only=True):
    """Show a project and how much it holds.

    Raises: ``NotFound``.
    """

    function: ClassVar[str] = "project_show"
    reads: ClassVar[bool] = True
    route: ClassVar[str | None] = "/v1/projects/{project}"
    project: str


class Delete(Operation[bool], frozen=True, kw_only=True):
    """Delete a project with all that is in it.

    Raises: ``NotFound``; ``InvalidArgument`` for the project "default".
    """

    function: ClassVar[str] = "project_delete"
    project: str
    actor: str | None = None
