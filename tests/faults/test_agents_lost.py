"""Agents whose process dies, whose connection blinks, whose heartbeats end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from uuid import UUID

import anyio

from coordinator.db.call import call
from coordinator.db.database import Database
from coordinator.db.session import ServerSession
from coordinator.operations import agents
from coordinator.operations.work import ProcessRegister
from tests.daemon import Daemon, log_of, note, opened
from tests.forked import Forked
from tests.waiting import until, until_true

GRACE = "1 hour"  # instead of 0.7 seconds, within which a process on a busy machine may not reconnect


@contextmanager
def holder(url: str, name: str) -> Iterator[tuple[subprocess.Popen[str], UUID]]:
    """A real process that holds an agent."""
    with Forked("tests.faults.holder", url, name, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, UUID(process.stdout.readline().strip())
        finally:
            process.kill()


async def settled(url: str) -> None:
    """Wait until the server is old enough to reap agents."""
    async with opened(url) as connection:

        async def look() -> bool:
            return bool(await connection.fetchval("select coordinator.server_settled()"))

        await until(look, "the server has settled", every_s=0.1)


async def reaps(url: str, agent: UUID) -> list[dict[str, object]]:
    """The events that say that an agent was reaped."""
    return [
        event["data"] for event in await log_of(url) if event["type"] == "agent.reaped" and event["key"] == str(agent)
    ]


async def reaped(url: str, agent: UUID) -> dict[str, object]:
    """Wait until an agent was reaped; its event."""
    return (await until(partial(reaps, url, agent), "the agent is reaped"))[0]


async def let_go(url: str, agent: UUID) -> None:
    """Wait until the server has noticed the end of the process that holds an agent, or has even reaped the agent."""
    async with opened(url) as connection:
        await until_true(
            connection,
            "select not exists (select from coordinator.agents where id = $1 and coordinator.process_alive(process_id))",
            agent,
        )


async def reaped_after(daemon: Daemon, since: int, url: str, agent: UUID) -> int:
    """Wait until an agent was reaped because its process died; return after how many heartbeats."""
    took = await daemon.heartbeats_until(partial(reaps, url, agent), "the agent is reaped", since=since)
    assert (await reaped(url, agent))["reason"] == "process died"
    return took


async def test_an_agent_whose_process_is_killed_is_reaped_within_two_heartbeats_with_all_it_held(
    database_url: str,
) -> None:
    await settled(database_url)
    took = []
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        for turn in range(2):
            with holder(database_url, f"doomed {turn}") as (process, agent):
                await anyio.sleep(0.4 * turn)  # at another point of the leader's second
                process.kill()
                await let_go(database_url, agent)
                began = await daemon.heartbeats()
                took.append(await reaped_after(daemon, began, database_url, agent))
    note("process killed: its agent is reaped after, heartbeats", took)
    log = await log_of(database_url)
    assert [e["key"] for e in log if e["type"] == "signal.ended"] == [f"here/doomed {turn}" for turn in range(2)]
    assert min(took) <= 2, took
    assert max(took) <= 4, took


async def test_an_agent_whose_connection_blinks_is_not_reaped(db: Database, database_url: str) -> None:
    """It is back after the daemon has missed it. Then the time passes after which the daemon reaps what it misses."""
    await settled(database_url)
    process: int | None = None
    back = anyio.Event()

    async def register(session: ServerSession) -> None:
        nonlocal process
        if process is not None:
            await back.wait()
        process = await session.run(ProcessRegister(kind="client", name="blinks", id=process))

    session = db.session()
    session.on_connect = register
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        async with session.kept(), opened(database_url) as connection:
            grace = await connection.fetchval("select pg_get_functiondef('coordinator.process_grace'::regproc)")
            assert "'00:00:00.7'" in grace
            await connection.execute(grace.replace("00:00:00.7", GRACE))
            first = process
            agent = await db.run(
                agents.Register(project="default", name="blinks", ttl=timedelta(hours=1), process=process)
            )
            with holder(database_url, "doomed") as (other, doomed):
                await connection.execute(
                    "select pg_terminate_backend(pid) from pg_locks"
                    " where locktype = 'advisory' and classid = 1129267026 and objid = $1::int::oid"
                    " and database = (select oid from pg_database where datname = current_database())",
                    process,
                )
                missed = "select missing_at is not null from coordinator.processes where id = $1"
                await until_true(connection, missed, process)
                other.kill()
                back.set()
                await until_true(connection, f"select not ({missed})", process)
                await until_true(connection, "select bool_or(missing_at is not null) from coordinator.processes")
                await connection.execute(
                    f"update coordinator.processes set missing_at = missing_at - interval '{GRACE}'"
                )
                await reaped(database_url, doomed)
            assert process == first
            assert [one.name for one in await db.run(agents.List(project="default"))] == ["blinks"]
            await db.run(agents.Heartbeat(agent=agent.id))


async def test_an_agent_without_heartbeats_is_reaped_and_one_with_heartbeats_is_not(
    db: Database, database_url: str
) -> None:
    await settled(database_url)
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        speaks, silent = [
            (await db.run(agents.Register(project="default", name=name, ttl=timedelta(hours=1)))).id
            for name in ("speaks", "silent")
        ]
        async with opened(database_url) as connection, connection.transaction():  # both would be due at its end
            await connection.execute(
                "update coordinator.agents set heartbeat_at = heartbeat_at - ttl, expires_at = expires_at - ttl"
            )
            await call(connection, agents.Heartbeat(agent=speaks))
        assert (await reaped(database_url, silent))["reason"] == "expired"
        (left,) = await db.run(agents.List(project="default"))
        assert left.name == "speaks"
        assert left.expires_at == left.heartbeat_at + timedelta(hours=1), (
            "its heartbeat counts, after its time had passed"
        )
