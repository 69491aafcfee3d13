"""Connections that are terminated by the server, one kind after the other."""

from __future__ import annotations

import anyio
import pytest

from coordinator.config import Config
from coordinator.db import session
from coordinator.db.database import Database
from coordinator.operations import events
from tests.daemon import Daemon, drained, log_of, opened
from tests.relay.load import Load, Reader
from tests.waiting import DEADLINE_S, until, until_true

LIVENESS = "pid in (select pid from pg_locks where locktype = 'advisory' and classid = 1129267026)"
RELAY = "query like '%coordinator.relay_%'"
ALL = "true"


async def terminate(url: str, whom: str, *, at_least: int = 1) -> None:
    """Wait until a database has that many other connections of that kind, and terminate all of them."""
    async with opened(url) as connection:
        await until_true(
            connection,
            "select count(pg_terminate_backend(pid)) > 0 from (select pid, count(*) over () as there from pg_stat_activity"
            f" where datname = current_database() and pid <> pg_backend_pid() and {whom}) a where there >= $1",
            at_least,
        )


@pytest.mark.parametrize("whom", [LIVENESS, RELAY, ALL], ids=["liveness", "relay", "all"])
async def test_a_daemon_whose_connection_is_terminated_returns_as_the_same_process(
    database_url: str, whom: str
) -> None:
    load = Load(database_url)
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()

        def losses() -> int:
            # In the middle of a call it is the relay that notices.
            return len(daemon.lines("session.lost")) + len(daemon.lines("relay.failed"))

        async with opened(database_url) as connection:
            before = await connection.fetch("select id from coordinator.processes")
        for _ in range(3):
            await load.run(1, 0.1)
            await drained(database_url, len(load.committed))

            async def noticed(known: int = losses()) -> bool:
                return losses() > known

            async def lost() -> bool:
                """Nobody logs the loss of a connection that was not complete yet, after that of the one before."""
                await terminate(database_url, whom)
                with anyio.move_on_after(1):
                    await until(noticed)
                return await noticed()

            await until(lost, "the loss is noticed")
        await load.run(1, 0.1)
        await drained(database_url, len(load.committed))
        await daemon.ready()
        async with opened(database_url) as connection:

            async def leads() -> bool:
                return bool(
                    await connection.fetchval(
                        "select bool_and(coordinator.process_alive(process_id) and expires_at > clock_timestamp())"
                        " from coordinator.leaders"
                    )
                )

            await until(leads, "the daemon leads")
            assert await connection.fetch("select id from coordinator.processes") == before
    load.judge(await log_of(database_url))


async def test_a_follower_whose_connections_are_terminated_misses_nothing(database_url: str, config: Config) -> None:
    """Its listening connection and its pool's; the daemon's as well."""
    load, reader = Load(database_url), Reader()
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        async with Database.open(database_url, config) as database, anyio.create_task_group() as tasks:
            tasks.start_soon(reader.follow, database)
            for _ in range(8):
                await load.run(2, 0.3, pace_s=0.005)
                await terminate(database_url, ALL, at_least=3)
            await load.run(2, 0.3)
            log = await drained(database_url, len(load.committed))
            await until(
                lambda: reader.keys[-len(log) :] == [event["key"] for event in log],
                "the reader has everything, in order",
            )
            tasks.cancel_scope.cancel()
    load.judge(await log_of(database_url))
    assert reader.seqs == list(range(1, len(reader.seqs) + 1))


async def test_a_waiting_reader_gets_events_after_its_listening_connection_was_lost(
    database_url: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session listens again and wakes its readers; they need not look for themselves."""
    monkeypatch.setattr(session, "PING_S", 3600)
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        async with Database.open(database_url, config) as database, database.wake() as wake:
            for _ in range(3):
                await terminate(database_url, "(query like 'LISTEN%' or query = 'select 1')")
                await database.run(events.Emit(project="default", type="custom.after"))
                with anyio.fail_after(DEADLINE_S):
                    await wake.wait(3600)
