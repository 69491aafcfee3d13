"""The database that operations run on: a pool for calls, and direct connections for listeners and for calls that must not wait.

A call is one round trip. A read is repeated once if its connection is dead, for example after a restart of the server.
A write is never repeated: a lost response may mean that the write succeeded.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import asyncpg
import msgspec
import structlog

from coordinator.backoff import Backoff
from coordinator.config import Config
from coordinator.db.call import Transaction, call, call_at_least
from coordinator.db.connection import connect, mapped_errors
from coordinator.db.epochs import Epochs
from coordinator.db.lookout import Lookout
from coordinator.db.pool import Pool, is_sound
from coordinator.db.session import CALL_TIMEOUT_S, ServerSession, SessionWake
from coordinator.errors import CoordinatorError, DatabaseBusy, DatabaseUnavailable
from coordinator.model.address import without_password
from coordinator.model.operation import Objects, Operation, complete
from coordinator.telemetry import tracing

__all__ = ["HEAD_CHANNEL", "Database", "Transaction", "connect_within"]

HEAD_CHANNEL = "coordinator"
CLOSE_S = 2.0

log = structlog.get_logger()
R = TypeVar("R")


class Database:
    """Runs operations on PostgreSQL; an ``Executor``."""

    def __init__(
        self,
        pool: Pool,
        dsn: str,
        direct_dsn: str,
        config: Config,
        *,
        raw_json: bool = False,
        objects: Objects | None = None,
        epochs: Epochs | None = None,
    ) -> None:
        self.epochs = epochs or Epochs()
        self._pool = pool
        self.dsn = dsn
        self.direct_dsn = direct_dsn
        self._config = config
        self._raw_json = raw_json
        self._objects = objects
        self._lookout = Lookout(self.connect, pool.begun)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        config: Config,
        *,
        direct_dsn: str | None = None,
        raw_json: bool = False,
        objects: Objects | None = None,
        name: str = "calls",
        epochs: Epochs | None = None,
    ) -> AsyncIterator[Database]:
        """Open a pool that connects on demand; close it when the context ends, and running calls after ``CLOSE_S`` seconds.

        ``raw_json``: see ``connect``. ``objects`` completes results; without it, the caller does. ``name`` is the name
        of the pool in the metrics. ``epochs`` are shared with the other pools of this process.

        Raises: ``DatabaseUnavailable`` if the first connection fails.
        """
        epochs = epochs or Epochs()

        async def opened() -> asyncpg.Connection:
            return await connect(
                dsn,
                statement_cache_size=config.statement_cache_size,
                call_timeout_s=config.call_timeout_s,
                raw_json=raw_json,
                check=epochs.check,
            )

        pool = Pool(
            opened,
            min_size=min(config.min_connections, config.max_connections),
            max_size=config.max_connections,
            max_age_s=config.max_connection_age_s,
            name=name,
            epochs=epochs,
        )
        direct_dsn = direct_dsn or config.direct_url or dsn
        database = cls(pool, dsn, direct_dsn, config, raw_json=raw_json, objects=objects, epochs=epochs)
        try:
            async with pool.taken(config.call_timeout_s):
                pass
            yield database
        finally:
            database._lookout.close()
            try:
                with anyio.move_on_after(CLOSE_S):  # in case the server does not respond
                    await pool.close()
            finally:
                with anyio.CancelScope(shield=True):
                    await pool.terminate()

    async def run(self, operation: Operation[R]) -> R:
        """Run an operation in a transaction."""
        with tracing.operation(operation):
            if operation.prepares:
                operation = await operation.prepared(self)
            try:
                result = await self._run(operation)
            except DatabaseUnavailable:
                if not operation.reads:
                    raise
                result = await self._run(operation)
            return await complete(operation, result, self._objects)

    async def run_at_least(self, included: Operation[bool], operation: Operation[R]) -> R:
        """Run a read on a server that includes a position."""
        result = await call_at_least(self.transaction, included, operation)
        return await complete(operation, result, self._objects)

    async def _run(self, operation: Operation[R]) -> R:
        connection = await self._pool.acquire(self._config.call_timeout_s)
        if not self._lookout.armed:
            self._lookout.arm()
        sound = False
        try:
            answer = await call(connection, operation)
            sound = True
        except DatabaseBusy as error:
            sound = True
            raise self._lookout.explained(error, connection) from error
        except CoordinatorError as error:
            sound = is_sound(error)
            raise
        finally:
            self._pool.release(connection, sound=sound)
        return answer

    @asynccontextmanager
    async def transaction(self, idempotency_key: str | None = None) -> AsyncIterator[Transaction]:  # noqa: ARG002
        """Run several operations in one transaction: all of them, or none if the context raises an exception.

        One of the operations records the idempotency key, so only a daemon between client and database needs to know
        it.
        """
        async with self._pool.taken(self._config.call_timeout_s) as connection:
            if not self._lookout.armed:
                self._lookout.arm()
            try:
                with mapped_errors():
                    async with connection.transaction():
                        yield Transaction(connection)
            except DatabaseBusy as error:
                raise self._lookout.explained(error, connection) from error

    def obstacle(self) -> str | None:
        """Return why no call can be made, or None if calls are possible as far as is known."""
        return self._pool.obstacle()

    async def stay_open(self) -> None:
        """Open a connection for calls whenever there is none, until cancelled, so that ``obstacle`` is updated even without calls."""
        await self._pool.stay_open()

    @asynccontextmanager
    async def aside(self, name: str, size: int, call_timeout_s: float | None = None) -> AsyncIterator[Database]:
        """Open another pool that bypasses any pooler, for calls that must not queue behind others.

        Raises: ``DatabaseUnavailable``. The first connection is made here, before calls can use up all connections of
        the server.
        """
        config = msgspec.structs.replace(
            self._config,
            min_connections=1,
            max_connections=size,
            call_timeout_s=call_timeout_s or self._config.call_timeout_s,
        )
        async with Database.open(
            self.direct_dsn, config, direct_dsn=self.direct_dsn, name=name, epochs=self.epochs
        ) as database:
            yield database

    async def connect(self) -> asyncpg.Connection:
        """Open a direct connection; the caller closes it."""
        return await connect(
            self.direct_dsn,
            statement_cache_size=self._config.statement_cache_size,
            call_timeout_s=self._config.call_timeout_s,
            raw_json=self._raw_json,
            check=self.epochs.check,
        )

    async def notify(self, channel: str) -> bool:
        """Notify a channel from a pooled connection, to test whether a session receives it. False: the queue is full."""
        async with self._pool.taken(self._config.call_timeout_s) as connection:
            with mapped_errors():
                return bool(await connection.fetchval("select coordinator.relay_notify($1, '')", channel))

    def session(
        self, *channels: str, call_timeout_s: float | None = None, awaited: Callable[[], bool] = lambda: True
    ) -> ServerSession:
        """Return a direct connection that listens and reconnects; run it in a task group."""
        timeout_s = min(call_timeout_s or CALL_TIMEOUT_S, self._config.call_timeout_s)
        return ServerSession(self.connect, channels, timeout_s, awaited, self._config.max_connection_age_s)

    @asynccontextmanager
    async def wake(self, *, project: str | None = None, topics: Sequence[str] = ()) -> AsyncIterator[SessionWake]:
        """Listen for new events in the log, on a separate connection.

        With a project and topics, it listens only on their channels. There are no notifications on these while NOTIFY
        is set to carry only the head.
        """
        if project is None or not topics:
            channels, topics = [HEAD_CHANNEL], ()
        else:
            channels = sorted({f"{HEAD_CHANNEL}.{project}.{topic.partition('.')[0]}" for topic in topics})
        async with self.session(*channels).kept() as session:
            yield session.wake(*channels, topics=topics)


async def connect_within(limit_s: float, dsn: str, *, call_timeout_s: float = 30.0) -> asyncpg.Connection:
    """Open a connection; while the database is unavailable, try again for ``limit_s`` seconds.

    Raises: as ``connect``.
    """
    deadline = time.monotonic() + limit_s
    backoff = Backoff(0.1, 5.0)
    while True:
        try:
            return await connect(dsn, call_timeout_s=call_timeout_s)
        except DatabaseUnavailable as error:
            if time.monotonic() + backoff.next_s > deadline:
                raise DatabaseUnavailable(
                    f"no database within {limit_s:g} seconds: {error.message}",
                    hint=f"Check that {without_password(dsn)} is right and that the server runs.",
                ) from error
            log.warning("database.connect_failed", error=error.message, retry_s=backoff.next_s)
            await backoff.wait()
