"""One run of the program: its flags, the settings made of them, and the way to the database and to the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import msgspec

from coordinator import config as settings
from coordinator.cli.output import Output
from coordinator.errors import ConfigurationError, DatabaseUnavailable
from coordinator.model.address import is_gateway
from coordinator.model.operation import Operation
from coordinator.model.page import Page, place_of, walk

if TYPE_CHECKING:
    from coordinator.db.single import Connection
    from coordinator.operations.executor import Executor

__all__ = ["Invocation"]

R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)


class Invocation:
    """What every verb gets. ``flags`` has, by setting, how the flag is spelled and its value."""

    def __init__(self) -> None:
        self.flags: dict[str, tuple[str, str]] = {}
        self.profile: str | None = None
        self.file: str | None = None

    @cached_property
    def config(self) -> settings.Config:
        """The settings.

        Raises: ``ConfigurationError``.
        """
        return settings.load(profile=self.profile, file=self.file, flags=self.flags)

    @cached_property
    def output(self) -> Output:
        """Where results go."""
        return Output(self.config.output)

    @property
    def project(self) -> str:
        """Name of the project."""
        return self.config.project

    @property
    def actor(self) -> str | None:
        """Who does it; none: the database's role."""
        return self.config.actor

    def dsn(self, *, direct: bool = False) -> str:
        """Find the database, or the daemon to call; ``direct``: past any pooler.

        Raises: ``DatabaseUnavailable`` where none is configured and no local one runs.
        """
        config = self.config
        if config.database_url is not None:
            return (config.direct_url if direct else None) or config.database_url
        from coordinator import embedded  # noqa: PLC0415

        server = embedded.find(config.data_dir)
        if server is None:
            raise DatabaseUnavailable(
                f"no database is configured, and no local one runs in {config.data_dir}",
                hint='Start one with "coordinator serve", or give --url postgresql://…',
            )
        return server.dsn

    @asynccontextmanager
    async def open(self, *, direct: bool = False) -> AsyncIterator[Executor]:
        """Open what operations run on: a connection to the database, or to a daemon or sidecar."""
        dsn = self.dsn(direct=direct)
        if is_gateway(dsn):
            from coordinator.client.http import HttpExecutor  # noqa: PLC0415

            async with HttpExecutor.open(dsn, self.config) as executor:
                yield executor
            return
        from coordinator.db.single import Single  # noqa: PLC0415

        async with Single.open(dsn, self.config) as single:
            yield single

    def run(self, operation: Operation[R]) -> R:
        """Run one operation on a connection of its own."""

        async def once() -> R:
            async with self.open() as executor:
                return await executor.run(operation)

        return _finish(once())

    def list(
        self,
        operation: Operation[list[S]],
        columns: Iterable[str],
        *,
        after: str | None,
        limit: int | None,
        empty: str,
    ) -> None:
        """Write a list, read page by page on one connection: ``limit`` rows, or all, behind the cursor ``after``."""
        if after is not None:
            operation = msgspec.structs.replace(operation, after=place_of(type(operation), after))

        async def read() -> Page[S]:
            rows: Page[S] = Page()
            async with self.open() as executor:
                async for page in walk(executor.run, operation, limit):
                    rows += page
                    rows.cursor = page.cursor
            return rows

        rows = _finish(read())
        self.output.many(rows, columns, empty=empty)
        if rows.cursor is not None:
            self.output.note(f"There may be more: --after {rows.cursor}")

    def on_connection(self, function: Callable[[Connection], Awaitable[R]]) -> R:
        """Run a function on a direct connection: what is no operation, as the schema's own.

        Raises: ``ConfigurationError`` where a daemon's address is given instead of the database's.
        """
        if is_gateway(self.dsn(direct=True)):
            raise ConfigurationError("this needs the database itself", hint="Give --url postgresql://…")
        from coordinator.db.single import connected  # noqa: PLC0415

        async def once() -> R:
            async with connected(self.dsn(direct=True), self.config) as connection:
                return await function(connection)

        return _finish(once())


def _finish(work: Coroutine[None, None, R]) -> R:
    import asyncio  # noqa: PLC0415 - help does without

    return asyncio.run(work)
