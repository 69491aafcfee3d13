"""Waiting for what must happen: for a condition, never for a span of time in which it should have happened.

`DEADLINE_S` bounds every wait in the suite. It is far longer than anything takes on a loaded machine, so it only ends a
test whose condition never comes true. Where the product promises to be done within a time, count it with `ticking`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, overload

import anyio
import asyncpg

from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.model.operation import Operation

__all__ = [
    "DEADLINE_S",
    "LASTING_S",
    "OFTEN",
    "ticking",
    "until",
    "until_blocked",
    "until_over",
    "until_stopped",
    "until_true",
    "while_uncommitted",
]

DEADLINE_S = 60.0
LASTING_S, OFTEN = 120.0, 600.0  # a TTL that no machine misses, and renewals within it: for `lease.RENEWALS_PER_TTL`

R = TypeVar("R")
T = TypeVar("T")


@overload
async def until(condition: Callable[[], Awaitable[T]], what: str = "", *, every_s: float = 0.01) -> T: ...
@overload
async def until(condition: Callable[[], T], what: str = "", *, every_s: float = 0.01) -> T: ...
async def until(condition: Callable[[], Any], what: str = "", *, every_s: float = 0.01) -> Any:
    """Call the condition until it returns a true value, or an awaitable of one, and return that value; `what` says in the error what it stood for."""
    with anyio.move_on_after(DEADLINE_S):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            await anyio.sleep(every_s)
    raise AssertionError(f"not within {DEADLINE_S:g} seconds: {what or condition}")


@asynccontextmanager
async def ticking(every_s: float) -> AsyncIterator[Callable[[], int]]:
    """Count ticks during the block, as a control of what it measures: on a busy machine, this process gets fewer of them."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(every_s)
            ticks += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        yield lambda: ticks
        tasks.cancel_scope.cancel()


async def until_true(connection: asyncpg.Connection, query: str, *values: object) -> None:
    """Run the query until it returns true."""
    await until(lambda: connection.fetchval(query, *values), query, every_s=0.005)


async def until_blocked(connection: asyncpg.Connection, blocked: asyncpg.Connection) -> None:
    """Wait until the statement of another connection waits for a lock."""

    async def look() -> bool:
        # In a transaction, the first look is kept for all others.
        await connection.execute("select pg_stat_clear_snapshot()")
        query = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
        return bool(await connection.fetchval(query, blocked.get_server_pid()))

    await until(look, "another session waits for a lock", every_s=0.005)


async def until_stopped(pid: int) -> None:
    """Wait until a process, of whichever parent, has been stopped by a signal."""

    async def look() -> bool:
        return (await anyio.Path(f"/proc/{pid}/stat").read_bytes()).rpartition(b") ")[2].startswith(b"T")

    await until(look, "the process is stopped")


async def until_over(connection: asyncpg.Connection) -> None:
    """Wait until all transactions have ended that are open now, in other databases too: a step meanwhile would not let events be pruned."""
    now = await connection.fetchval("select pg_current_xact_id()::text")
    await until_true(connection, "select pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8", now)


async def while_uncommitted(
    one: asyncpg.Connection,
    two: asyncpg.Connection,
    watcher: asyncpg.Connection,
    first: Operation[object],
    second: Operation[R],
    *,
    commit: bool = True,
) -> tuple[Any, R | CoordinatorError]:
    """Run `second` while `first` is done and not committed; it must wait for it. Return both results."""
    transaction = one.transaction()
    await transaction.start()
    answer = await call(one, first)
    task = asyncio.create_task(call(two, second))
    waits = asyncio.create_task(until_blocked(watcher, two))
    await asyncio.wait({task, waits}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waits.cancel()
        raise AssertionError(f"it did not wait: {task.exception() or task.result()!r}")
    await waits
    await (transaction.commit() if commit else transaction.rollback())
    try:
        return answer, await task
    except CoordinatorError as error:
        return answer, error
