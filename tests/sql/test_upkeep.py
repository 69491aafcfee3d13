"""Statistics after large changes, and indexes that are larger than what is in them."""

from __future__ import annotations

import re

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.operations.work import TablesAnalyze
from tests.conftest import Transaction
from tests.daemon import opened
from tests.waiting import until


async def filled(connection: asyncpg.Connection, count: int) -> None:
    await connection.execute(
        """
        insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at)
        select 1, 'k/' || n, '1', n, true, 'x', clock_timestamp(), clock_timestamp() from generate_series(1, $1) n
        """,
        count,
    )
    await connection.execute("select pg_stat_force_next_flush()")


@pytest.mark.slow
@pytest.mark.usefixtures("untended")
async def test_a_table_is_analyzed_after_a_large_change_and_not_again(database_url: str) -> None:
    async with opened(database_url) as connection:
        await filled(connection, 10_000)  # of an empty table; of a full one a fifth
        assert await call(connection, TablesAnalyze()) == 0
        await filled_more(connection)

        async def analyzed() -> bool:
            await connection.execute("select pg_stat_force_next_flush()")
            return await call(connection, TablesAnalyze()) == 1

        await until(analyzed, "it is analyzed")
        assert await connection.fetchval("select reltuples from pg_class where relname = 'signals'") == 10_001
        await connection.execute("select pg_stat_force_next_flush()")
        assert await call(connection, TablesAnalyze()) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("untended")
async def test_a_table_that_a_vacuum_found_empty_is_analyzed_once_it_has_rows_again(database_url: str) -> None:
    """Its pages are still there, so the planner takes any number of rows for one."""
    async with opened(database_url) as connection:
        await connection.execute("select set_config('coordinator.fake_now', '2030-01-01 00:00:20Z', false)")
        await filled(connection, 2_000)
        await connection.execute("delete from coordinator.signals")
        await connection.execute("select pg_stat_force_next_flush()")  # else they are taken from those to come
        await connection.execute("vacuum (truncate off) coordinator.signals")
        await filled(connection, 2_000)
        assert await connection.fetchval(
            "select reltuples = 0 and relpages > 0 from pg_class where relname = 'signals'"
        )

        async def due() -> bool:
            await connection.execute("select pg_stat_force_next_flush()")
            return "upkeep_analyze" in await connection.fetchval("select coordinator.work_due()")

        await until(due, "its analysis is due")
        await connection.execute("select set_config('coordinator.fake_now', '2030-01-01 00:00:21Z', false)")
        assert await due()  # whichever of the two seconds a heartbeat meets
        assert await call(connection, TablesAnalyze()) == 1
        assert await connection.fetchval("select reltuples from pg_class where relname = 'signals'") == 2_000
        assert not await due()


async def filled_more(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at)"
        " values (1, 'more', '1', 1, true, 'x', clock_timestamp(), clock_timestamp())"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("untended")
async def test_an_index_that_deletes_in_no_order_have_left_empty_is_named_until_it_is_rebuilt(
    database_url: str,
) -> None:
    advice = "select index_name, table_name, bytes, needed_bytes, remedy from coordinator.upkeep_indexes(100000)"
    async with opened(database_url) as connection:
        await filled(connection, 10_000)
        await connection.execute("vacuum analyze coordinator.signals")
        assert await connection.fetch(advice) == []
        await connection.execute("delete from coordinator.signals where version % 50 <> 0")
        await connection.execute("vacuum analyze coordinator.signals")
        (found,) = await connection.fetch(advice)
        assert (found["index_name"], found["table_name"]) == ("signals_pkey", "signals")
        assert found["bytes"] > 3 * found["needed_bytes"]
        await connection.execute("update coordinator.checks set warning = 100000 where name = 'indexes'")
        examined = "select severity, remedy from coordinator.doctor_run('{indexes}')"
        assert await connection.fetch(examined) == [("warning", found["remedy"])]
        assert re.fullmatch(r"reindex index concurrently coordinator\.signals_pkey", found["remedy"])
        await connection.execute(found["remedy"])
        assert await connection.fetch(advice) == []


async def test_every_table_whose_rows_come_and_go_is_vacuumed_early(tx: Transaction) -> None:
    """What a claim, a lock, a heartbeat or the relay updates or deletes must not wait until a fifth of it is dead."""
    rows = await tx.connection.fetch(
        """
        select c.relname from pg_class c
        where c.relnamespace = 'coordinator'::regnamespace and c.relkind = 'r' and not c.relispartition
          and not coalesce(array_to_string(c.reloptions, ' ') like '%autovacuum_vacuum_scale_factor%', false)
        """
    )
    late = {row["relname"] for row in rows}
    hot = {
        "agents",
        "idempotency_keys",
        "job_lanes",
        "jobs_ready",
        "jobs_running",
        "leaders",
        "lock_waits",
        "locks",
        "relay",
        "signals",
    }
    assert not hot & late
