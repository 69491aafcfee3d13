from __future__ import annotations

import subprocess
import time
from datetime import timedelta

import anyio
import asyncpg
import pytest

import coordinator
from coordinator.client import LeaseState, lease
from coordinator.client.lease import now_s
from coordinator.db.database import Database
from coordinator.errors import NotFound
from coordinator.operations import agents, signals
from tests.forked import Forked
from tests.waiting import DEADLINE_S, LASTING_S, OFTEN, until


async def test_an_agent_is_registered_while_the_context_lasts(db: Database, database_url: str) -> None:
    async with coordinator.connect(
        database_url, agent="coder", role="developer", job_types=["build"], metadata={"model": "m"}, ttl=60
    ) as client:
        (agent,) = await db.run(agents.List(project="default"))
        assert (agent.id, agent.role, agent.job_types) == (client.agent.id, "developer", ["build"])
        assert client.agent.state is LeaseState.HELD
        await client.signals.set("held", ephemeral=True)
    assert await db.run(agents.List(project="default")) == []
    assert await db.run(signals.List(project="default")) == []


async def test_an_agent_outlives_its_ttl_by_heartbeats(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWALS_PER_TTL", OFTEN)
    async with coordinator.connect(database_url, agent="coder", ttl=LASTING_S) as client:
        seen: set[object] = set()

        async def renewed() -> bool:
            (now,) = await db.run(agents.List(project="default"))
            assert now.expires_at - now.heartbeat_at == timedelta(seconds=LASTING_S)
            seen.add(now.expires_at)
            return len(seen) > 3

        await until(renewed, "it is renewed again and again")
        assert client.agent.state is LeaseState.HELD


async def test_a_reaped_agent_is_lost_and_calls_that_need_it_raise(db: Database, database_url: str) -> None:
    async with coordinator.connect(database_url, agent="coder", ttl=1) as client:
        await db.run(agents.Deregister(agent=client.agent.id))
        with anyio.fail_after(DEADLINE_S):
            await client.agent.lost.wait()
        assert client.agent.state is LeaseState.LOST
        for call in (client.signals.set("k"), client.directives.inbox(), client.events.emit("custom.x")):
            with pytest.raises(NotFound) as raised:
                await call
            assert raised.value.hint
        assert await client.signals.list() == []


async def test_an_agent_that_was_paused_past_its_ttl_sends_a_heartbeat_before_it_acts(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinator.connect(database_url, agent="coder", ttl=60) as client:
        paused = now_s() + 61
        monkeypatch.setattr(time, "clock_gettime", lambda _: paused)
        assert client.agent.state is LeaseState.UNKNOWN
        await client.events.emit("custom.x")
        assert client.agent.state is LeaseState.HELD
        await db.run(agents.Deregister(agent=client.agent.id))
        monkeypatch.setattr(time, "clock_gettime", lambda _: paused + 61)
        with pytest.raises(NotFound):
            await client.events.emit("custom.x")
        assert client.agent.state is LeaseState.LOST


async def test_an_agent_keeps_its_process_when_its_connections_are_cut(
    db: Database, database_url: str, root: asyncpg.Connection
) -> None:
    async with coordinator.connect(database_url, agent="coder", ttl=60) as client:
        holder = (
            "select l.pid from pg_locks l join pg_database d on d.oid = l.database"
            " where l.locktype = 'advisory' and l.classid = 1129267026 and l.granted and d.datname = current_database()"
        )
        before = await root.fetchval(holder)
        process = await root.fetchval("select process_id from coordinator.agents")
        await root.execute(
            "select pg_terminate_backend(pid, 60_000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )

        async def back() -> bool:
            return await root.fetchval(holder) not in (None, before)

        await until(back)
        assert await root.fetchval("select array_agg(id) from coordinator.processes") == [process]
        assert (await root.fetchrow("select * from coordinator.agent_reap()"))["reaped"] == 0
        assert (await client.signals.set("k")).actor == "coder"


async def test_an_agent_whose_process_reconnects_too_late_is_lost_at_once(
    database_url: str, root: asyncpg.Connection
) -> None:
    async with coordinator.connect(database_url, agent="coder", ttl=600) as client:
        # The state in which the reaper leaves it.
        await root.execute(
            "select coordinator.agent_end(id, 'agent.reaped', 'coordinator', '{}') from coordinator.agents"
        )
        await root.execute("delete from coordinator.processes")
        await root.execute(
            "select pg_terminate_backend(l.pid, 60_000) from pg_locks l join pg_database d on d.oid = l.database"
            " where l.locktype = 'advisory' and l.classid = 1129267026 and d.datname = current_database()"
        )
        with anyio.fail_after(DEADLINE_S):
            await client.agent.lost.wait()


async def test_kill_9_of_a_process_ends_its_agent_long_before_its_ttl(
    db: Database, database_url: str, root: asyncpg.Connection
) -> None:
    process = Forked("tests.client.agent_process", database_url, stdout=subprocess.PIPE)
    assert process.stdout
    try:
        line = await anyio.to_thread.run_sync(process.stdout.readline)
        assert line, "the agent did not start"
        assert (await db.run(agents.Reap())).reaped == 0
        process.kill()

        async def reaped() -> bool:
            return (await db.run(agents.Reap())).reaped == 1

        await until(reaped)
        assert await db.run(signals.List(project="default")) == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
