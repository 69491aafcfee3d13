"""The pool on a real server: calls that do not end, a server without room, connections that die silently."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import anyio
import asyncpg
import pytest

from coordinator.db import connection as connection_module
from coordinator.db import pool as pool_module
from coordinator.db.connection import connect
from coordinator.db.pool import Pool
from coordinator.errors import CoordinatorError, DatabaseUnavailable
from coordinator.telemetry import metrics
from tests.conftest import admin
from tests.daemon import opened
from tests.faults.proxy import Proxy
from tests.waiting import DEADLINE_S, until, until_true

BACKENDS = (
    "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'coordinator'"
    " and pid <> pg_backend_pid()"
)
ASLEEP = BACKENDS + " and query like '%pg_sleep%' and state = 'active'"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count on the server's word that a call has ended, however late it comes."""
    monkeypatch.setattr(connection_module, "RETIRE_S", DEADLINE_S)


@asynccontextmanager
async def pool_of(url: str, size: int) -> AsyncIterator[Pool]:
    pool = Pool(lambda: connect(url), min_size=0, max_size=size)
    try:
        yield pool
    finally:
        await pool.terminate()


async def call(pool: Pool, query: str = "select 1", timeout_s: float = DEADLINE_S) -> None:
    connection = await pool.acquire(DEADLINE_S)
    sound = False
    try:
        await connection.execute(query, timeout=timeout_s)
        sound = True
    finally:
        pool.release(connection, sound=sound)


async def test_calls_that_time_out_leave_nothing_running_and_never_more_backends_than_the_pool_has(
    database_url: str,
) -> None:
    async with opened(database_url) as watcher, pool_of(database_url, 3) as pool:

        async def hasty() -> None:
            for _ in range(4):
                with suppress(TimeoutError):
                    await call(pool, "select pg_sleep(600)", 0.05)

        seen: list[int] = []

        async def looked() -> bool:
            seen.append(await watcher.fetchval(BACKENDS))
            return len(seen) >= 20 and max(seen) > 0

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(hasty)
            await until(looked, "the pool has backends")
        assert max(seen) <= 3
        await until_true(watcher, f"select ({ASLEEP}) = 0")
        await call(pool)


async def test_metrics_say_what_a_pool_has_who_waits_and_who_got_nothing(database_url: str) -> None:
    def of(metric: str, **labels: str) -> float | None:
        return metrics.REGISTRY.get_sample_value(f"coordinator_pool_{metric}", {"pool": "tried", **labels})

    pool = Pool(lambda: connect(database_url), min_size=0, max_size=1, name="tried")
    try:
        held = await pool.acquire(DEADLINE_S)
        assert (of("size"), of("connections", state="busy"), of("connections", state="idle")) == (1, 1, 0)
        before = of("timeouts_total") or 0
        with pytest.raises(DatabaseUnavailable):
            await pool.acquire(0)
        assert of("timeouts_total") == before + 1
        had = of("wait_seconds_count")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, pool)
            await until(lambda: of("waiting") == 1, "the call waits")
            pool.release(held, sound=True)
        assert of("wait_seconds_count") == (had or 0) + 1
        assert (of("waiting"), of("connections", state="busy"), of("connections", state="idle")) == (0, 0, 1)
    finally:
        await pool.terminate()
    assert (of("connections", state="busy"), of("connections", state="idle")) == (0, 0)


async def test_a_call_that_is_cancelled_ends_at_the_server_too(database_url: str) -> None:
    async with opened(database_url) as watcher, pool_of(database_url, 1) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, pool, "select pg_sleep(600)")
            await until_true(watcher, f"select ({ASLEEP}) = 1")
            tasks.cancel_scope.cancel()
        await call(pool)  # which has its place
        assert await watcher.fetchval(ASLEEP) == 0


@asynccontextmanager
async def limited_role(server_url: str, database_url: str, limit: int) -> AsyncIterator[tuple[str, str]]:
    """Create a role with few connections; its name, and the database's address for it."""
    role = f"few_{uuid4().hex[:10]}"
    await admin(server_url, f"create role {role} login connection limit {limit}")
    try:
        parts = urlsplit(database_url)
        yield role, urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
    finally:
        await admin(server_url, f"drop role {role}")


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_pool_that_the_server_does_not_let_grow_queues_for_what_it_has(
    server_url: str, database_url: str, limit: int
) -> None:
    async with (
        limited_role(server_url, database_url, limit) as (_, url),
        pool_of(url, 10) as pool,
        anyio.create_task_group() as tasks,
    ):
        await call(pool)
        for _ in range(60):
            tasks.start_soon(call, pool, "select pg_sleep(0.002)")


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_pool_that_the_server_gives_no_connection_fails_at_once(
    server_url: str, database_url: str, limit: int
) -> None:
    async with (
        limited_role(server_url, database_url, limit) as (_, url),
        pool_of(url, 10) as first,
        pool_of(url, 10) as second,
    ):
        for _ in range(limit):
            await first.acquire(DEADLINE_S)
        with pytest.raises(DatabaseUnavailable, match="too many connections"):  # it has none to wait for
            await second.acquire(DEADLINE_S)


