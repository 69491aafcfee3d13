"""A pool of connections that calls use in turn.

The connection used last is used next, so that surplus ones become idle and are closed. While a connection is free, acquiring
it costs no round trip, no task and no turn of the event loop; asyncpg's pool spends 50 to 70 µs of each call on them, half of a
small call. Nothing is reset, because operations leave nothing in the session. Callers beyond ``max_size`` wait in order.

A lost connection is skipped. A connection whose call did not end (cancelled or timed out) is closed, because its next response
could belong to that call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import asyncpg

from coordinator.errors import CoordinatorError, DatabaseUnavailable

__all__ = ["Pool"]

IDLE_S = 60.0


class Pool:
    """At most ``max_size`` connections, opened on demand; those beyond ``min_size`` are closed after a minute without use."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, min_size: int, max_size: int) -> None:
        self._connect = connect
        self._min_size = min_size
        self._max_size = max_size
        self._turns = anyio.Semaphore(max_size, fast_acquire=True)
        self._free: deque[tuple[asyncpg.Connection, float]] = deque()
        self._open: set[asyncpg.Connection] = set()

    @asynccontextmanager
    async def taken(self, timeout_s: float) -> AsyncIterator[asyncpg.Connection]:
        """Acquire a connection for the context; ``acquire`` and ``release`` are faster."""
        connection = await self.acquire(timeout_s)
        sound = False
        try:
            yield connection
            sound = True
        except DatabaseUnavailable:
            raise
        except CoordinatorError:
            sound = True
            raise
        finally:
            self.release(connection, sound=sound)

    async def acquire(self, timeout_s: float) -> asyncpg.Connection:
        """Acquire a connection; pass it to ``release`` afterwards.

        Raises: ``DatabaseUnavailable`` if no connection became free in time, or none could be opened.
        """
        try:
            self._turns.acquire_nowait()
        except anyio.WouldBlock:
            try:
                with anyio.fail_after(timeout_s):
                    await self._turns.acquire()
            except TimeoutError:
                raise DatabaseUnavailable(
                    f"no connection became free within {timeout_s:g} seconds",
                    hint="Raise MAX_CONNECTIONS, or make fewer calls at once.",
                ) from None
        while self._free:
            connection, _ = self._free.pop()
            if not connection.is_closed():
                return connection
            self._open.discard(connection)
        try:
            connection = await self._connect()
        except BaseException:
            self._turns.release()
            raise
        self._open.add(connection)
        return connection

    def release(self, connection: asyncpg.Connection, *, sound: bool) -> None:
        """Return a connection to the pool; ``sound`` says that its call ended, with a result or with an error of the server."""
        now = time.monotonic()
        if not sound or connection.is_closed() or connection.is_in_transaction():
            self._cut(connection)
        else:
            self._free.append((connection, now))
        self._turns.release()
        while len(self._open) > self._min_size and self._free and self._free[0][1] < now - IDLE_S:
            self._cut(self._free.popleft()[0])

    async def close(self) -> None:
        """Close all connections, each after its call."""
        for _ in range(self._max_size):
            await self._turns.acquire()
        while self._free:
            await self._free.pop()[0].close()

    def terminate(self) -> None:
        """Close all connections at once."""
        for connection in list(self._open):
            self._cut(connection)

    def _cut(self, connection: asyncpg.Connection) -> None:
        self._open.discard(connection)
        connection.terminate()
