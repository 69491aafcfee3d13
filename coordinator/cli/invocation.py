"""One run of the program: its flags, its settings, its connection and its output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import click
import msgspec
from click.exceptions import Exit

from coordinator import config as settings
from coordinator.cli.given import CommandLine
from coordinator.cli.output import Output
from coordinator.errors import ConfigurationError
from coordinator.model.address import is_gateway, without_password
from coordinator.model.lag import tolerating
from coordinator.model.operation import Operation
from coordinator.model.page import Page, place_of, walk
from coordinator.model.position import reported
from coordinator.telemetry import tracing

if TYPE_CHECKING:
    from coordinator.db.single import Connection
    from coordinator.operations.executor import AtLeastRunner, Executor

__all__ = ["Invocation"]

Op = TypeVar("Op", bound=Operation[Any])
R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)
Ts = TypeVarTuple("Ts")


_WHERE = {"data_dir": "--data-dir", "database_url": "--url", "project": "--project"}


class Invocation(CommandLine):
    """The object that every verb receives."""

    def origins(self) -> list[settings.Origin]:
        """Return every setting with its value and the source of the value.

        Raises: ``ConfigurationError``.
        """
        return settings.origins(profile=self.profile, file=self.file, flags=self.flags)

    @cached_property
    def output(self) -> Output:
        """The destination of results."""
        return Output(self.config.output, wide=self.wide)

    @property
    def project(self) -> str:
        """Name of the project."""
        return self.config.project

    @property
    def whereabouts(self) -> list[tuple[str, str]]:
        """The location options of the command line, for the commands in a hint; never an address with a password."""
        options = [("--profile", self.profile), ("--config", self.file)]
        options += [(option, self.flags[name][1]) for name, option in _WHERE.items() if name in self.flags]
        return [
            (option, value)
            for option, value in options
            if value is not None and (option != "--url" or without_password(value) == value)
        ]

    def operation(self, kind: type[Op], /, **fields: Any) -> Op:
        """Make an operation from a verb's options; project and actor come from the settings."""
        for name in {"project", "actor"} & {*kind.__struct_fields__} - fields.keys():
            fields[name] = getattr(self.config, name)
        return kind(**{name: [*value] if isinstance(value, tuple) else value for name, value in fields.items()})

    @asynccontextmanager
    async def _brief(self) -> AsyncIterator[AtLeastRunner]:
        """Connect for a few consecutive calls; reads include ``--at-least``. Run the code that uses it with ``_finish_brief``."""
        from coordinator.client import brief  # noqa: PLC0415

        dsn = self.dsn()
        objects = None
        if not is_gateway(dsn):
            from coordinator.objects import ObjectStore  # noqa: PLC0415

            objects = ObjectStore(self.config)
        with self._span():
            async with brief.opened(dsn, self.config, objects) as reader:
                if self.at_least is None:
                    yield reader
                    return
                from coordinator.operations.at_least import ReadsAtLeast  # noqa: PLC0415

                yield ReadsAtLeast(reader, self.at_least)

    def _finish_brief(self, function: Callable[[], Coroutine[Any, Any, R]]) -> R:
        from coordinator.client import brief  # noqa: PLC0415

        return brief.finish(self.dsn(), function())

    @asynccontextmanager
    async def open(self, *, direct: bool = False) -> AsyncIterator[Executor]:
        """Connect to the database, a daemon or a sidecar; reads include ``--at-least``."""
        with self._span():
            async with self._open(direct=direct) as executor:
                if self.at_least is None:
                    yield executor
                    return
                from coordinator.operations.at_least import AtLeast  # noqa: PLC0415

                yield AtLeast(executor, self.at_least)

    @asynccontextmanager
    async def _open(self, *, direct: bool) -> AsyncIterator[Executor]:
        dsn = self.dsn(direct=direct)
        if is_gateway(dsn):
            from coordinator.client.http import HttpExecutor  # noqa: PLC0415

            async with HttpExecutor.open(dsn, self.config) as executor:
                yield executor
            return
        from coordinator.db.single import Single  # noqa: PLC0415
        from coordinator.objects import ObjectStore  # noqa: PLC0415

        async with Single.open(dsn, self.config, ObjectStore(self.config)) as single:
            yield single

    def _span(self) -> tracing.Span:
        """Return the span of this command, below the span of its caller; start tracing if it is on."""
        config = self.config
        if config.tracing == "on":
            tracing.start("coordinator-cli")
        context = click.get_current_context(silent=True)
        name = "coordinator" if context is None else context.command_path
        return tracing.received(name, "internal", {}, tracing.parsed(config.traceparent))

    def serve(self, program: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Run a program that logs, on an event loop of its own, until it ends."""
        import anyio  # noqa: PLC0415 - slow to import, like the imports below

        from coordinator.telemetry import logs  # noqa: PLC0415

        config = self.config
        logs.configure(format=config.log_format, level=config.log_level, slow_call_s=config.slow_call_s)
        anyio.run(program, *args, backend_options={"use_uvloop": True})

    def run(self, operation: Operation[R]) -> R:
        """Run one operation on a new connection. With ``--position``, the program ends after a write and prints its position.

        Raises: what the operation raises.
        """
        (result,) = self.run_all([operation])
        return result

    def run_all(self, operations: Iterable[Operation[R]]) -> list[R]:
        """Run operations one after the other, as ``run`` does, on one connection.

        Raises: what they raise.
        """
        wrote = False

        async def each() -> list[R]:
            nonlocal wrote
            results = []
            async with self._brief() as executor:
                for operation in operations:
                    wrote = not operation.reads
                    if not is_gateway(self.dsn()):
                        operation.check_settings(self.config)
                    results.append(await executor.run(operation))
            return results

        with reported() as positions:
            results = self._finish_brief(each)
        if self.position and wrote:
            for position in positions:
                self.output.line(position)
            raise Exit(0)
        return results

    def until_answered(self, operation: Operation[R], timeout_s: float | None) -> R:
        """Run an operation with ``woken_by`` until it has a result.

        Raises: what the operation raises; ``WaitTimedOut``.
        """
        from coordinator.operations.waiting import until_answered  # noqa: PLC0415

        async def answer() -> R:
            async with (
                self.open(direct=True) as executor,
                executor.wake(project=self.project, topics=operation.woken_by) as wake,
            ):
                return await until_answered(executor, operation, wake, timeout_s)

        return _finish(answer())

    def read(self, operation: Operation[list[S]], *, after: str | None, limit: int | None) -> Page[S]:
        """Return ``limit`` rows of a list, or all, after the cursor ``after``; read them page by page."""
        if after is not None:
            operation = msgspec.structs.replace(operation, after=place_of(type(operation), after))

        async def read() -> Page[S]:
            rows: Page[S] = Page()
            async with self._brief() as executor:
                async for page in walk(executor.run, operation, limit):
                    rows += page
                    rows.cursor = page.cursor
            return rows

        with tolerating(None if self.max_lag is None else self.max_lag.total_seconds()):
            return self._finish_brief(read)

    def list(
        self,
        operation: Operation[list[S]],
        columns: Iterable[str],
        *,
        after: str | None,
        limit: int | None,
        empty: str,
    ) -> None:
        """Write ``limit`` rows of a list, or all, after the cursor ``after``."""
        rows = self.read(operation, after=after, limit=limit)
        self.output.many(rows, columns, empty=empty)
        if any(getattr(row, "partial", False) for row in rows):
            self.output.note(
                "More was found, and only the newest matches were ranked: add words, or restrict the search."
            )
        self.more(rows)

    def more(self, rows: Page[S]) -> None:
        """Print the cursor of the last row, if more rows may follow."""
        if rows.cursor is not None:
            self.output.note(f"There may be more: --after {rows.cursor}")

    def through(self, function: Callable[[Executor], Awaitable[R]]) -> R:
        """Run a function that makes several calls on one connection.

        Raises: what the function raises.
        """

        async def once() -> R:
            async with self.open() as executor:
                return await function(executor)

        return _finish(once())

    def direct_dsn(self) -> str:
        """Return the address of the database itself.

        Raises: ``ConfigurationError`` if the address is that of a daemon; ``DatabaseUnavailable`` if there is none.
        """
        dsn = self.dsn(direct=True)
        if is_gateway(dsn):
            raise ConfigurationError(
                "this command needs a direct connection to the database", hint="Give --url postgresql://…"
            )
        return dsn

    def on_connection(self, function: Callable[[Connection], Awaitable[R]]) -> R:
        """Run a function that is not an operation on a direct connection.

        Raises: ``ConfigurationError`` if the address is that of a daemon.
        """
        dsn = self.direct_dsn()
        from coordinator.db.single import connected  # noqa: PLC0415

        async def once() -> R:
            async with connected(dsn, self.config) as connection:
                return await function(connection)

        return _finish(once())


def _finish(work: Coroutine[None, None, R]) -> R:
    import asyncio  # noqa: PLC0415 - help does not need it

    return asyncio.run(work)
