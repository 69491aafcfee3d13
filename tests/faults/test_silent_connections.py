"""Connections die silently: a device in between forwards nothing more for them, and closes none. New ones work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import asyncpg
import httpx
import pytest

import coordinator
from coordinator.client import Client
from coordinator.client.lease import LeaseState
from coordinator.config import SETTINGS, Config
from coordinator.db import connection as connection_module
from coordinator.db import session as session_module
from coordinator.db.connection import connect
from coordinator.db.database import Database
from coordinator.db.session import ServerSession
from coordinator.errors import DatabaseUnavailable
from coordinator.operations import events
from coordinator.operations.liveness import Liveness
from tests.api.sse import stream
from tests.daemon import Daemon, opened
from tests.faults.proxy import Proxy
from tests.http_client import http_client
from tests.sidecar.conftest import sidecar
from tests.waiting import DEADLINE_S, ticking, until, until_true

QUICK = {
    "coordinator.db.session.PING_S": 0.2,
    "coordinator.db.session.PING_TIMEOUT_S": 1.0,
    "coordinator.db.connection.RETIRE_S": 0.2,
    "coordinator.db.connection.CHECK_S": 1.0,
}


def test_a_listener_notices_within_5_seconds_and_a_call_fails_within_10() -> None:
    assert session_module.PING_S + session_module.PING_TIMEOUT_S < 5
    assert session_module.CALL_TIMEOUT_S < 5
    assert SETTINGS["call_timeout_s"].default <= 10


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setattr(name, value)


async def test_a_session_replaces_a_connection_that_died_and_ends_it_at_the_server(
    database_url: str, quick: None
) -> None:
    async with (
        Proxy(database_url).serving() as network,
        opened(database_url) as watcher,
        Database.open(network.url, Config(min_connections=1, max_connections=2)) as database,
        database.session("news").kept() as session,
    ):
        assert session._link
        before = session._link.connection.get_server_pid()
        wake = session.wake("news")
        network.forget_connections()
        await until(
            lambda: session._link is not None and session._link.connection.get_server_pid() != before, "it is replaced"
        )
        await until_true(watcher, "select not exists (select from pg_stat_activity where pid = $1)", before)
        await wake.wait(0)
        await watcher.execute("notify news")
        with anyio.fail_after(DEADLINE_S):
            assert await wake.wait(DEADLINE_S * 2)
        assert await session.run(events.Head())


async def test_a_process_returns_even_if_only_its_own_role_may_end_the_session_that_it_lost(
    database_url: str, quick: None
) -> None:
    """As where the owner of the schema may not: its function does not end that session, so the process does."""
    async with (
        Proxy(database_url).serving() as network,
        opened(database_url) as watcher,
        Database.open(network.url, Config(min_connections=1, max_connections=2)) as database,
    ):
        inherit = await watcher.fetchval("select pg_get_functiondef('coordinator.advisory_inherit'::regproc)")
        ended = "perform pg_terminate_backend(p) from unnest(v_pids) p;"
        assert ended in inherit
        await watcher.execute(inherit.replace(ended, "if v_pids <> '{}' then raise insufficient_privilege; end if;"))
        liveness = Liveness(database.session(), "client")
        async with liveness.session.kept():
            process = liveness.process
            liveness.returned = anyio.Event()
            network.forget_connections()
            with anyio.fail_after(DEADLINE_S):
                await liveness.returned.wait()
            assert liveness.process == process


async def test_a_session_does_not_wait_without_limit_whenever_its_connection_dies_while_it_opens(
    database_url: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, the driver would wait without limit for the end of a statement that it no longer needs."""

    async def check(connection: asyncpg.Connection) -> None:
        await connection.fetch("select 1")

    @asynccontextmanager
    async def opening(network: Proxy, timeout_s: float) -> AsyncIterator[None]:
        session = ServerSession(
            partial(connect, network.url, call_timeout_s=timeout_s, check=check), ("news",), timeout_s
        )
        Liveness(session, "client")
        with anyio.fail_after(DEADLINE_S):
            async with session.kept():
                yield

    async def dies_after(messages: int) -> None:
        async with Proxy(database_url, silent_after=messages).serving() as network:
            with suppress(DatabaseUnavailable):
                async with opening(network, 1.0):
                    pass

    async with Proxy(database_url).serving() as network, opening(network, DEADLINE_S):
        needed = network.passed
    assert needed > 10
    monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT_S", 1.0)
    async with anyio.create_task_group() as tasks:
        for messages in range(needed):
            tasks.start_soon(dies_after, messages)


async def test_a_session_is_pinged_only_while_somebody_waits_for_it(database_url: str, quick: None) -> None:
    awaited = False
    async with (
        Proxy(database_url).serving() as network,
        Database.open(network.url, Config(min_connections=1, max_connections=2)) as database,
        database.session("news", awaited=lambda: awaited).kept() as session,
    ):
        before = network.answers
        async with ticking(session_module.PING_S) as ticks:
            await until(lambda: ticks() >= 5)
        assert network.answers == before
        awaited = True
        await until(lambda: network.answers > before and session.connected)


