"""A pool of connections that calls use in turn.

The connection used last is used next, so that surplus ones become idle and are closed. While a connection is free,
acquiring it costs no round trip, no task and no turn of the event loop. asyncpg's pool spends 50 to 70 µs of each call
on these, half the time of a small call. Connections are not reset, because operations leave no state in the session.

Guarantees: the server has at most ``max_size`` backends of the pool. A call that did not end (cancelled or timed out)
is cancelled at the server before its connection is closed, because the next response could belong to that call. Its
place is free when the server has confirmed this, or after ``RETIRE_S``. Callers beyond ``max_size`` wait in order. So
do callers beyond the limit of the server, as long as the pool has a connection.

A connection that has reached its age is closed when no call uses it; the next call that needs one opens another. So
memory and caches of backends do not grow for ever, and a changed password, certificate or address of the server takes
effect.

On failure: a lost connection is skipped. A connection that was idle for ``CHECK_AFTER_S``, or whose last call took that
long, is used only after it has answered a ping and its server is not behind (``epochs``). If a connection does not
respond to the ping, or does not confirm a cancellation, the other connections that have been idle since before then are
closed too, because they are probably dead as well. While no connection is open and none can be opened, ``obstacle``
returns the reason; ``stay_open`` tries again, so that this ends even without calls.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import asyncpg

from coordinator.backoff import Backoff
from coordinator.db.connection import CONNECT_TIMEOUT_S, NO_ROOM, UNAVAILABLE_HINT, age_limit_s, answers, retire
from coordinator.db.epochs import Epochs
from coordinator.errors import CoordinatorError, DatabaseBusy, DatabaseUnavailable
from coordinator.progress import Progress
from coordinator.telemetry import metrics

__all__ = ["Pool", "is_sound"]

IDLE_S = 60.0
CHECK_AFTER_S = 5.0
GROW_AGAIN_S = 1.0  # after the server refused another connection
STAY_OPEN_S = 1.0  # between two checks whether a connection is open


def is_sound(error: CoordinatorError) -> bool:
    """Return whether a connection can be used again after a call that raised this exception."""
    return not isinstance(error, DatabaseUnavailable) or isinstance(error, DatabaseBusy)


class Pool:
    """At most ``max_size`` connections, opened on demand; those beyond ``min_size`` are closed after a minute without use.

    ``name`` is the name in the metrics.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        *,
        min_size: int,
        max_size: int,
        max_age_s: float = math.inf,
        name: str = "calls",
        epochs: Epochs | None = None,
    ) -> None:
        self._connect = connect
        self._name = name
        self._progress = Progress()  # of attempts to open the first connection
        self._epochs = epochs or Epochs()
        self._min_size = min_size
        self._max_size = max_size
        self._max_age_s = max_age_s
        self._full_until = 0.0
        self._opening = 0
        self._open: dict[asyncpg.Connection, float] = {}  # with the time when each was taken or returned
        self._free: deque[asyncpg.Connection] = deque()
        self._ageing: dict[asyncpg.Connection, asyncio.TimerHandle] = {}
        self._aged: set[asyncpg.Connection] = set()
        # A waiting caller receives a connection, or None if there may be room for another one.
        self._waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self._retiring: set[asyncio.Task[None]] = set()
        self._waited = metrics.POOL_WAIT_SECONDS.labels(name)
        self._timeouts = metrics.POOL_TIMEOUTS.labels(name)
        metrics.POOL_SIZE.labels(name).set_function(lambda: self._max_size)
        metrics.POOL_CONNECTIONS.labels(name, "idle").set_function(lambda: len(self._free))
        metrics.POOL_CONNECTIONS.labels(name, "busy").set_function(lambda: len(self._open) - len(self._free))
        metrics.POOL_WAITING.labels(name).set_function(lambda: len(self._waiting))

    @asynccontextmanager
    async def taken(self, timeout_s: float) -> AsyncIterator[asyncpg.Connection]:
        """Acquire a connection for the context; ``acquire`` and ``release`` are faster."""
        connection = await self.acquire(timeout_s)
        sound = False
        try:
            yield connection
            sound = True
        except CoordinatorError as error:
            sound = is_sound(error)
            raise
        finally:
            self.release(connection, sound=sound)

    async def acquire(self, timeout_s: float) -> asyncpg.Connection:
        """Acquire a connection; pass it to ``release`` afterwards.

        Raises: ``DatabaseUnavailable`` if no connection became free in time, or none could be opened.
        """
        if self._free and not self._waiting:
            connection = self._free.pop()
            now = time.monotonic()
            if now - self._open[connection] < CHECK_AFTER_S and not connection.is_closed():
                self._open[connection] = now
                return connection
            self._free.append(connection)
        began = time.monotonic()
        try:
            with anyio.fail_after(timeout_s):
                connection = await self._acquire()
        except TimeoutError:
            self._timeouts.inc()
            if self._is_open:
                raise DatabaseUnavailable(
                    f"no connection became free within {timeout_s:g} seconds",
                    hint="Raise MAX_CONNECTIONS, or make fewer calls at once.",
                ) from None
            error = DatabaseUnavailable(
                f"no connection could be opened within {timeout_s:g} seconds", hint=UNAVAILABLE_HINT
            )
            self._progress.failed(error)
            raise error from None
        self._waited.observe(time.monotonic() - began)
        return connection

    def begun(self) -> list[float]:
        """Return when each connection in use was taken."""
        return [taken_at for connection, taken_at in self._open.items() if connection not in self._free]

    def obstacle(self) -> str | None:
        """Return the reason why no connection can be opened while none is open, or None."""
        reason = None if self._is_open else self._progress.obstacle(0)
        return reason and f"no connection for {self._name}: {reason}"

    async def stay_open(self) -> None:
        """Open a connection whenever none is open, until cancelled."""
        pause = Backoff(STAY_OPEN_S, STAY_OPEN_S)
        while True:
            await pause.wait()
            if not self._is_open:
                with suppress(Exception):  # ``obstacle`` reports the error
                    async with self.taken(CONNECT_TIMEOUT_S):
                        pass

    def release(self, connection: asyncpg.Connection, *, sound: bool) -> None:
        """Return a connection to the pool; ``sound`` means that its call ended, with a result or with an error of the server."""
        now = time.monotonic()
        if not sound or connection in self._aged or connection.is_closed() or connection.is_in_transaction():
            self._retire(connection)
        else:
            # Otherwise the process may have been paused, so check the connection.
            if now - self._open[connection] < CHECK_AFTER_S:
                self._open[connection] = now
            self._give(connection)
        while (
            len(self._open) - len(self._retiring) > self._min_size
            and self._free
            and self._open[self._free[0]] < now - IDLE_S
        ):
            self._retire(self._free.popleft())

    async def close(self) -> None:
        """Close all connections, each after its current call."""
        self._max_size = 0
        while self._open or self._opening:
            while self._free:
                self._retire(self._free.pop())
            connection = await self._wait()
            if connection is not None:
                self._retire(connection)

    async def terminate(self) -> None:
        """Close all connections at once."""
        for connection in list(self._open):
            connection.terminate()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for timer in self._ageing.values():
            timer.cancel()
        self._ageing.clear()
        self._free.clear()
        self._open.clear()

    async def _acquire(self) -> asyncpg.Connection:
        turn = not self._waiting or self._has_room
        while True:
            if not self._max_size:
                self._offer_room()  # pass it on to the next caller, or to ``close``
                raise DatabaseUnavailable("the connections are being closed", hint="Connect again.")
            while turn:
                while self._free:
                    connection = self._free.pop()
                    if await self._checked(connection):
                        return connection
                if not self._has_room:
                    break
                if (grown := await self._grow()) is not None:
                    return grown  # otherwise a connection may have become free meanwhile
            given = await self._wait()
            turn = given is None
            if given is not None and await self._checked(given):
                return given

    @property
    def _has_room(self) -> bool:
        return len(self._open) + self._opening < self._max_size and (
            not self._open or time.monotonic() >= self._full_until
        )

    @property
    def _is_open(self) -> bool:
        return not all(connection.is_closed() for connection in self._open)

    async def _grow(self) -> asyncpg.Connection | None:
        """Open a connection; return None if the server does not admit more connections than the pool has.

        Raises: ``DatabaseUnavailable``.
        """
        self._opening += 1
        connection = None
        try:
            connection = await self._connected()
            self._open[connection] = time.monotonic()
            if self._max_age_s < math.inf:
                age_s = age_limit_s(self._max_age_s)
                self._ageing[connection] = asyncio.get_running_loop().call_later(age_s, self._age, connection)
        except DatabaseUnavailable as error:
            if not (error.code.startswith(NO_ROOM) and self._open):
                self._offer_room()  # waiting callers also receive the error
                raise
            self._full_until = time.monotonic() + GROW_AGAIN_S
        except BaseException:
            self._offer_room()
            raise
        finally:
            self._opening -= 1
        return connection

    async def _connected(self) -> asyncpg.Connection:
        try:
            connection = await self._connect()
        except Exception as error:
            if not self._is_open:
                self._progress.failed(error)
            raise
        self._progress.made()
        return connection

    async def _wait(self) -> asyncpg.Connection | None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(waiter)
            elif (connection := waiter.result()) is not None:
                self.release(connection, sound=True)
            else:
                self._offer_room()
            raise

    def _give(self, connection: asyncpg.Connection) -> None:
        if (waiter := self._next()) is not None:
            waiter.set_result(connection)
        else:
            self._free.append(connection)

    def _offer_room(self) -> None:
        if (waiter := self._next()) is not None:
            waiter.set_result(None)

    def _next(self) -> asyncio.Future[asyncpg.Connection | None] | None:
        while self._waiting:
            if not self._waiting[0].done():
                return self._waiting.popleft()
            self._waiting.popleft()
        return None

    async def _checked(self, connection: asyncpg.Connection) -> bool:
        """Return whether a connection is alive; retire it if it is not."""
        began = time.monotonic()
        idle_s = began - self._open[connection]
        self._open[connection] = began
        alive = False
        try:
            alive = not connection.is_closed() and (
                idle_s < CHECK_AFTER_S or (await answers(connection) and await self._epochs.holds(connection))
            )
        finally:
            if not alive:
                self._retire(connection)
        if not alive and idle_s >= CHECK_AFTER_S:
            self._retire_idle(began)
        return alive

    def _age(self, connection: asyncpg.Connection) -> None:
        """Close a connection that has reached its age: now if it is free, otherwise after its call."""
        self._aged.add(connection)
        if connection in self._free:
            self._free.remove(connection)
            self._retire(connection)

    def _retire_idle(self, since: float) -> None:
        """Retire the free connections that were last used before ``since``."""
        for connection in [free for free in self._free if self._open[free] < since]:
            self._free.remove(connection)
            self._retire(connection)

    def _retire(self, connection: asyncpg.Connection) -> None:
        """Cancel what the connection runs, and close it; then its place is free."""
        if connection.is_closed():
            self._forget(connection)
            return
        task = asyncio.get_running_loop().create_task(self._end(connection))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _end(self, connection: asyncpg.Connection) -> None:
        taken_at = self._open.get(connection, 0.0)
        try:
            if not await retire(connection):
                self._retire_idle(taken_at)
        finally:
            self._forget(connection)

    def _forget(self, connection: asyncpg.Connection) -> None:
        self._open.pop(connection, None)
        self._aged.discard(connection)
        if (timer := self._ageing.pop(connection, None)) is not None:
            timer.cancel()
        self._offer_room()
