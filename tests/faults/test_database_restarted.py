"""The database is restarted under load, in order and by force, while a daemon runs and readers read."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from coordinator.config import Config
from coordinator.db import embedded
from coordinator.db.database import Database
from coordinator.operations import agents
from tests.daemon import Daemon, drained, log_of, opened, until
from tests.relay.load import LONG_S, Load, Reader

# What a server acknowledged is on its way to the disk; nobody loses power here.
SETTINGS = {"fsync": "off"}
FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT


async def restart(server: embedded.Server, how: signal.Signals) -> None:
    """End the server's process, and wait until another one takes connections."""
    before = embedded.find(server.data_dir)
    assert before
    os.kill(before.pid, how)

    async def look() -> bool:
        now = embedded.find(server.data_dir)
        return now is not None and now.pid != before.pid

    await until(look, "the server is back")


@pytest.mark.parametrize("rounds", [1, pytest.param(max(2, int(LONG_S / 4)), marks=pytest.mark.long)])
async def test_a_database_that_is_restarted_under_load_loses_nothing_and_the_daemon_comes_back(
    tmp_path: Path, config: Config, rounds: int
) -> None:
    async with embedded.run(tmp_path, settings=SETTINGS) as server:
        await restarted_under_load(server, config, rounds)


async def restarted_under_load(server: embedded.Server, config: Config, rounds: int) -> None:
    load, reader = Load(server.dsn), Reader()
    with Daemon(server.dsn) as daemon:
        await (await daemon.ready()).lead()
        async with Database.open(server.dsn, config) as database, anyio.create_task_group() as readers:
            await database.run(agents.Register(project="default", name="silent", ttl=timedelta(seconds=1)))
            readers.start_soon(reader.follow, database)

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(load.call, database, 4.0 * rounds)  # an untyped error would end the test here
                for how in (FAST, IMMEDIATE) * rounds:
                    await anyio.sleep(1)
                    await restart(server, how)
            log = await drained(server.dsn, len(load.committed))

            async def caught_up() -> bool:
                return {event["key"] for event in log} <= set(reader.keys)

            await until(caught_up, "the reader has everything")
            await daemon.ready()
            await daemon.lead()

            async def reaped() -> float | None:
                async with opened(server.dsn) as connection:
                    gone = not await connection.fetchval("select exists (select from coordinator.agents)")
                    up = await connection.fetchval("select clock_timestamp() - pg_postmaster_start_time()")
                    return float(up.total_seconds()) if gone else None

            # The long version waits for it: "not before" is all that can be said of a quick look.
            up = await reaped() if rounds == 1 else await until(reaped, "the agent is reaped")
            assert up is None or up > 10, "an agent was given up while everybody was still coming back"
            readers.cancel_scope.cancel()
    assert load.unknown, "nobody noticed the restarts: they tested nothing"
    assert reader.resumed > 0
    load.judge(await log_of(server.dsn))
    assert reader.seqs == sorted(set(reader.seqs))


async def test_readyz_says_why_it_is_not_ready_while_the_database_is_away(tmp_path: Path) -> None:
    async with embedded.run(tmp_path, settings=SETTINGS) as server:
        dsn = server.dsn
        daemon = await Daemon(dsn).ready()
    with daemon:

        async def unready() -> bool:
            return (await daemon.get("/readyz")).status_code == 503

        await until(unready, "/readyz answers 503", every_s=0.1)
        answer = await daemon.get("/readyz")
        assert answer.json() == {"ready": False, "leads": False, "reason": "no answer from the database"}
        assert (await daemon.get("/livez")).status_code == 200
        assert await daemon.metric("coordinator_leader") == 0
        async with embedded.run(tmp_path, settings=SETTINGS) as server:
            assert server.dsn == dsn
            await daemon.ready()
            await daemon.lead()
