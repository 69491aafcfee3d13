"""Reading a log costs what is read, whatever the tables hold and the planner knows; appending changes a header in its page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.model.operation import Operation
from coordinator.operations import logs
from tests.conftest import Transaction
from tests.daemon import opened
from tests.sql.test_log import append
from tests.sql.test_plans import explain, indexes, scanned, statement

LARGE = """
insert into coordinator.logs (project_id, kind, key, epoch, last_seq, count, updated_at)
  select 1, 'note', 'k' || n, 1, 100, 100, now() from generate_series(1, 300) n;
insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)
  select l.id, n, 1, 'a', now(), '1' from coordinator.logs l, generate_series(1, 100) n"""
FILLS = {
    "empty": "select 1",
    "small": LARGE.replace("300", "3"),
    "large": f"{LARGE}; analyze coordinator.logs, coordinator.entries",
    "large, with statistics of an empty table": f"analyze coordinator.logs, coordinator.entries; {LARGE}",
}
# What scans of whole tables have read.
READ = """
select sum(seq_tup_read) from pg_stat_xact_user_tables
where relid in ('coordinator.logs'::regclass, 'coordinator.entries'::regclass)"""
INDEX_READ = "select pg_stat_get_xact_tuples_returned('coordinator.entries_pkey'::regclass)"
ROWS = {"v_log__id": "1", "v_low": "0", "v_high": "90", "p_limit": "20", "p_last": "20"}


@pytest.fixture
async def alone(database_url: str) -> AsyncIterator[Transaction]:
    """A transaction in a database whose tables are empty: what others roll back leaves pages, and statistics."""
    async with opened(database_url) as connection, connection.transaction():
        yield Transaction(connection)


@pytest.mark.parametrize("fill", FILLS)
async def test_entries_are_read_by_their_key(alone: Transaction, fill: str) -> None:
    tx = alone
    await tx.connection.execute(FILLS[fill])
    page = await statement(
        tx, "log_read", r"select e\.seq, coordinator\.epoch_text.*?order by e\.seq limit p_limit", **ROWS
    )
    last = await statement(tx, "log_read", r"select e\.seq from coordinator\.entries e where [^)]*limit p_last", **ROWS)
    settings = tx.connection.transaction()
    await settings.start()
    for setting in await tx.connection.fetchval("select proconfig from pg_proc where proname = 'log_read'"):
        await tx.connection.execute("select set_config($1, $2, true)", *setting.split("=", 1))
    for sql in (page, last):
        plan = await explain(tx, sql)
        if "large" in fill:
            assert (indexes(plan), scanned(plan)) == ({"entries_pkey"}, set()), sql
        assert all(node["Node Type"] != "Sort" for node in plan) or "large" not in fill
    await settings.rollback()
    one = "select id from coordinator.logs where project_id = 1 and kind = 'note' and key = 'k7'"
    assert "large" not in fill or indexes(await explain(tx, one)) == {"logs_project_key"}
    before = await tx.connection.fetchrow(READ)
    given = [{"data": n, "uid": str(n)} for n in range(50)]
    await tx.run(append(*given, key="k7"))
    await tx.run(append(*given, *range(50), key="k7"))
    await tx.run(logs.Read(project="default", kind="note", key="k7", last=20))
    await tx.run(logs.Pop(project="default", kind="note", key="k7"))
    assert "large" not in fill or await tx.connection.fetchrow(READ) == before


@pytest.mark.parametrize("call_", [
    logs.Read(project="default", kind="note", key="long", last=20, limit=20),
    logs.Read(project="default", kind="note", key="long", limit=20),
    logs.Read(project="default", kind="note", key="long", after=["", "100"], limit=20),
    logs.Pop(project="default", kind="note", key="long"),
], ids=["the last ones", "the first ones", "a later page", "pop"])  # fmt: skip
async def test_a_page_of_a_log_that_grew_since_the_statistics_reads_no_more_than_it_gives(
    alone: Transaction, call_: Operation[Any]
) -> None:
    await alone.connection.execute("""
        analyze coordinator.logs, coordinator.entries;
        insert into coordinator.logs (project_id, kind, key, epoch, last_seq, count, updated_at)
          select 1, 'note', case n when 1 then 'long' else 'k' || n end, 1, 5000, 5000, now() from generate_series(1, 300) n;
        insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)
          select l.id, n, 1, 'a', now(), '1' from coordinator.logs l, generate_series(1, 5000) n where l.key = 'long'""")
    for _ in range(7):  # from the sixth on, with a plan for any values
        before = await alone.connection.fetchval(INDEX_READ)
        await alone.run(call_)
        assert await alone.connection.fetchval(INDEX_READ) - before <= 60


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with opened(database_url) as connection:
        yield connection


async def test_appends_update_their_header_in_its_page(one: asyncpg.Connection) -> None:
    for number in range(150):
        await call(one, append({"data": number, "uid": str(number)} if number % 2 else number, key=str(number % 3)))
    await one.execute("select pg_stat_force_next_flush()")
    query = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = 'coordinator.logs'::regclass"
    updated, hot = await one.fetchrow(query) or (0, 0)
    assert updated >= 150
    assert hot > 0.95 * updated
