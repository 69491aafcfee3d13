"""Projects: each holds its own signals, locks, directives and agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.operation import Json
from coordinator.model.project import Project, ProjectContents
from coordinator.model.transfer import ExportLine, ImportProgress
from coordinator.operations import projects, transfers

__all__ = ["Projects"]


class Projects(Verbs):
    """All projects."""

    async def create(
        self,
        project: str,
        *,
        description: str = "",
        username: str | None = None,
        title: str = "",
        settings: Mapping[str, Json] | None = None,
    ) -> Project:
        """Create a project. ``settings`` is an object of your own.

        Raises: ``Conflict`` if the name is taken; ``NotFound`` if there is no such user.
        """
        return await self._caller.run(
            projects.Create(
                project=project,
                description=description,
                username=username,
                title=title,
                settings=dict(settings or {}),
                actor=await self._caller.actor(),
            )
        )

    async def set(
        self,
        project: str | None = None,
        *,
        paths: Literal["exact", "normal", "caseless"] | None = None,
        description: str | None = None,
        username: str | None = None,
        title: str | None = None,
        settings: Mapping[str, Json] | None = None,
    ) -> Project:
        """Change parts of a project (default: the client's own); omitted fields keep their values.

        ``paths`` says how its locks compare paths; normal is the default.

        Raises: ``Conflict`` if paths are locked; ``NotFound``.
        """
        return await self._caller.run(
            projects.Set(
                project=self._caller.project if project is None else project,
                paths=paths,
                description=description,
                username=username,
                title=title,
                settings=None if settings is None else dict(settings),
                actor=await self._caller.actor(),
            )
        )

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Project]:
        """List all projects, by name."""
        return Listing(self._caller, projects.List(limit=limit), after)

    async def show(self, project: str | None = None) -> ProjectContents:
        """Return a project (default: the client's own), and how much it contains.

        Raises: ``NotFound``.
        """
        return await self._caller.run(projects.Show(project=self._caller.project if project is None else project))

    async def delete(self, project: str) -> None:
        """Delete a project and everything in it.

        Raises: ``NotFound``; ``InvalidArgument`` for the project "default".
        """
        await self._caller.run(projects.Delete(project=project, actor=await self._caller.actor()))

    def export(self, project: str | None = None, *, after: str | None = None, limit: int = PAGE) -> Listing[ExportLine]:
        """Read a project (default: the client's own) as lines of JSON, for ``import_``: ``line`` of each row.

        A change during the export may or may not be included. Passwords and tokens are not exported.
        """
        project = self._caller.project if project is None else project
        return Listing(self._caller, transfers.Export(project=project, limit=limit), after)

    async def import_(
        self,
        lines: transfers.Lines,
        project: str | None = None,
        *,
        allow_missing_users: bool = False,
        progress: Callable[[ImportProgress], None] = lambda _: None,
    ) -> ImportProgress:
        """Import the lines of an export into a project (default: the client's own) without content.

        To continue an interrupted import, call it again with the same lines. ``progress`` is called after each batch.
        Values that the project already has, such as a title, are kept. With ``allow_missing_users``, content of users
        who do not exist here is imported without an owner.

        Raises: ``InvalidArgument`` for another format or version, or a damaged line; ``Conflict`` if the project has
        other content; ``NotFound`` for a user who does not exist: create it and continue.
        """

        async def run(operation: transfers.Import) -> ImportProgress:
            return await self._caller.run(operation, again=True)

        project = self._caller.project if project is None else project
        return await transfers.import_lines(
            run,
            project,
            lines,
            allow_missing_users=allow_missing_users,
            actor=await self._caller.actor(),
            progress=progress,
        )
