"""One connection for operations, for programs that make a few calls and end.

It has no pool and no task, and is cheap to import. It does not reconnect: the caller opens another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from asyncpg import Connection

from coordinator.config import Config
from coordinator.db.call import Transaction, call, call_at_least
from coordinator.db.connection import LOST, connect, mapped_errors
from coordinator.model.operation import Objects, Operation, complete
from coordinator.telemetry import tracing

if TYPE_CHECKING:
    from coordinator.db.session import SessionWake

__all__ = ["Connection", "Single", "connected"]

CLOSE_TIMEOUT_S = 2.0

R = TypeVar("R")


@asynccontextmanager
async def connected(dsn: str, config: Config) -> AsyncIterator[Connection]:
    """Open a connection, and close it when the context ends.

    Raises: ``DatabaseUnavailable``, ``ConfigurationError``.
    """
    connection = await connect(
        dsn, statement_cache_size=config.statement_cache_size, call_timeout_s=config.call_timeout_s
    )
    try:
        yield connection
    finally:
        try:
            await connection.close(timeout=CLOSE_TIMEOUT_S)
        except LOST:
            connection.terminate()


class Single:
    """Runs operations on one connection, one after the other; an ``Executor``."""

    def __init__(self, connection: Connection, objects: Objects | None = None) -> None:
        self._connection = connection
        self._objects = objects

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, config: Config, objects: Objects | None = None) -> AsyncIterator[Single]:
        """Open the connection, and close it when the context ends. ``objects`` completes results.

        Raises: ``DatabaseUnavailable``, ``ConfigurationError``.
        """
        async with connected(dsn, config) as connection:
            yield cls(connection, objects)

    async def run(self, operation: Operation[R]) -> R:
        """Run an operation in a transaction."""
        with tracing.operation(operation):
            if operation.prepares:
                operation = await operation.prepared(self)
            return await complete(operation, await call(self._connection, operation), self._objects)

    async def run_at_least(self, included: Operation[bool], operation: Operation[R]) -> R:
        """Run a read on a server that includes a position."""
        result = await call_at_least(self._transaction, included, operation)
        return await complete(operation, result, self._objects)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        with mapped_errors():
            async with self._connection.transaction():
                yield Transaction(self._connection)

    @asynccontextmanager
    async def wake(self, *, project: str | None = None, topics: Sequence[str] = ()) -> AsyncIterator[SessionWake]:  # noqa: ARG002
        """Listen on this connection for new events in the log. If it is lost, the waiter wakes, and its next call fails."""
        # Slow to import, and needed only by followers.
        from coordinator.db.database import HEAD_CHANNEL  # noqa: PLC0415
        from coordinator.db.session import SessionWake  # noqa: PLC0415

        wake = SessionWake()
        self._connection.add_termination_listener(lambda _: wake.set())
        with mapped_errors():
            await self._connection.add_listener(HEAD_CHANNEL, lambda *_: wake.set())
        yield wake
