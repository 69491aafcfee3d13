"""How long ended jobs are kept: partitions by day, what is pruned, and what that does not hold up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from coordinator.db import schema
from coordinator.db.connection import connect
from coordinator.errors import Conflict
from coordinator.operations import job_history
from tests.conftest import Transaction
from tests.sql.test_job_history import claim, complete, enqueue, failed, listed, worker
from tests.sql.test_plans import explain, indexes, scanned

DAY = timedelta(days=1)
KEPT = job_history.Prune(completed=7 * DAY, other=30 * DAY)


@pytest_asyncio.fixture(loop_scope="session")
async def tx(tx: Transaction) -> Transaction:
    """The transaction, with a stopped clock, so that its day does not end, and the partitions that the leader creates for it."""
    await tx.set_clock(timedelta(0))
    await tx.run(job_history.Extend())
    return tx


async def days(tx: Transaction, root: str) -> list[str]:
    """Days that have a partition."""
    rows = await tx.connection.fetch(
        "select right(c.relname, 8) from pg_inherits i join pg_class c on c.oid = i.inhrelid"
        " where i.inhparent = ('coordinator.' || $1)::regclass and c.relname ~ '\\d$' order by 1",
        root,
    )
    return [row[0] for row in rows]


async def end_two(tx: Transaction) -> tuple[UUID, UUID]:
    """End a job by completion and one by failure, now."""
    agent = await worker(tx, ttl="1 day")
    done = await enqueue(tx)
    (grant,) = await claim(tx, agent)
    await complete(tx, agent, grant)
    return done, await failed(tx, agent)


async def of(tx: Transaction, job: UUID) -> str:
    """The table that an ended job is in."""
    name: str = await tx.connection.fetchval(
        "select relname from pg_class where oid = (select tableoid from coordinator.jobs_ended where id = $1)", job
    )
    return name


async def prune(tx: Transaction) -> int:
    count = 0
    while pruned := await tx.run(KEPT):
        count += pruned
    return count


async def test_ended_jobs_are_in_partitions_by_the_day_of_their_end_and_kind(tx: Transaction) -> None:
    today = await tx.connection.fetchval("select to_char(coordinator.now_utc() at time zone 'UTC', 'YYYYMMDD')")
    done, dead = await end_two(tx)
    assert await of(tx, done) == f"jobs_completed_{today}"
    assert await of(tx, dead) == f"jobs_uncompleted_{today}"


async def test_partitions_are_made_ahead_and_only_once(tx: Transaction) -> None:
    assert await tx.run(job_history.Extend()) == 0
    before = await days(tx, "jobs_completed")
    today = await tx.connection.fetchval("select to_char(coordinator.now_utc() at time zone 'UTC', 'YYYYMMDD')")
    assert len([day for day in before if day >= today]) == 8
    await tx.set_clock(2 * DAY)
    assert "job_extend" not in await tx.connection.fetchval("select coordinator.work_due()")
    assert await tx.run(job_history.Extend()) == 4
    assert (await days(tx, "jobs_completed"))[:-2] == before
    assert await days(tx, "jobs_completed") == await days(tx, "jobs_uncompleted")
    await tx.set_clock(9 * DAY)
    assert "job_extend" in await tx.connection.fetchval("select coordinator.work_due()")


async def test_a_day_is_dropped_when_all_its_jobs_are_older_than_their_retention(tx: Transaction) -> None:
    done, dead = await end_two(tx)
    today = (await of(tx, done))[-8:]
    await tx.set_clock(7 * DAY - timedelta(microseconds=1))
    await prune(tx)
    assert {*await listed(tx)} == {done, dead}
    await tx.set_clock(8 * DAY)
    await prune(tx)
    assert await listed(tx) == [dead]
    assert today not in await days(tx, "jobs_completed")
    assert today in await days(tx, "jobs_uncompleted")
    await tx.set_clock(31 * DAY)
    assert await prune(tx) > 0
    assert await listed(tx) == []
    assert await prune(tx) == 0


async def test_without_a_daemon_jobs_end_in_the_default_partition_and_are_pruned_there(tx: Transaction) -> None:
    await tx.set_clock(100 * DAY)
    await prune(tx)
    done, dead = await end_two(tx)
    assert (await of(tx, done), await of(tx, dead)) == ("jobs_completed_default", "jobs_uncompleted_default")
    # For tomorrow only: a row in the default partition is looked at each time.
    assert await tx.run(job_history.Extend()) == 2
    await tx.set_clock(101 * DAY)
    assert await tx.run(job_history.Extend()) == 2
    (next_done, _) = await end_two(tx)
    assert await of(tx, next_done) != "jobs_completed_default"
    await tx.set_clock(108 * DAY)
    assert await tx.run(KEPT) >= 1
    assert done not in await listed(tx)
    assert dead in await listed(tx)
    await tx.set_clock(131 * DAY)
    await prune(tx)
    assert dead not in await listed(tx)


async def test_only_what_was_archived_is_pruned(tx: Transaction) -> None:
    await end_two(tx)
    await tx.set_clock(7 * DAY)
    await prune(tx)  # the days before this one, which have no jobs
    await tx.set_clock(8 * DAY)
    (found,) = await tx.run(job_history.ListPrunable(completed=7 * DAY, other=30 * DAY))
    archive = job_history.ListArchive(relation=found.relation, until=found.until)
    (job,) = await tx.run(archive)
    wrong = job_history.Prune(completed=7 * DAY, other=30 * DAY, relation=found.relation, archived=2)
    with pytest.raises(Conflict, match="has 1 jobs to prune, and 2 were archived"):
        await tx.run(wrong)
    assert job.id in await listed(tx)


async def test_the_payloads_of_a_day_that_is_over_are_found_by_index(tx: Transaction) -> None:
    day = await tx.connection.fetchval("select to_char(coordinator.now_utc() at time zone 'UTC', 'YYYYMMDD')")
    await tx.connection.execute("""
      insert into coordinator.jobs_ended (id, project_id, queue, type, priority, payload, labels, max_attempts, actor, created_at, scheduled_at,
                                          status, attempts, completed_at, ended_by)
      select gen_random_uuid(), p.id, 'q', 't', 0, jsonb_build_object('n', n), '{}', 3, 'a', now(), now(), 'completed', 1, now(), 'a'
      from generate_series(1, 20000) n, coordinator.projects p""")
    assert await tx.run(job_history.Index()) == 0
    await tx.set_clock(DAY)
    while await tx.run(job_history.Index()):
        pass
    await tx.connection.execute("analyze coordinator.jobs_ended")
    plan = await explain(
        tx,
        "select id, payload, status from coordinator.job_rows"
        """ where project_id = 1 and payload @> '{"n": 7}' order by id desc limit 10""",
    )
    assert f"jobs_completed_{day}_payload_idx" in indexes(plan)
    assert f"jobs_completed_{day}" not in scanned(plan)
    (found,) = await tx.run(job_history.List(project="default", payload={"n": 7}))
    assert found.payload == {"n": 7}
    await tx.set_clock(9 * DAY)
    assert await prune(tx) > 0  # with its index


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[tuple[Transaction, Transaction]]:
    """Two sessions, which wait for nothing. Their clocks stand, on a day that has the partitions that the leader makes on it."""
    one, other = await connect(database_url), await connect(database_url)
    now: datetime = await one.fetchval("select coordinator.now_utc()")
    for connection in (one, other):
        await connection.execute("set lock_timeout = '1s'")
        await set_clock(Transaction(connection), now)
    await Transaction(one).run(job_history.Extend())
    yield Transaction(one), Transaction(other)
    await one.close()
    await other.close()


async def set_clock(tx: Transaction, instant: datetime) -> None:
    await tx.connection.execute("select set_config('coordinator.fake_now', $1, false)", instant.isoformat())


async def test_making_partitions_and_ending_jobs_do_not_wait_for_each_other(
    two: tuple[Transaction, Transaction],
) -> None:
    one, other = two
    now: datetime = await one.connection.fetchval("select coordinator.now_utc()")
    await set_clock(other, now + DAY)
    agent = await worker(one)

    async def end() -> UUID:
        job = await enqueue(one)
        (grant,) = await claim(one, agent)
        finish = "select coordinator.job_claim('default', $1, 1, p_finished => array[$2::uuid], p_fences => array[$3::bigint], p_results => '[1]')"
        await one.connection.execute(finish, agent, job, grant["fence"])
        return job

    async with one.connection.transaction():
        done = await end()
        assert await other.run(job_history.Extend()) == 2
    async with other.connection.transaction():
        await set_clock(other, now + 2 * DAY)
        assert await other.run(job_history.Extend()) == 2
        again = await end()
    assert {done, again} <= {*await listed(one)}


async def test_who_reads_all_history_puts_off_a_partition_but_not_the_one_of_tomorrow(
    two: tuple[Transaction, Transaction],
) -> None:
    one, other = two
    now: datetime = await one.connection.fetchval("select coordinator.now_utc()")
    async with one.connection.transaction():
        await one.connection.fetch("select id from coordinator.jobs")
        await set_clock(other, now + DAY)
        assert await other.run(job_history.Extend()) == 0
        await set_clock(other, now + 8 * DAY)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await other.connection.execute("select coordinator.job_extend()")
    assert await other.run(job_history.Extend()) == 16


async def test_the_schema_is_applied_while_somebody_reads_all_history(two: tuple[Transaction, Transaction]) -> None:
    one, other = two
    now: datetime = await one.connection.fetchval("select coordinator.now_utc()")
    (history,) = [file.text for file in schema.files() if file.name == "job/history.sql"]
    await set_clock(other, now + 8 * DAY)
    async with one.connection.transaction():
        await one.connection.fetch("select id from coordinator.jobs")
        await other.connection.execute(history)
    await other.connection.execute(history)
    assert await other.run(job_history.Extend()) == 0


async def test_a_day_in_use_is_dropped_later_and_nobody_waits_for_it(two: tuple[Transaction, Transaction]) -> None:
    one, other = two
    now: datetime = await one.connection.fetchval("select coordinator.now_utc()")
    done, dead = await end_two(one)
    await set_clock(other, now + 8 * DAY)
    async with one.connection.transaction():
        await one.connection.fetch("select id from coordinator.jobs")
        assert await other.run(KEPT) == 0
        await end_two(one)
    assert await prune(other) >= 1
    assert done not in await listed(one)
    assert dead in await listed(one)
