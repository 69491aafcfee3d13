"""Two relays at once, over many writers: nothing lost, doubled or out of order."""

from __future__ import annotations

import anyio
import pytest

from coordinator.config import Config
from coordinator.db.connection import connect
from coordinator.db.database import Database
from coordinator.operations.work import RelayStep
from coordinator.relay import Relay
from tests.daemon import drained, log_of
from tests.relay.load import LONG_S, Load


@pytest.mark.parametrize("limit", [2, 500])
async def test_steps_from_three_sessions_at_once_number_each_event_once_and_in_order(
    database_url: str, config: Config, limit: int
) -> None:
    """Small chunks, so that what one snapshot sees takes many steps, of all three."""
    load = Load(database_url, seed=limit)
    async with Database.open(database_url, config) as database:

        async def step() -> None:
            while True:
                await database.run(RelayStep(limit=limit))
                await anyio.sleep(0)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(step)
            await load.run(6, 1.2, pace_s=0.01)
            await drained(database_url, len(load.committed))
            tasks.cancel_scope.cancel()
    load.judge(await log_of(database_url))


@pytest.mark.parametrize("writes", [200, pytest.param(int(100 * LONG_S), marks=pytest.mark.long)])
async def test_two_relays_that_do_not_know_of_each_other_do_no_harm(
    database_url: str, config: Config, writes: int
) -> None:
    load = Load(database_url)
    async with (
        Database.open(database_url, config) as one,
        Database.open(database_url, config) as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Relay(one).run_forever)
        tasks.start_soon(Relay(other).run_forever)
        async with load.running(8, pace_s=0.005):
            while len(load.committed) <= writes:
                await anyio.sleep(0.01)
        await drained(database_url, len(load.committed))
        tasks.cancel_scope.cancel()
    load.judge(await log_of(database_url))


async def test_the_judgement_notices_an_event_that_was_swapped_lost_or_doubled(database_url: str) -> None:
    """A judge that never says no is worth nothing."""
    load = Load(database_url)
    await load.run(1, 0.3)
    connection = await connect(database_url)
    try:
        await connection.execute("select coordinator.relay_step()")
    finally:
        await connection.close()
    log = [dict(event) for event in await log_of(database_url)]
    load.judge(log)
    swapped = [{**a, "key": b["key"]} for a, b in zip(log, reversed(log), strict=True)]
    doubled = [*log, {**log[0], "seq": len(log) + 1}]
    for wrong in (swapped, doubled, log[:-1], log[1:]):
        with pytest.raises(AssertionError):
            load.judge(wrong)
