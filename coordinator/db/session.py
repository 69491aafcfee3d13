"""A direct connection that listens, and reconnects when it is lost.

After every connection, it wakes all waiters once, so that each checks what it missed; before that, ``on_connect`` runs.
A connection that has died silently is noticed within 5 seconds, since it does not answer a ping, or a call within
``call_timeout_s``. A connection to a server that is behind (``ServerBehind``) is replaced as well. It is not pinged
while nobody waits for its notifications (``awaited``): the next call shows whether it is alive.

The former session may still exist at the server, with the locks that it holds. The next connection ends it
(``end_former``), at the latest after ``on_connect``, which may take over a lock first. Notifications that were sent
while there was no connection are lost, and nothing may rely on them.

A connection that has reached its age is replaced: the new one listens and takes over calls and locks (``on_connect``),
and then the old one is closed. So neither a notification nor a lock is lost. The log reports once that the connection
is lost, and once that it is restored, however many attempts that takes.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple, TypeVar

import anyio
import asyncpg
import structlog

from coordinator.backoff import Backoff
from coordinator.db.call import call
from coordinator.db.connection import LOST, NO_ROOM, age_limit_s, from_postgres, retire
from coordinator.errors import DatabaseUnavailable, ServerBehind
from coordinator.model.operation import Operation
from coordinator.progress import Progress
from coordinator.telemetry import tracing

__all__ = ["ServerSession", "SessionWake"]

PING_S = 2.5  # without a notification or response
PING_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 4.0
END_S = 0.4
RENEW_AGAIN_S = 60.0  # after a connection could not be replaced at its age

# With these, the server notices within seconds that this host is gone, and releases the session's locks. They are not
# startup parameters, because poolers reject those.
_BEGIN = """
select pg_backend_pid(), (select backend_start from pg_stat_activity where pid = pg_backend_pid()),
       set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false)
"""
_END = """
select pg_terminate_backend(a.pid) from pg_stat_activity a
join unnest($1::integer[], $2::timestamptz[]) former (pid, since) on former.pid = a.pid and former.since = a.backend_start
"""

# The type of the event in a payload, which comes before anything that the event is about.
_TYPE = re.compile('"type": "([^"]*)"')

log = structlog.get_logger()
R = TypeVar("R")


class SessionWake:
    """Wakes one waiter on notifications. A notification between two waits is not lost.

    ``topics`` has the types of the events that ended the last wait. It is empty if they are unknown: anything may have
    happened. ``set_at`` is the monotonic time when it was first set after the previous wait.
    """

    def __init__(self) -> None:
        self.topics: frozenset[str] = frozenset()
        self.set_at = 0.0
        self._event = anyio.Event()
        self._heard: set[str] = set()
        self._unknown = False

    def set(self, *topics: str) -> None:
        """Wake the waiter, now or as soon as it waits."""
        self._heard.update(topics)
        self._unknown = self._unknown or not topics
        if not self._event.is_set():
            self.set_at = time.monotonic()
            self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a notification, at most ``timeout_s``; return whether there was one."""
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
        woken = self._event.is_set()
        self.topics = frozenset() if self._unknown else frozenset(self._heard)
        self._event, self._heard, self._unknown = anyio.Event(), set(), False
        return woken


class _Link(NamedTuple):
    """A connection, with events that are set when it is lost, and when its server is found to be behind."""

    connection: asyncpg.Connection
    lost: anyio.Event
    behind: anyio.Event


