"""The relay's process dies at any moment, under load: readers that resume miss nothing and see nothing out of order."""

from __future__ import annotations

import random
import time

import anyio
import pytest

from coordinator.config import Config
from coordinator.db.database import Database
from tests.daemon import Daemon, drained, log_of
from tests.relay.load import LONG_S, Listener, Load, Reader
from tests.waiting import until

KILLS = 4  # at least, however slow the machine is


@pytest.mark.parametrize("duration_s", [0.0, pytest.param(LONG_S, marks=pytest.mark.long)])
async def test_a_relay_that_is_killed_repeatedly_loses_repeats_and_reorders_nothing(
    database_url: str, config: Config, duration_s: float
) -> None:
    """Two daemons; the one that leads is killed at a random moment, and another started in its place."""
    load, reader, listener = Load(database_url), Reader(), Listener()
    chance = random.Random(7)
    killed = 0
    daemons = [Daemon(database_url), Daemon(database_url)]
    try:
        for daemon in daemons:
            await daemon.ready()
        async with (
            Database.open(database_url, config) as database,
            anyio.create_task_group() as readers,
        ):
            readers.start_soon(reader.follow, database)
            readers.start_soon(listener.listen, database_url, database)
            async with load.running(4, pace_s=0.01):
                ends_at = time.monotonic() + duration_s
                while time.monotonic() < ends_at or killed < KILLS:
                    await anyio.sleep(chance.uniform(0.3, 1.3))
                    leader = max(daemons, key=lambda daemon: daemon.leads)
                    with leader:
                        leader.kill()
                    killed += 1
                    daemons.remove(leader)
                    daemons.append(Daemon(database_url))
                await until(lambda: listener.heard > 0, "the channel was tried: not everything came by reading the log")
            log = await drained(database_url, len(load.committed))
            for one in (reader, listener):

                async def caught_up(one: Reader = one) -> bool:
                    return len(set(one.keys)) >= len({event["key"] for event in log})

                await until(caught_up, f"the {type(one).__name__} has everything")
            readers.cancel_scope.cancel()
    finally:
        for daemon in daemons:
            with daemon:
                pass
    assert killed >= KILLS
    whole = await log_of(database_url)
    load.judge(whole)
    written = [event["key"] for event in whole if event["type"] == "custom.load"]
    for one in (reader, listener):
        assert one.seqs == sorted(set(one.seqs))
        assert [key for key in one.keys if key in set(written)] == written
    assert reader.seqs[: len(whole)] == [event["seq"] for event in whole][: len(reader.seqs)]


async def test_a_daemon_that_comes_alone_after_a_crash_delivers_what_waited(database_url: str) -> None:
    load = Load(database_url)
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        daemon.kill()
    await load.run(2, 0.5)
    with Daemon(database_url) as daemon:
        await daemon.ready()

        async def delivered() -> bool:
            return {event.key for event in load.committed} <= {event["key"] for event in await log_of(database_url)}

        took = await daemon.heartbeats_until(delivered, "what waited is in the log", since=0)
        assert took <= 10
    load.judge(await log_of(database_url))
