"""Connections that calls take in turns.

The one used last goes first, so that the surplus grows idle and is closed. A turn costs no round trip, no task and no
turn of the event loop while a connection is free: asyncpg's own pool spends 50 to 70 µs of each call on those, which is
half of a small call. Nothing is reset: operations leave nothing in the session. Callers beyond ``most`` wait in order.

A connection that was lost is left out when its turn comes. One whose call did not end (cancelled, timed out) is cut: its
next answer could be that of the last question.
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
    """At most ``most`` connections, opened when needed; more than ``least`` are closed after a minute without use."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, least: int, most: int) -> None:
        self._connect = connect
        self._least = least
        self._most = most
        self._turns = anyio.Semaphore(most, fast_acquire=True)
        self._free: deque[tuple[asyncpg.Connection, float]] = deque()
        self._open: set[asyncpg.Connection] = set()

    @asynccontextmanager
    async def taken(self, timeout_s: float) -> AsyncIterator[asyncpg.Connection]:
        """Take a connection for the context: see ``acquire`` and ``release``, which are quicker."""
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
        """Take a connection; give it back with ``release``.

        Raises: ``DatabaseUnavailable`` when none was free in time or none could be opened.
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
                    hint="More calls at once than connections: raise MAX_CONNECTIONS, or call less at once.",
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
        """Give a connection back; ``sound``: its call ended, well or with an error of the server's."""
        now = time.monotonic()
        if not sound or connection.is_closed() or connection.is_in_transaction():
            self._cut(connection)
        else:
            self._free.append((connection, now))
        self._turns.release()
        while len(self._open) > self._least and self._free and self._free[0][1] < now - IDLE_S:
            self._cut(self._free.popleft()[0])

    async def close(self) -> None:
        """Close all connections, those in use after their call."""
        for _ in range(self._most):
            await self._turns.acquire()
        while self._free:
            await self._free.pop()[0].close()

    def terminate(self) -> None:
        """Cut all connections."""
        for connection in list(self._open):
            self._cut(connection)

    def _cut(self, connection: asyncpg.Connection) -> None:
        self._open.discard(connection)
        connection.terminate()