async def test_a_gateway_that_rested_while_its_connection_died_feeds_the_next_stream(database_url: str) -> None:
    async with Proxy(database_url).serving() as network:
        constants = {**QUICK, "coordinator.api.gateway.REST_AFTER_S": 0.0, "coordinator.db.pool.CHECK_AFTER_S": 0.0}
        with Daemon(network.url, constants=constants) as daemon:
            await (await daemon.ready()).lead()
            network.forget_connections()
            async with http_client(daemon.url) as http, stream(http, topic="custom.*") as frames:
                await frames.until("ready")
                answer = await http.post("/v1/events/emit", json={"type": "custom.tick"}, timeout=DEADLINE_S)
                assert answer.status_code == httpx.codes.OK
                (event,) = await frames.events(1)
                assert event.data["type"] == "custom.tick"


@asynccontextmanager
async def reaping(database_url: str) -> AsyncIterator[Callable[[Proxy, str], Awaitable[None]]]:
    """Run a daemon that would reap an agent; the function silences an agent's connections and returns when it has survived that."""
    holder = "select pid from pg_locks where locktype = 'advisory' and classid = 1129267026 and objid = $1"
    async with opened(database_url) as watcher:
        with Daemon(database_url) as daemon:
            await (await daemon.ready()).lead()
            await watcher.execute(
                "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
            )

            async def survives(network: Proxy, agent: str) -> None:
                process = await watcher.fetchval("select process_id from coordinator.agents where name = $1", agent)
                before = await watcher.fetchval(holder, process)
                network.forget_connections()

                async def returned() -> bool:
                    now = await watcher.fetchval(holder, process)
                    return now is not None and now != before

                await until(returned, "it holds its liveness lock on another connection")
                beats = await daemon.heartbeats()

                async def looked_at() -> bool:
                    return await daemon.heartbeats() >= beats + 3

                await until(looked_at, "the daemon has looked for dead processes")
                holds = "select count(*) from coordinator.lock_holders where agent = $1"
                assert await watcher.fetchval(holds, agent) == 1

            yield survives


async def written(client: Client) -> bool:
    with suppress(DatabaseUnavailable):  # a call on a connection that was in use a moment ago
        return bool(await client.signals.set("k", 1))
    return False


async def test_an_agent_and_its_lock_outlive_connections_that_died(database_url: str, quick: None) -> None:
    """The old session of the liveness lock, which the server still has, is ended."""
    async with (
        Proxy(database_url).serving() as network,
        reaping(database_url) as survives,
        coordinator.connect(network.url, agent="a", ttl=60) as client,
        client.lock("x", ttl=60) as held,
    ):
        await survives(network, "a")
        await until(partial(written, client), "a call is answered")
        await until(
            lambda: (held.state, client.agent.state) == (LeaseState.HELD, LeaseState.HELD), "agent and lock are held"
        )


async def test_a_sidecars_agent_and_lock_outlive_connections_that_died(database_url: str) -> None:
    async with Proxy(database_url).serving() as network, reaping(database_url) as survives:
        with sidecar(
            network.url, "--agent", "a", "--ttl", "1m", constants=QUICK, COORDINATOR_CALL_TIMEOUT_S="4"
        ) as beside:
            await beside.started()
            async with coordinator.connect(beside.url) as client:
                await client.locks.acquire("x", agent=beside.agent, ttl=60)
                await survives(network, "a")

                async def held() -> bool:
                    report = await beside.report()
                    return [report["agent"]["state"], *(lock["state"] for lock in report["locks"])] == ["HELD", "HELD"]

                await until(held, "agent and lock are held")

                await until(partial(written, client), "a call is answered")


async def test_streams_continue_and_their_heartbeats_say_when_the_database_last_responded(database_url: str) -> None:
    constants = {**QUICK, "coordinator.operations.log_reader.POLL_S": 3600.0}
    async with Proxy(database_url).serving() as network:
        with Daemon(network.url, constants=constants, http_heartbeat_s=1.0, call_timeout_s=2.0) as daemon:
            await (await daemon.ready()).lead()
            async with http_client(daemon.url) as http, stream(http, topic="custom.*") as frames:
                await frames.until("ready")
                for turn in range(2):
                    network.forget_connections()

                    async def emitted(turn: int = turn) -> bool:
                        answer = await http.post(
                            "/v1/events/emit", json={"type": "custom.tick", "key": str(turn)}, timeout=DEADLINE_S
                        )
                        return answer.status_code == httpx.codes.OK

                    await until(emitted, "a call is answered")
                    while (await frames.events(1))[0].data["key"] != str(turn):
                        pass  # a call that got no answer in time may have been done, and was repeated
                while (frame := await frames.next()) and frame.comment is None:
                    pass
                assert frame
                words = (frame.comment or "").split()
                assert words[:4] == ["the", "database", "was", "heard"]
                assert 0 <= float(words[4]) < DEADLINE_S
