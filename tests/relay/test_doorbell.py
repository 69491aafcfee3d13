"""What wakes a relay that sleeps, what keeps it awake, and what an open transaction costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import asyncpg
import pytest

from coordinator.db.database import Database
from coordinator.model.json import value_of
from coordinator.relay import Relay
from coordinator.telemetry import metrics
from tests.daemon import LOG, Daemon, log_of, opened
from tests.waiting import until

EMIT = "select coordinator.event_emit('default', 'custom.ring', $1)"


@asynccontextmanager
async def relaying(database: Database) -> AsyncIterator[Relay]:
    """Run a relay that nothing but the doorbell wakes: no heartbeat, and no look after a time."""
    relay = Relay(database)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay.run_forever)
        yield relay
        tasks.cancel_scope.cancel()


async def armed(connection: asyncpg.Connection) -> None:
    """Wait until the bell is armed: the relay sleeps, or is about to."""

    async def look() -> bool:
        return bool(await connection.fetchval("select last_value from coordinator.relay_bell"))

    await until(look, "the doorbell is armed", every_s=0.001)


async def in_log(connection: asyncpg.Connection, key: str) -> bool:
    return bool(await connection.fetchval(f"select true from {LOG} where key = $1", key))


async def delivered(connection: asyncpg.Connection, key: str) -> None:
    """Wait until an event is in the log. A relay that sleeps past it brings it never: nothing but the doorbell wakes it."""
    await until(partial(in_log, connection, key), f"{key} is in the log", every_s=0.001)


@pytest.fixture(autouse=True)
def _never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.relay.REARM_S", 3600)


async def test_a_writer_that_begins_after_the_bell_was_armed_is_delivered(db: Database, database_url: str) -> None:
    async with opened(database_url) as writer, relaying(db):
        for turn in range(20):
            await armed(writer)
            await anyio.sleep(0.002 * (turn % 7))
            await writer.execute(EMIT, f"after {turn}")
            await delivered(writer, f"after {turn}")


async def test_a_writer_that_emitted_before_the_bell_was_armed_and_commits_after_is_delivered(
    db: Database, database_url: str
) -> None:
    """It read "awake" and does not ring; the relay must not sleep before it is over."""
    async with opened(database_url) as writer, opened(database_url) as other, relaying(db):
        for turn in range(20):
            await armed(other)
            # An event of somebody else wakes the relay; this one is emitted while it is awake.
            await other.execute(EMIT, f"waker {turn}")
            async with writer.transaction():
                await writer.execute(EMIT, f"before {turn}")
                await armed(other)
                await anyio.sleep(0.005 * (turn % 10))
            await delivered(other, f"before {turn}")


async def test_no_event_is_slept_past_whenever_it_comes(db: Database, database_url: str) -> None:
    """The relay is met in every state between awake and asleep; no heartbeat is there to help."""
    async with opened(database_url) as writer, relaying(db):
        await armed(writer)
        for turn in range(300):
            await writer.execute(EMIT, f"sweep {turn}")
            await anyio.sleep(turn * 0.00003)
            if turn % 3 == 0:
                await delivered(writer, f"sweep {turn}")
        await delivered(writer, "sweep 299")


async def test_a_lost_doorbell_costs_at_most_two_heartbeats(database_url: str) -> None:
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        async with opened(database_url) as writer:
            took = []
            for turn in range(3):
                await armed(writer)
                began = await daemon.heartbeats()
                async with writer.transaction():
                    await writer.execute("set local coordinator.doorbell = off")
                    await writer.execute(EMIT, f"silent {turn}")
                arrived = partial(in_log, writer, f"silent {turn}")
                took.append(await daemon.heartbeats_until(arrived, "the event is in the log", since=began))
            assert min(took) <= 2, took
            assert max(took) <= 4, took


def woken(outcome: str) -> float:
    return metrics.REGISTRY.get_sample_value("coordinator_relay_doorbells_total", {"outcome": outcome}) or 0


async def test_doorbells_that_rang_and_those_that_a_heartbeat_replaced_are_counted(
    db: Database, database_url: str
) -> None:
    rung, missed = woken("rung"), woken("missed")
    async with opened(database_url) as writer, relaying(db) as relay:

        async def asleep(rings: int) -> bool:
            sleeping = metrics.REGISTRY.get_sample_value("coordinator_relay_sleeping")
            return sleeping == 1 and woken("rung") + woken("missed") >= rung + missed + rings

        await until(partial(asleep, 1), "the relay sleeps, after it was woken by its connection", every_s=0.001)
        async with writer.transaction():
            await writer.execute("set local coordinator.doorbell = off")
            await writer.execute(EMIT, "silent")
        relay.nudge()
        await delivered(writer, "silent")
        assert woken("missed") == missed + 1
        await until(partial(asleep, 2), "the relay sleeps again", every_s=0.001)
        before = woken("rung")
        await writer.execute(EMIT, "loud")
        await delivered(writer, "loud")
        assert (woken("rung"), woken("missed")) == (before + 1, missed + 1)


async def test_a_long_transaction_holds_nobody_back_and_comes_after_its_commit(db: Database, database_url: str) -> None:
    async with opened(database_url) as slow, opened(database_url) as writer, relaying(db):
        async with slow.transaction():
            await slow.execute(EMIT, "slow")
            for turn in range(50):
                await writer.execute(EMIT, f"quick {turn}")
            await delivered(writer, "quick 49")
            before = calls()
            await anyio.sleep(2)
            spent = calls() - before
            assert not [event for event in await log_of(database_url) if event["key"] == "slow"]
        await writer.execute(EMIT, "last")
        await delivered(writer, "slow")
        await delivered(writer, "last")
    keys = [event["key"] for event in await log_of(database_url)]
    assert keys[:50] == [f"quick {turn}" for turn in range(50)]
    assert sorted(keys[50:]) == ["last", "slow"]
    # Two calls in 50 ms while a writer is open that may not ring; a hot loop would be thousands.
    assert spent < 120, f"{spent} calls in 2 seconds"


def calls() -> float:
    """How often this process's relay asked the database so far."""
    functions = ("relay_step", "relay_arm")
    return sum(
        metrics.REGISTRY.get_sample_value("coordinator_call_seconds_count", {"function": name}) or 0
        for name in functions
    )


@pytest.mark.parametrize("rounds", [30])
async def test_a_snapshot_that_is_held_open_does_not_make_steps_dearer(database_url: str, rounds: int) -> None:
    """Counted in pages that a step touches, which no load on the machine changes."""
    step = "explain (analyze, buffers, timing off, format json) select * from coordinator.relay_step()"

    async def pages(connection: asyncpg.Connection) -> int:
        await connection.execute(
            "select coordinator.event_emit('default', 'custom.page', null) from generate_series(1, 200)"
        )
        plan = value_of(await connection.fetchval(step))[0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    async with opened(database_url) as holder, opened(database_url) as connection:
        for _ in range(5):
            await pages(connection)
        async with holder.transaction(isolation="repeatable_read"):
            await holder.fetchval("select count(*) from coordinator.events")
            touched = [await pages(connection) for _ in range(rounds)]
    third = rounds // 3
    early, late = sorted(touched[:third])[third // 2], sorted(touched[-third:])[third // 2]
    assert late < early * 2, touched
