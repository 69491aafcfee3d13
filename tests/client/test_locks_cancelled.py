"""A waiter that is cancelled, wherever it is, holds nothing afterwards and stops nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import anyio
import pytest

import coordinator
from coordinator.client import Client, lease, lock_wait
from coordinator.client.caller import Caller
from coordinator.db.database import Database
from coordinator.errors import DatabaseUnavailable, WaitTimedOut
from coordinator.model.operation import Operation
from coordinator.operations import locks
from tests.client.conftest import relayed
from tests.daemon import Daemon
from tests.waiting import DEADLINE_S, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unhurried")]

STEPS_MIN = 3  # at which the work waits: acquire, poll, release


class CancelledAt:
    """Awaits work whose task is cancelled where it waits for the n-th time: at once, or when what it waits for has come."""

    def __init__(self, work: Awaitable[None], n: int, *, late: bool) -> None:
        self._work = work
        self._left = n
        self._late = late

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        steps = self._work.__await__()
        error: BaseException | None = None
        while True:
            try:
                waits_for = steps.throw(error) if error else next(steps)
            except StopIteration:
                return
            self._left -= 1
            if self._left == 0:
                if self._late and isinstance(waits_for, asyncio.Future):
                    waits_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            error = None
            try:
                yield waits_for
            except BaseException as raised:  # noqa: BLE001 - passed on to the work
                error = raised


async def nothing_is_left(db: Database, client: Client) -> None:
    async def free() -> bool:
        return not await db.run(locks.List(project="default")) and not await client.locks.waiting("a")

    with anyio.fail_after(DEADLINE_S):
        await until(free, "nothing is held, and nobody waits")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("through", ["postgresql", "http"])
async def test_wherever_a_waiter_is_cancelled_it_leaves_nothing(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, through: str, late: bool
) -> None:
    monkeypatch.setattr(lock_wait, "POLL_S", 3600)
    async with AsyncExitStack() as stack:
        url = database_url
        if through == "http":
            daemon = stack.enter_context(Daemon(database_url))
            await daemon.ready()
            url = daemon.url
        else:
            await stack.enter_async_context(relayed(db))
        coder = await stack.enter_async_context(coordinator.connect(url, agent="coder", ttl=600))
        tester = await stack.enter_async_context(coordinator.connect(url, agent="tester", ttl=600))

        async def work() -> None:
            async with tester.lock("a", wait=3600, ttl=600):
                pass

        async def waits(n: int) -> None:
            await CancelledAt(work(), n, late=late)

        cancelled = 0
        for n in count(1):  # at every one, to the end
            async with coder.lock("a", ttl=600):
                task = asyncio.create_task(waits(n))

                async def stands(task: asyncio.Task[None] = task) -> bool:
                    return task.done() or bool(await coder.locks.waiting("a"))

                await until(stands)
            await asyncio.wait([task], timeout=DEADLINE_S)
            await nothing_is_left(db, coder)
            if task.cancelled():
                cancelled += 1
            else:
                await task
                break
        assert cancelled >= STEPS_MIN


async def test_a_grant_whose_response_never_came_is_released(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Caller.run

    async def unheard(self: Caller, operation: Operation[Any], *, again: bool = False) -> Any:
        result = await run(self, operation, again=again)
        if isinstance(operation, locks.Acquire) and not lost:
            lost.append(operation)
            raise DatabaseUnavailable("the connection was lost")
        return result

    lost: list[object] = []
    async with coordinator.connect(database_url, agent="coder", ttl=600) as coder:
        monkeypatch.setattr(Caller, "run", unheard)
        with pytest.raises(DatabaseUnavailable):
            await coder.locks.acquire("a", ttl=600)
        await nothing_is_left(db, coder)


async def test_a_lock_that_could_not_be_renewed_before_its_block_is_released(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Caller.run

    async def slow(self: Caller, operation: Operation[Any], *, again: bool = False) -> Any:
        if isinstance(operation, locks.Renew):
            raise DatabaseUnavailable("the connection was lost")
        return await run(self, operation, again=again)

    async with coordinator.connect(database_url, agent="coder", ttl=600) as coder:
        monkeypatch.setattr(Caller, "run", slow)
        monkeypatch.setattr(lease, "RENEWALS_PER_TTL", 1e9)  # every lease is to be renewed at once
        with pytest.raises(DatabaseUnavailable):
            async with coder.lock("a", ttl=600):
                pytest.fail("entered")
        await nothing_is_left(db, coder)


async def test_a_wait_times_out_even_if_its_ticket_was_swept_while_it_was_polled(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Caller.run

    async def late(self: Caller, operation: Operation[Any], *, again: bool = False) -> Any:
        if isinstance(operation, locks.Poll):  # sent in time, executed after it
            await anyio.sleep(1.1)
            await db.run(locks.Expire())
        return await run(self, operation, again=again)

    async with (
        coordinator.connect(database_url, agent="coder", ttl=600) as coder,
        coordinator.connect(database_url, agent="tester", ttl=600) as tester,
        coder.lock("a"),
    ):
        monkeypatch.setattr(Caller, "run", late)
        with pytest.raises(WaitTimedOut):
            await tester.locks.acquire("a", wait=1)
