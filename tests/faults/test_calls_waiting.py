"""The calls of one project wait for what somebody holds; all others continue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import httpx
import pytest

from coordinator.api.admission import Admission
from coordinator.api.problems import Overloaded
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.model.token import new_secret
from coordinator.operations import tokens
from tests.daemon import Daemon, check_unavailable, opened
from tests.http_client import http_client
from tests.waiting import DEADLINE_S, until, until_true

HOT = {"key": "hot", "value": 1}
SIZE = 8
ENDLESS = {
    "max_connections": SIZE,
    "min_connections": 1,
    "call_timeout_s": 600,
    "http_queue_s": 60,
    "access": "tokens",
    "constants": {"coordinator.db.connection.LOCK_WAIT_S": 600},
}
WAITING = (
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    " and query like '%signal_set%'"
)


@asynccontextmanager
async def held(url: str, *, bound: bool) -> AsyncIterator[asyncpg.Connection]:
    """Hold the signal hot in an open transaction; without ``bound``, waits for it end when it does."""
    async with opened(url) as connection:
        await connection.execute("select coordinator.signal_set('default', 'hot', '0')")
        if not bound:
            await connection.execute("alter function coordinator.signal_set reset lock_timeout")
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("select coordinator.signal_set('default', 'hot', '0')")
        try:
            yield connection
        finally:
            await transaction.rollback()


async def token(url: str) -> dict[str, str]:
    secret = new_secret()
    async with Database.open(url, Config(min_connections=1, max_connections=1)) as database:
        await database.run(
            tokens.Create(name=secret.prefix, role="admin", hash=secret.hash, prefix=secret.prefix, project=None)
        )
    return {"authorization": f"Bearer {secret.text}"}


async def test_calls_of_one_project_that_wait_stop_no_other_project_no_token_check_and_not_the_lead(
    database_url: str,
) -> None:
    """Here they wait without a limit, so that nothing continues because they have ended."""
    headers = await token(database_url)
    with Daemon(database_url, **ENDLESS) as daemon:
        await (await daemon.ready()).lead()
        async with (
            opened(database_url) as watcher,
            http_client(daemon.url, headers=headers) as http,
            held(database_url, bound=False),
            anyio.create_task_group() as tasks,
        ):
            await http.post("/v1/projects/create", json={"project": "other"})

            async def hot() -> None:
                assert (await http.post("/v1/signals/set", json=HOT)).status_code == httpx.codes.OK

            for _ in range(SIZE * 3):
                tasks.start_soon(hot)

            async def stuck() -> bool:
                return bool(await watcher.fetchval(WAITING) == SIZE - SIZE // 4)

            await until(stuck, "the project has all the turns that it can get")
            before = await daemon.heartbeats()
            with anyio.fail_after(DEADLINE_S):
                for turn in range(5):
                    answer = await http.post("/v1/signals/set", json={"project": "other", "key": "k", "value": turn})
                    assert answer.status_code == httpx.codes.OK
                    fresh = await token(database_url)  # which nobody has checked before
                    answer = await http.get("/v1/signals", params={"project": "other"}, headers=fresh)
                    assert answer.status_code == httpx.codes.OK

            async def goes_on() -> bool:
                ready = (await daemon.get("/readyz")).status_code == httpx.codes.OK
                return ready and daemon.leads and await daemon.heartbeats() >= before + 3

            await until(goes_on, "it sends heartbeats, and leads", every_s=0.1)
            assert await watcher.fetchval(WAITING) == SIZE - SIZE // 4
            # The context lets go of the signal before the group waits for the calls.
            tasks.cancel_scope.cancel()


@pytest.mark.usefixtures("bounded_waits")
async def test_a_call_that_waits_too_long_gets_503_that_names_the_session(database_url: str) -> None:
    with Daemon(database_url, constants={"coordinator.db.lookout.LOOK_S": 0.05}) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as http, held(database_url, bound=True) as holder:
            for headers in ({}, {"idempotency-key": "once"}):

                async def named(headers: dict[str, str] = headers) -> dict[str, Any] | None:
                    """On a busy machine, a call may have ended before its wait can be seen."""
                    answer = await http.post("/v1/signals/set", json=HOT, headers=headers)
                    check_unavailable(answer)
                    said = answer.json()
                    assert said["code"] == "55P03"
                    return dict(said) if said.get("facts") else None

                said = await until(named, "the answer names a session")
                assert said["facts"]["pid"] == holder.get_server_pid()
                assert f"Session {holder.get_server_pid()} of role" in said["hint"]


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "once"}])
async def test_what_a_client_asked_for_ends_at_the_server_when_the_client_leaves(
    database_url: str, headers: dict[str, str]
) -> None:
    with Daemon(database_url, **(ENDLESS | {"access": "open"})) as daemon:
        await daemon.ready()
        async with opened(database_url) as watcher, held(database_url, bound=False):

            async def ask() -> None:
                async with http_client(daemon.url) as http:
                    await http.post("/v1/signals/set", json=HOT, headers=headers)

            async def waits() -> bool:
                return await watcher.fetchval(WAITING) > 0

            async def none_waits() -> bool:
                return not await waits()

            asking = asyncio.create_task(ask())
            await until(waits, "the call waits")
            asking.cancel()
            await until(none_waits, "the call has ended")
        async with http_client(daemon.url) as http:
            assert (await http.post("/v1/signals/set", json=HOT, headers=headers)).status_code == httpx.codes.OK
        assert not daemon.lines("request.failed"), daemon.output()


async def test_acquires_that_time_out_leave_no_backend(database_url: str) -> None:
    """They did: 15 at a time left 15, 30, 45 backends, until the server had no room for a superuser."""
    async with opened(database_url) as watcher:
        agent = await watcher.fetchval("select id from coordinator.agent_register('default', 'a', p_ttl => '1 hour')")
        key = await watcher.fetchval("select hashtextextended('', id) from coordinator.projects where name = 'default'")
        await watcher.fetchval("select pg_advisory_lock($1)", key)
        with Daemon(database_url, max_connections=4, min_connections=1, call_timeout_s=0.5, http_queue_s=30) as daemon:
            await daemon.ready()
            async with http_client(daemon.url) as http:
                for _ in range(3):
                    async with anyio.create_task_group() as tasks:

                        async def acquire() -> None:
                            answer = await http.post(
                                "/v1/locks/acquire", json={"resources": ["a"], "agent": str(agent)}, timeout=DEADLINE_S
                            )
                            check_unavailable(answer)

                        for _ in range(15):
                            tasks.start_soon(acquire)
                    acquiring = "select count(*) from pg_stat_activity where query like '%lock_acquire%' and pid <> pg_backend_pid()"
                    await until_true(watcher, f"select ({acquiring}) <= 4")


async def admitted(admission: Admission, key: str, order: list[str], go: anyio.Event) -> None:
    await admission.enter(key)
    order.append(key)
    await go.wait()
    admission.leave(key)


async def test_a_project_alone_leaves_a_quarter_free_and_among_others_gets_half() -> None:
    admission = Admission(Config(max_connections=8, http_queue_s=60))
    order: list[str] = []
    go, stop = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(admitted, admission, "a", order, go)
        await anyio.wait_all_tasks_blocked()
        assert order == ["a"] * 6
        for _ in range(20):
            tasks.start_soon(admitted, admission, "b", order, stop)
        await anyio.wait_all_tasks_blocked()
        assert order == ["a"] * 6 + ["b"] * 2
        order.clear()
        go.set()  # the calls of a end, one after the other
        await anyio.wait_all_tasks_blocked()
        assert order[:2] == ["b", "b"], "then it has half, and a the other"
        assert order[2:16] == ["a"] * 14
        assert order[16:] == ["b"] * 2, "then it is alone"
        stop.set()
    assert order.count("b") == 18
    await admission.enter("c")
    admission.leave("c")
    assert admission._free == 8
    assert not admission._running
    assert not admission._queues


async def test_a_place_in_the_queue_that_is_left_is_nobodys() -> None:
    admission = Admission(Config(max_connections=1, http_queue_s=0.01))
    await admission.enter("a")
    with pytest.raises(Overloaded):
        await admission.enter("a")
    with anyio.move_on_after(0):
        await admission.enter("b")
    admission.leave("a")
    assert (admission._free, admission._queued, admission._queues) == (1, 0, {})
    await admission.enter("b")
    admission.leave("b")
