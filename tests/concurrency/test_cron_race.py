"""Races of crons: two daemons fire, somebody changes or deletes a cron, and no project waits for another."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.model.cron import Cron
from coordinator.operations import crons, projects
from tests.conftest import Open
from tests.sql.test_races import while_uncommitted

YEARLY = "0 0 1 1 *"  # with one that is due in every minute, the next minute may begin between two lines of a test
DUE = "update coordinator.crons set next_at = now() - interval '1 minute', due_at = now() - interval '1 minute'"


async def make(connection: asyncpg.Connection, *names: str, project: str = "default") -> None:
    """Make crons that are due."""
    for name in names:
        await call(connection, crons.Set(project=project, cron=name, schedule=YEARLY, job={"type": "t"}))
    await connection.execute(DUE)


async def fired(connection: asyncpg.Connection) -> list[tuple[str, int]]:
    """Return the crons that fired, and how often."""
    rows = await connection.fetch(
        "select key, count(*) from coordinator.events where type = 'cron.fired' group by key order by key"
    )
    return [(row["key"], row["count"]) for row in rows]


async def test_two_daemons_fire_once_and_neither_waits(session: Open) -> None:
    first, second = await session(), await session()
    await make(first, "a", "b")
    async with first.transaction():
        assert await call(first, crons.Fire()) == 2
        assert await call(second, crons.Fire()) == 0
    assert await call(second, crons.Fire()) == 0
    assert await fired(first) == [("a", 1), ("b", 1)]
    assert await first.fetchval("select count(*) from coordinator.jobs_open") == 2


async def test_a_firing_that_is_rolled_back_is_repeated(session: Open) -> None:
    first, second = await session(), await session()
    await make(first, "a")
    transaction = first.transaction()
    await transaction.start()
    assert await call(first, crons.Fire()) == 1
    await transaction.rollback()
    assert await call(second, crons.Fire()) == 1
    assert await second.fetchval("select count(*) from coordinator.jobs_open") == 1


async def test_a_cron_that_is_being_changed_does_not_prevent_others_from_firing(session: Open) -> None:
    first, second = await session(), await session()
    await call(first, projects.Create(project="aaa"))
    await make(first, "changed", project="aaa")
    await make(first, "other")
    async with first.transaction():
        await call(first, crons.Set(project="aaa", cron="changed", schedule=YEARLY))
        assert await call(second, crons.Fire()) == 1
        assert await call(second, crons.Fire()) == 0
    assert await call(second, crons.Fire()) == 0
    assert await fired(first) == [("other", 1)]


async def test_a_change_waits_for_the_firing_and_counts_from_then_on(session: Open) -> None:
    first = await session()
    await make(first, "a")
    _, changed = await while_uncommitted(
        session, crons.Fire(), crons.Set(project="default", cron="a", schedule=YEARLY, zone="UTC")
    )
    assert isinstance(changed, Cron)
    assert changed.last_at is not None
    assert changed.next_at is not None
    assert (changed.next_at.month, changed.next_at.day) == (1, 1)
    assert await call(first, crons.Fire()) == 0


async def test_a_project_that_is_deleted_meanwhile_fires_or_is_gone(session: Open) -> None:
    first = await session()
    await call(first, projects.Create(project="gone"))
    await make(first, "a", project="gone")
    await while_uncommitted(session, crons.Fire(), projects.Delete(project="gone"))
    assert await first.fetchval("select count(*) from coordinator.crons") == 0
    assert await call(first, crons.Fire()) == 0
    assert await first.fetchval("select count(*) from coordinator.jobs_open") == 0


@pytest.mark.usefixtures("bounded_waits")
async def test_a_queue_that_somebody_keeps_delays_the_crons_of_its_project_alone(session: Open) -> None:
    first, second = await session(), await session()
    await call(first, projects.Create(project="aaa"))
    await make(first, "kept", project="aaa")
    await make(first, "other")
    await call(first, crons.Run(project="aaa", cron="kept"))
    async with first.transaction():
        await first.execute("select coordinator.queue_set('aaa', 'default', p_ageing => '1 minute')")
        while await call(second, crons.Fire()):
            pass
        assert await fired(second) == [("other", 1)]
    late = await call(second, crons.Get(project="aaa", cron="kept"))
    assert late.error is not None
    assert late.last_at is None
    await second.execute(DUE)
    while await call(second, crons.Fire()):
        pass
    assert (await call(second, crons.Get(project="aaa", cron="kept"))).error is None


async def test_many_crons_of_a_project_fire_in_a_few_calls(session: Open) -> None:
    connection = await session()
    await connection.execute(
        "select coordinator.cron_set('default', 'c' || n, $1, '{\"type\": \"t\"}') from generate_series(1, 150) n",
        YEARLY,
    )
    await connection.execute(DUE)
    calls = 0
    while await call(connection, crons.Fire()):
        calls += 1
    assert calls == 2
    assert await connection.fetchval("select count(*) from coordinator.jobs_open") == 150
    assert timedelta(0) < await connection.fetchval("select min(next_at) - now() from coordinator.crons")
