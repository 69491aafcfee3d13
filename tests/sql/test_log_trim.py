"""Retention of logs: what goes by age and by count, what stays, and when a log is looked at."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from coordinator.operations import retentions
from tests.conftest import Transaction
from tests.sql.test_plans import explain, indexes, statement

P = "default"
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


async def policy(tx: Transaction, *, max_age: timedelta | None = None, max_count: int | None = None) -> None:
    await tx.run(retentions.Set(project=P, subject="log", kind="note", max_age=max_age, max_count=max_count))
    while await tx.run(retentions.Sweep()):
        pass


async def append(tx: Transaction, count: int = 1, *, key: str = "k", kind: str = "note", **fields: Any) -> None:
    for first in range(0, count, 1000):
        entries = json.dumps([{"data": 1, **fields}] * min(1000, count - first))
        await tx.connection.execute("select coordinator.log_append($1, $2, $3, $4::text::json)", P, kind, key, entries)


async def execute(tx: Transaction, sql: str, key: str = "k") -> None:
    await tx.connection.execute(sql.replace("LOG", f"(select id from coordinator.logs where key = '{key}')"))


async def keep(tx: Transaction, seq: int, needs: int | None = None) -> None:
    await execute(tx, f"update coordinator.entries set kept = true where log_id = LOG and seq = {seq}")
    if needs:
        await execute(tx, f"update coordinator.entries set needs_seq = {needs} where log_id = LOG and seq = {seq}")


async def trim(tx: Transaction, limit: int = 1000) -> int:
    """Trim until nothing is due, and return how many entries went."""
    gone = 0
    while results := await tx.run(retentions.Trim(limit=limit)):
        assert sum(result.removed for result in results) <= limit
        gone += sum(result.removed for result in results)
    return gone


async def seqs(tx: Transaction, key: str = "k") -> list[int]:
    """Return the numbers that are there; the header counts them."""
    log, count = await tx.connection.fetchrow("select id, count from coordinator.logs where key = $1", key)
    found = [
        row[0]
        for row in await tx.connection.fetch("select seq from coordinator.entries where log_id = $1 order by 1", log)
    ]
    assert len(found) == count
    return found


async def due(tx: Transaction) -> bool:
    return "log_trim" in await tx.connection.fetchval("select coordinator.work_due()")


async def test_entries_go_by_age_and_the_log_is_due_when_the_oldest_is(tx: Transaction) -> None:
    await policy(tx, max_age=DAY)
    for hours in range(0, 30, 10):
        await tx.set_clock(timedelta(hours=hours))
        await append(tx, 2)
    assert not await due(tx)
    await tx.set_clock(DAY + timedelta(seconds=1))
    assert await due(tx)
    assert (await trim(tx), await seqs(tx)) == (2, [3, 4, 5, 6])
    await tx.set_clock(DAY + 9 * HOUR)
    assert not await due(tx)
    await tx.set_clock(DAY + 11 * HOUR)
    assert (await due(tx), await trim(tx), await seqs(tx)) == (True, 2, [5, 6])
    await tx.set_clock(5 * DAY)
    assert (await trim(tx), await seqs(tx), await due(tx)) == (2, [], False)
    await append(tx)
    assert await seqs(tx) == [7]


async def test_the_newest_entries_stay_by_count_and_appends_look_only_now_and_then(tx: Transaction) -> None:
    await policy(tx, max_count=10)
    await append(tx, 255)
    assert not await due(tx)
    await append(tx)
    assert await due(tx)
    assert (await trim(tx), await seqs(tx)) == (246, list(range(247, 257)))
    await append(tx, 20)
    assert not await due(tx)


async def test_what_a_kept_entry_needs_stays_and_what_that_needs(tx: Transaction) -> None:
    await policy(tx, max_count=2)
    await append(tx, 300)
    await execute(tx, "update coordinator.entries set needs_seq = 3 where log_id = LOG and seq = 6")
    await keep(tx, 8, needs=5)
    await keep(tx, 20)
    assert await trim(tx, 7) == 300 - 9
    assert await seqs(tx) == [3, 4, 5, 6, 7, 8, 20, 299, 300]
    await append(tx, 300)
    await trim(tx)
    assert await seqs(tx) == [3, 4, 5, 6, 7, 8, 20, 599, 600]


async def test_numbers_that_were_popped_do_not_count(tx: Transaction) -> None:
    await policy(tx, max_count=300)
    await append(tx, 290)
    await execute(tx, "delete from coordinator.entries where log_id = LOG and seq > 90")
    await execute(tx, "update coordinator.logs set count = 90 where id = LOG")
    await append(tx, 250)
    assert len(await seqs(tx)) == 340
    assert await trim(tx) == 40
    assert await seqs(tx) == [*range(41, 91), *range(291, 541)]


async def test_a_log_that_is_kept_stays_whole_until_it_is_released(tx: Transaction) -> None:
    await policy(tx, max_count=5)
    await append(tx, 300)
    await execute(tx, "update coordinator.logs set kept = true where id = LOG")
    assert (await trim(tx), len(await seqs(tx)), await due(tx)) == (0, 300, False)
    await execute(tx, "update coordinator.logs set kept = false, trim_at = coordinator.now_utc() where id = LOG")
    assert (await trim(tx), len(await seqs(tx))) == (295, 5)


async def test_the_entries_of_a_deleted_log_are_removed_and_its_header_a_week_later(tx: Transaction) -> None:
    await append(tx, 30)
    await keep(tx, 3)
    await execute(
        tx,
        "update coordinator.logs set deleted = true, updated_at = coordinator.now_utc(), trim_at = coordinator.now_utc() where id = LOG",
    )
    assert (await trim(tx, 20), await seqs(tx)) == (30, [])
    await tx.set_clock(8 * DAY)
    await trim(tx)
    assert await tx.connection.fetchval("select count(*) from coordinator.logs") == 0


async def test_a_new_policy_reaches_the_logs_that_are_there(tx: Transaction) -> None:
    for key in ("a", "b", "c"):
        await append(tx, 20, key=key)
    await append(tx, 20, key="d", kind="other")
    await tx.run(retentions.Set(project=P, subject="log", kind="note", max_count=5))
    assert "retention_sweep" in await tx.connection.fetchval("select coordinator.work_due()")
    while await tx.run(retentions.Sweep(limit=2)):
        pass
    assert await trim(tx) == 45
    assert [len(await seqs(tx, key)) for key in "abcd"] == [5, 5, 5, 20]


@pytest.mark.parametrize("limit", [1, 10, 1000])
async def test_what_would_be_removed_is_what_is_removed(tx: Transaction, limit: int) -> None:
    await policy(tx, max_age=DAY, max_count=30)
    await append(tx, 15)
    await append(tx, 5, key="other")
    await tx.set_clock(DAY + HOUR)
    await append(tx, 40)
    await keep(tx, 4, needs=2)
    plan = {row.reason: row for row in await tx.run(retentions.Preview(project=P))}
    assert {reason: (row.subject, row.kind, row.removed, row.count) for reason, row in plan.items()} == {
        "max_age": ("log", "note", 12 + 5, 2),
        "max_count": ("log", "note", 10, 1),
    }
    await tx.run(retentions.Run(project=P))
    while await tx.run(retentions.Sweep()):
        pass
    assert await trim(tx, limit) == 27
    assert await seqs(tx) == [2, 3, 4, *range(26, 56)]
    assert await tx.run(retentions.Preview(project=P)) == []


async def test_a_setting_of_the_daemon_bounds_observations_in_all_projects(tx: Transaction) -> None:
    configure = retentions.Configure(max_age=DAY, max_count=3)
    assert [await tx.run(configure) for _ in range(2)] == [1, 0]
    assert await tx.run(retentions.Configure(max_count=5)) == 1
    policies = {row.kind: row for row in await tx.run(retentions.Show(project=P)) if row.subject == "log"}
    assert (policies["observation"].max_age, policies["observation"].max_count) == (DAY, 5)
    await append(tx, 300, kind="observation")
    assert (await trim(tx), len(await seqs(tx))) == (295, 5)


async def test_an_append_beyond_the_bound_does_not_postpone_what_is_due(tx: Transaction) -> None:
    await tx.run(retentions.Configure(max_count=5))
    await append(tx, 250, kind="observation")
    await tx.connection.execute("update coordinator.logs set trim_at = '2020-01-01' where kind = 'observation'")
    await append(tx, 10, kind="observation")
    trim_at = await tx.connection.fetchval("select trim_at from coordinator.logs where kind = 'observation'")
    assert trim_at.year == 2020, "a call of log_trim that waits for the header finds it due still"


@pytest.mark.parametrize("analyzed", [True, False])
async def test_due_logs_are_found_by_an_index(tx: Transaction, *, analyzed: bool) -> None:
    await tx.connection.execute(
        "insert into coordinator.logs (project_id, kind, key, epoch, updated_at, trim_at)"
        " select 1, 'note', n::text, 0, now(), now() + interval '1 day' from generate_series(1, 5000) n"
    )
    if analyzed:
        await tx.connection.execute("analyze coordinator.logs")
    if analyzed:
        exists = "select exists (select from coordinator.logs where trim_at <= now())"
        assert indexes(await explain(tx, exists)) == {"logs_trim_idx"}
    await tx.connection.execute(
        "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off"
    )  # as log_trim has it
    sql = await statement(tx, "log_trim", r"select \* into v_log from .*? skip locked", v_now="now()")
    assert indexes(await explain(tx, sql.replace("into v_log", ""))) == {"logs_trim_idx"}
    walk = await statement(
        tx,
        "log_trim",
        r"select w.seq, w.created_at, w.place.*?limit v_left",
        v_log__trim_from="7",
        v_log__id="1",
        v_log__deleted="false",
        v_needed="'{}'::int8multirange",
        v_left="1000",
    )
    plan = await explain(tx, walk)
    assert indexes(plan) == {"entries_pkey"}
    assert not [node for node in plan if node["Node Type"] == "Sort"]
    listed = f"('{{{','.join(map(str, range(7, 1007)))}}}'::bigint[])"
    removal = await statement(
        tx, "log_trim", r"delete from coordinator.entries e.*?(?=;)", v_log__id="1", v_seqs=listed
    )
    found = [node for node in await explain(tx, removal) if "Index Name" in node]
    assert [node["Index Name"] for node in found] == ["entries_pkey"]
    assert "seq >=" in found[0]["Index Cond"], "whatever the planner does with the list, it does not read the whole log"