async def test_a_connection_that_becomes_free_during_a_failed_attempt_to_grow_is_used(database_url: str) -> None:
    asked, refused = anyio.Event(), anyio.Event()

    async def second() -> asyncpg.Connection:
        asked.set()
        await refused.wait()
        raise DatabaseUnavailable("too many connections", code="53300")

    async with pool_of(database_url, 2) as pool:
        only = await pool.acquire(DEADLINE_S)
        pool._connect = second
        other = asyncio.create_task(pool.acquire(DEADLINE_S))
        await asked.wait()
        pool.release(only, sound=True)
        refused.set()
        assert await other is only
        pool.release(only, sound=True)


async def test_a_pool_grows_again_when_the_server_has_room(
    server_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "GROW_AGAIN_S", 0.0)
    async with limited_role(server_url, database_url, 1) as (role, url), pool_of(url, 2) as pool:
        held = await pool.acquire(DEADLINE_S)
        with pytest.raises(DatabaseUnavailable, match="became free"):
            await pool.acquire(0.2)
        await admin(server_url, f"alter role {role} connection limit 2")
        other = await pool.acquire(DEADLINE_S)
        pool.release(held, sound=True)
        pool.release(other, sound=True)


async def test_connections_that_died_while_idle_fail_no_call(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "CHECK_AFTER_S", 0.0)
    monkeypatch.setattr(connection_module, "CHECK_S", 0.3)
    monkeypatch.setattr(connection_module, "RETIRE_S", 0.2)
    async with Proxy(database_url).serving() as network, pool_of(network.url, 4) as pool:
        connections = [await pool.acquire(DEADLINE_S) for _ in range(4)]
        for connection in connections:
            pool.release(connection, sound=True)
        network.forget_connections()
        checks = 0
        answers = pool_module.answers

        async def counted(connection: asyncpg.Connection) -> bool:
            nonlocal checks
            checks += 1
            return await answers(connection)

        monkeypatch.setattr(pool_module, "answers", counted)
        await call(pool)
        assert checks == 1, "one mute connection condemns the others that were idle"


async def test_a_call_on_a_connection_that_died_condemns_those_that_were_idle_before(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "RETIRE_S", 0.2)
    async with Proxy(database_url).serving() as network, pool_of(network.url, 4) as pool:
        connections = [await pool.acquire(DEADLINE_S) for _ in range(4)]
        for connection in connections:
            pool.release(connection, sound=True)
        network.forget_connections()
        with pytest.raises(TimeoutError):
            await call(pool, timeout_s=0.3)

        async def served() -> bool:
            with suppress(TimeoutError):
                await call(pool, timeout_s=5)
                return True
            return False

        assert await until(served)
        await until(lambda: not set(connections) & set(pool._open), "the others have been closed")


async def test_random_calls_that_fail_and_are_cancelled_lose_no_place(database_url: str, seed: int) -> None:
    chance = random.Random(seed)
    ends = 0

    async def one(pool: Pool) -> None:
        nonlocal ends
        query = chance.choice(
            ["select 1", "select 1/0", "select pg_sleep(0.02)", "select pg_terminate_backend(pg_backend_pid())"]
        )
        with suppress(
            CoordinatorError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError
        ):
            with anyio.move_on_after(chance.choice([0, 0.001, 0.005, 0.02, DEADLINE_S])):
                await call(pool, query)
        ends += 1

    async with pool_of(database_url, 3) as pool:
        async with anyio.create_task_group() as tasks:
            for _ in range(150):
                tasks.start_soon(one, pool)
                if chance.random() < 0.3:
                    await anyio.sleep(0.002)
        assert ends == 150
        async with anyio.create_task_group() as tasks:
            for _ in range(9):
                tasks.start_soon(call, pool, "select pg_sleep(0.001)")
        assert not pool._waiting
        await until(lambda: settled(pool), "what was cancelled has been closed")
        assert len(pool._open) == len(pool._free) <= 3
        with anyio.fail_after(DEADLINE_S):
            await pool.close()
        assert not pool._open


async def settled(pool: Pool) -> bool:
    return not pool._retiring


# ------------------------------------------------------------------------------------------------------------- their age


async def test_a_connection_at_its_age_is_closed_after_its_call_and_another_one_serves_the_next(
    database_url: str,
) -> None:
    pool = Pool(lambda: connect(database_url), min_size=1, max_size=1, max_age_s=0.01)
    try:
        connection = await pool.acquire(DEADLINE_S)
        await until(lambda: connection in pool._aged, "it has its age")
        assert await connection.fetchval("select 1") == 1  # the call that has it continues
        pool.release(connection, sound=True)
        other = await pool.acquire(DEADLINE_S)  # there is room for one: the first is closed
        assert other is not connection
        assert connection.is_closed()
        pool.release(other, sound=True)
    finally:
        await pool.terminate()


async def test_a_connection_that_nobody_uses_is_closed_at_its_age(database_url: str) -> None:
    pool = Pool(lambda: connect(database_url), min_size=1, max_size=1, max_age_s=0.01)
    try:
        await call(pool)
        async with opened(database_url) as watcher:
            await until_true(watcher, f"select ({BACKENDS}) = 0")
        await call(pool)
    finally:
        await pool.terminate()
    assert not pool._ageing


def test_connections_that_were_opened_together_do_not_end_together() -> None:
    ages = [connection_module.age_limit_s(3600.0) for _ in range(100)]
    assert len(set(ages)) > 90
    assert min(ages) >= 2880
    assert max(ages) <= 3600
