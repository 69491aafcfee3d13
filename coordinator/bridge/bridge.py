"""One run of the program: the coordinator's address, the project, and the connection."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from coordinator.config.bridge import BridgeSettings
from coordinator.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from coordinator.model.operation import Operation

if TYPE_CHECKING:
    from coordinator.operations.executor import Runner

__all__ = ["Bridge", "BridgeError", "note", "plain", "project_name", "read_input", "say", "with_address"]

NO_PROJECT = "ZC201"
DIGEST = 12  # hexadecimal digits
NAME = 36

R = TypeVar("R")


class BridgeError(Exception):
    """A command failed; the text of the error is the line that explains why."""


def project_name(project_id: str) -> str:
    """Return the name of the project for an id: the id itself or, if it is not a valid name, always the same derived name."""
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,35}", project_id):
        return project_id
    from hashlib import sha256  # noqa: PLC0415 - most ids are names

    digest = sha256(project_id.encode("utf-8", "surrogateescape")).hexdigest()[:DIGEST]
    readable = re.sub(r"[^a-z0-9]+", "-", project_id.lower()).strip("-")[: NAME - 1 - DIGEST].rstrip("-")
    return f"{readable}-{digest}" if readable else digest


class Bridge:
    """The context of a command. It connects at the first call."""

    def __init__(self, given: BridgeSettings) -> None:
        self.config = given.config
        self.project_id = given.project_id
        self.named = given.named
        self.project = project_name(given.project_id)
        self.agent = given.agent
        self.address = given.address
        self._runner: Runner | None = None

    @property
    def url(self) -> str:
        """Address of the database or daemon.

        Raises: ``DatabaseUnavailable`` if none is configured and no embedded server runs.
        """
        if self.config.database_url is not None:
            return self.config.database_url
        from coordinator.embedded import address  # noqa: PLC0415 - slow to import

        return address(self.config.data_dir)

    async def perform(self, command: Callable[[Bridge, list[str]], Awaitable[None]], arguments: list[str]) -> None:
        """Run a command, with a connection if it makes a call."""
        from contextlib import AsyncExitStack  # noqa: PLC0415

        async with AsyncExitStack() as self._stack:
            await command(self, arguments)

    async def run(self, operation: Operation[R]) -> R:
        """Run one operation. A write creates the project if there is none.

        Raises: what the operation raises; ``PermissionDenied`` if there is no project, and the caller may not create it.
        """
        if self._runner is None:
            from coordinator.client.brief import opened  # noqa: PLC0415

            self._runner = await self._stack.enter_async_context(opened(self.url, self.config))
        try:
            return await self._runner.run(operation)
        except UnicodeError:
            raise InvalidArgument("the arguments are not valid UTF-8", hint="Use UTF-8 text.") from None
        except NotFound as error:
            project = operation.about()
            if error.code != NO_PROJECT or operation.reads or not isinstance(project, str):
                raise
        await self._create(self._runner, project)
        return await self._runner.run(operation)

    async def _create(self, runner: Runner, project: str) -> None:
        from coordinator.operations import projects  # noqa: PLC0415 - needed once per project

        meant = "" if project == self.project_id else f"RECAC_PROJECT_ID {plain(self.project_id)[:200]}"
        try:
            await runner.run(projects.Create(project=project, description=meant))
        except Conflict:  # another process has just created it
            pass
        except PermissionDenied as error:
            command = f'"coordinator project create {project}"'
            raise PermissionDenied(
                f'there is no project "{project}", and this token or role may not create it',
                hint=f"An administrator can create it with {with_address(command, self.address, as_other=True)}.",
            ) from error


def with_address(hint: str, address: str | None, *, as_other: bool = False) -> str:
    """Return a hint whose commands name the server, since only this program reads RECAC_DB_URL.

    The address has no password; ``as_other``: also no user, because somebody else runs the command.
    """
    if address is None:
        return hint
    from coordinator.model.address import without_credentials, without_password  # noqa: PLC0415 - on errors only
    from coordinator.model.hint import with_options  # noqa: PLC0415

    shown = without_credentials(address) if as_other else without_password(address)
    return with_options(hint, [("--url", shown)]) or hint


def say(text: str) -> None:
    """Write a line of output."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Write a line on standard error."""
    sys.stderr.write(f"{plain(text)}\n")


def plain(text: str) -> str:
    """Return a text as one line: control characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def read_input(limit: int) -> bytes:
    """Read standard input.

    Raises: ``BridgeError`` if it is empty, or larger than ``limit`` bytes.
    """
    data = sys.stdin.buffer.read(limit + 1)
    if not data:
        raise BridgeError("empty input")
    if len(data) > limit:
        raise BridgeError(f"the input has more than {limit} bytes")
    return data
