"""Finds the sessions that calls wait for, so that an error can name the blocking session.

The server shows this only while a call waits, and only to another connection. While calls are in progress, a timer
checks whether one has lasted for ``LOOK_S``; then one query finds what blocks them all. This costs each call only the
reading of one field.

On failure, errors have a general hint. Behind a pooler, the sessions of calls are unknown, so an error names what
blocks any session of this role and application.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

import asyncpg

from coordinator.db.connection import APPLICATION_NAME, LOST
from coordinator.errors import CoordinatorError, DatabaseBusy
from coordinator.model.json import encode

__all__ = ["Lookout"]

LOOK_S = 0.4  # well below LOCK_WAIT_S
BELIEVED_S = 1.5

# Follow a queue to the session at its head, which waits for nobody.
_BLOCKERS = """
with recursive chain (waiting, pid, depth) as (
  select a.pid, unnest(pg_blocking_pids(a.pid)), 1 from pg_stat_activity a
  where a.datname = current_database() and a.application_name = $1 and a.wait_event_type = 'Lock'
  union
  select c.waiting, unnest(pg_blocking_pids(c.pid)), c.depth + 1 from chain c where c.depth < 5
)
select distinct on (c.waiting) c.waiting, b.pid, b.usename, coalesce(extract(epoch from clock_timestamp() - b.xact_start), 0)
from chain c join pg_stat_activity b on b.pid = c.pid
where cardinality(pg_blocking_pids(b.pid)) = 0
order by c.waiting, b.xact_start
"""


class _Blocker(NamedTuple):
    pid: int
    role: str
    open_s: float
    seen_at: float


class Lookout:
    """Watches the calls that ``begun`` returns, each with its start time."""

    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection]], begun: Callable[[], Collection[float]]
    ) -> None:
        self.armed = False
        self._connect = connect
        self._begun = begun
        self._blockers: dict[int, _Blocker] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def arm(self) -> None:
        """Watch until no call is in progress."""
        self.armed = True
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def explained(self, error: DatabaseBusy, connection: asyncpg.Connection) -> DatabaseBusy:
        """Return the error, with the session that blocked a connection's call if it is known."""
        if error.detail is not None:
            return error
        oldest = time.monotonic() - BELIEVED_S
        fresh = {pid: blocker for pid, blocker in self._blockers.items() if blocker.seen_at > oldest}
        found = fresh.get(connection.get_server_pid()) or next(iter(fresh.values()), None)
        if found is None:
            return error
        return DatabaseBusy(
            error.message,
            code=error.code,
            detail=encode({"pid": found.pid, "role": found.role}).decode(),
            hint=f'Session {found.pid} of role "{found.role}", whose transaction has been open for {found.open_s:.1f} s, is in'
            f" the way. Try again, or end that session: select pg_terminate_backend({found.pid})",
        )

    def _look(self) -> None:
        begun = self._begun()
        if begun and time.monotonic() - min(begun) >= LOOK_S and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._ask())
        if begun:
            self.arm()
        else:
            self.armed = False
            self._blockers = {}

    async def _ask(self) -> None:
        try:
            connection = await self._connect()
        except CoordinatorError:
            return
        try:
            rows = await connection.fetch(_BLOCKERS, APPLICATION_NAME, timeout=LOOK_S * 5)
            now = time.monotonic()
            self._blockers |= {row[0]: _Blocker(row[1], row[2] or "", float(row[3]), now) for row in rows}
        except LOST:
            return
        finally:
            connection.terminate()