class ServerSession:
    """Keeps one direct connection open while ``run_forever`` runs."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        channels: Sequence[str],
        call_timeout_s: float,
        awaited: Callable[[], bool] = lambda: True,
        max_age_s: float = math.inf,
    ) -> None:
        self.connected = False
        """Whether there is a connection now, on which ``on_connect`` has done its work."""
        self.heard_at = 0.0
        """When there was news of the database: an answer or a notification, by the monotonic clock."""
        self._connect = connect
        self._channels = channels
        self._call_timeout_s = call_timeout_s
        self._awaited = awaited
        self._max_age_s = max_age_s
        self._progress = Progress()  # of connecting
        # Connections as the server identifies them. The last one is the newest; the others must end.
        self._former: list[tuple[int, datetime]] = []
        self._link: _Link | None = None
        self._wakes: list[tuple[str, Sequence[str], SessionWake]] = []
        self._lock = anyio.Lock()  # a connection carries one call at a time
        self.on_connect: Callable[[ServerSession], Awaitable[None]] | None = None
        self.on_change: Callable[[], None] = lambda: None  # after a connection was made or lost

    def wake(self, *channels: str, topics: Sequence[str] = ()) -> SessionWake:
        """Return what wakes a waiter on notifications of channels that the session listens on; with ``topics``, only of these events."""
        wake = SessionWake()
        wake.set()
        self._wakes += [(channel, topics, wake) for channel in channels]
        return wake

    async def run(self, operation: Operation[R]) -> R:
        """Run an operation on this connection.

        Raises: ``DatabaseUnavailable`` while there is no connection.
        """
        link = self._link
        if link is None:
            raise DatabaseUnavailable(
                "no direct connection to the database", hint="Try again: it reconnects automatically."
            )
        with tracing.operation(operation):
            async with self._lock:
                link = self._link or link  # another connection has replaced it meanwhile
                try:
                    result = await call(link.connection, operation, self._call_timeout_s)
                except DatabaseUnavailable as error:
                    if isinstance(error, ServerBehind):
                        link.behind.set()
                    if isinstance(error, ServerBehind) or isinstance(error.__cause__, TimeoutError):
                        link.lost.set()
                    raise
                finally:
                    if link.connection.is_closed():  # the driver does not report a connection that it closed itself
                        link.lost.set()
        self.heard_at = time.monotonic()
        return result

    def obstacle(self, tolerated_s: float) -> str | None:
        """Return why there is no connection, if it has been missing for longer than ``tolerated_s`` seconds."""
        reason = self._progress.obstacle(tolerated_s)
        return reason and f"no direct connection: {reason}"

    async def end_former(self) -> None:
        """End the sessions of former connections that may still exist at the server; ``on_connect`` may require that."""
        former = self._former[:-1]
        if former and self._link is not None:
            async with self._lock:
                await self._link.connection.execute(_END, *zip(*former, strict=True))
            self._former = [one for one in self._former if one not in former]

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[ServerSession]:
        """Keep the session, connected from the start, until the context ends.

        Raises: ``DatabaseUnavailable`` if the first connection fails.
        """
        first = await self._open()
        # Not a task group: readers yield inside the context, and a generator must not keep a cancel scope open. An exception
        # of the context also passes unchanged.
        keeping = asyncio.create_task(self._keep(first))
        try:
            yield self
        finally:
            keeping.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([keeping])
                await _retire(first.connection)  # still open if the task had not begun

    async def run_forever(self) -> None:
        """Keep the session until cancelled, with back-off from the first connection on."""
        await self._keep(None)

    async def _keep(self, opened: _Link | None) -> None:
        backoff = Backoff()
        progress = self._progress

        def failed(error: Exception) -> None:
            if progress.failed(error):
                log.warning("session.lost", error=str(error) or type(error).__name__)

        lost: asyncpg.Connection | None = None
        try:
            while True:
                try:
                    link = opened or await self._open()
                    opened = None
                except Exception as error:  # noqa: BLE001 - the session reconnects, whatever the cause
                    failed(error)
                    # The server has no room for two connections.
                    if isinstance(error, DatabaseUnavailable) and error.code.startswith(NO_ROOM):
                        await _retire(lost)
                        lost = None
                    await backoff.wait()
                    continue
                if lost is not None:
                    lost.terminate()
                lost = link.connection  # kept until another connection has taken over its locks
                if progress.made():
                    log.info("session.reconnected")
                self.on_change()
                try:
                    while isinstance(ended := await self._watch(link), _Link):
                        link = ended
                        lost = link.connection
                    failed(ended)
                finally:
                    self.connected, self._link = False, None
                    self.on_change()
                if link.behind.is_set():
                    await backoff.wait()
                else:
                    backoff.reset()
        finally:
            await _retire(lost)

    async def _listening(self, connection: asyncpg.Connection) -> _Link:
        link = _Link(connection, anyio.Event(), anyio.Event())
        connection.add_termination_listener(lambda _: link.lost.set())
        pid, since, *_ = await connection.fetchrow(_BEGIN)
        self._former.append((pid, since))
        for channel in self._channels:
            await connection.add_listener(channel, self._heard)
        return link

    async def _open(self) -> _Link:
        connection = await self._connect()
        try:
            link = self._link = await self._listening(connection)
            if self.on_connect is not None:
                await self.on_connect(self)
            await self.end_former()
        except BaseException as error:
            self._link = None
            connection.terminate()
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):  # a standby, where nobody can listen
                raise from_postgres(error) from error
            if isinstance(error, LOST):
                raise DatabaseUnavailable(f"the direct connection was lost: {error}") from error
            raise
        self.connected = True
        self.heard_at = time.monotonic()
        for _, _, wake in self._wakes:
            wake.set()
        return link

    async def _renew(self, old: _Link) -> _Link | None:
        """Replace a connection by a new one. Return None if that fails: then the old one continues, unless it was lost meanwhile."""
        connection, known = None, self._former[-1]
        try:
            connection = await self._connect()
            link = await self._listening(connection)
            async with self._lock:  # no call is running on the old connection
                self._link = link
            if self.on_connect is not None:
                await self.on_connect(self)
            await _retire(old.connection)
            await self.end_former()
        except BaseException as error:
            self._link = old
            self._former = [*(one for one in self._former if one != known), known]
            if connection is not None:
                connection.terminate()
            if not isinstance(error, Exception):
                raise
            log.warning("session.renew_failed", error=str(error) or type(error).__name__, retry_s=RENEW_AGAIN_S)
            return None
        self.heard_at = time.monotonic()
        for _, _, wake in self._wakes:  # the old connection may have been lost before the new one listened
            wake.set()
        return link

    def _heard(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self.heard_at = time.monotonic()
        for name, topics, wake in self._wakes:
            if name != channel:
                continue
            if not topics or (found := _TYPE.search(str(payload))) is None:
                wake.set()
            elif found[1] in topics:
                wake.set(found[1])

    async def _watch(self, link: _Link) -> Exception | _Link:
        """Return the reason once the connection is lost or does not respond, or its replacement once it has reached its age."""
        renew_at = time.monotonic() + age_limit_s(self._max_age_s)
        while not link.lost.is_set():
            now = time.monotonic()
            if now >= renew_at:
                if (renewed := await self._renew(link)) is not None:
                    return renewed
                renew_at = time.monotonic() + RENEW_AGAIN_S
                continue
            wait_s = self.heard_at + PING_S - now
            if wait_s > 0 or not self._awaited():
                with anyio.move_on_after(min(wait_s if wait_s > 0 else PING_S, renew_at - now)):
                    await link.lost.wait()
                continue
            try:
                async with self._lock:  # a call that is running has its own deadline
                    if not link.lost.is_set():
                        await link.connection.execute("select 1", timeout=PING_TIMEOUT_S)
                        self.heard_at = time.monotonic()
            except Exception as error:  # noqa: BLE001 - the connection is useless, whatever the cause
                return error
        if link.behind.is_set():
            return ServerBehind("the server is behind: another one has succeeded it")
        return DatabaseUnavailable("the connection was closed")


async def _retire(connection: asyncpg.Connection | None) -> None:
    """Close a connection, without waiting for a server that does not respond."""
    if connection is not None:
        with anyio.move_on_after(END_S, shield=True):
            await retire(connection)
