"""The jobs of a long queue get other places batch by batch: what happens to them before, between and afterwards."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.operations import agents, jobs, queues
from tests.conftest import Open, Transaction
from tests.sql.test_races import while_uncommitted

AT_ONCE = re.compile(r"(?<=v_left  integer := )\d+")
MINUTE = timedelta(minutes=1)
KEYS = "abcab"


async def at_once(connection: asyncpg.Connection, count: int = 0) -> None:
    """Let the change of a policy place this many jobs itself, and leave the others to the loop."""
    source = await connection.fetchval("select pg_get_functiondef('coordinator.queue_arrange'::regproc)")
    changed, places = AT_ONCE.subn(str(count), source)
    assert places == 1
    await connection.execute(changed)


class Long:
    """A queue with a few jobs, which are as many as if there were thousands."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.agent: UUID
        self.made: list[UUID] = []

    async def fill(self, **first: Any) -> None:
        await at_once(self.connection)
        await call(self.connection, queues.Set(project="default", queue="q", **first))
        self.agent = (
            await call(self.connection, agents.Register(project="default", name="w", job_types=["x"], ttl=60 * MINUTE))
        ).id
        for key in KEYS:
            await self.enqueue(key)

    async def enqueue(self, key: str, priority: int = 1) -> UUID:
        made = await call(
            self.connection, jobs.Enqueue(project="default", type="x", queue="q", key=key, priority=priority)
        )
        self.made.append(made.id)
        return made.id

    async def set(self, **policy: Any) -> int | None:
        return (await call(self.connection, queues.Set(project="default", queue="q", **policy))).unplaced_count

    async def place(self, limit: int = 2) -> int:
        return await call(self.connection, queues.Arrange(limit=limit))

    async def place_all(self) -> None:
        for _ in range(100):
            if not await self.place() and await self.left() is None:
                return
        raise AssertionError("it does not end")

    async def left(self) -> int | None:
        return (await call(self.connection, queues.Get(project="default", queue="q"))).unplaced_count

    async def claim(self, limit: int = 1) -> list[UUID]:
        return [g.id for g in await call(self.connection, jobs.Claim(project="default", agent=self.agent, limit=limit))]

    async def misplaced(self) -> int:
        """Count the queued jobs that are not where the policy of their queue has them, and lanes and permits without jobs."""
        count: int = await self.connection.fetchval("""
            select count(*) filter (where r.rank <> coordinator.job_rank(j.scheduled_at, j.priority, q.ageing)
                                       or r.lane_id <> case when q.fair or c.keyed then (
                                            select l.id from coordinator.job_lanes l join coordinator.job_permits p on p.lane_id = l.id
                                            where l.class_id = r.class_id and l.key = coalesce(j.key, '') limit 1) else 0 end)
                   + (select count(*) from coordinator.job_placements)
                   + (select count(*) from coordinator.job_classes where arranging)
                   + (select count(*) from coordinator.job_lanes l where not exists (
                        select from coordinator.jobs_ready n where n.lane_id = l.id))
                   + (select count(*) from coordinator.job_permits p where not exists (
                        select from coordinator.job_lanes l where l.id = p.lane_id))
            from coordinator.jobs_ready r join coordinator.jobs_open j on j.id = r.id join coordinator.job_classes c on c.id = r.class_id
            join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue""")
        return count


CHANGES = pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"fair_by": "key"}),
        ({"fair_by": "key"}, {"fair_by": "none"}),
        ({}, {"ageing": MINUTE}),
        ({"ageing": MINUTE, "fair_by": "key"}, {"ageing": timedelta(0), "fair_by": "none"}),
        ({}, {"ageing": MINUTE, "fair_by": "key"}),
    ],
    ids=["fair", "plain", "ageing", "plain and strict", "fair and ageing"],
)


@CHANGES
async def test_jobs_are_placed_batch_by_batch_with_progress_and_an_event_at_the_end(
    tx: Transaction, before: dict[str, Any], after: dict[str, Any]
) -> None:
    queue = Long(tx.connection)
    await queue.fill(**before)
    assert await queue.set(**after) == len(KEYS)
    assert "queue_place" in await tx.connection.fetchval("select coordinator.work_due()")
    assert await queue.place() == 2
    assert await queue.left() == len(KEYS) - 2
    await queue.place_all()
    assert await queue.misplaced() == 0
    assert "queue_place" not in await tx.connection.fetchval("select coordinator.work_due()")
    assert [event["type"] for event in await tx.events()][-1] == "queue.arranged"
    assert sorted(await queue.claim(10)) == sorted(queue.made)


@CHANGES
async def test_every_job_can_be_claimed_meanwhile_and_of_lanes_those_that_have_their_places_first(
    tx: Transaction, before: dict[str, Any], after: dict[str, Any]
) -> None:
    queue = Long(tx.connection)
    await queue.fill(**before)
    await queue.set(**after)
    new = await queue.enqueue("z", priority=50)
    lanes = before.get("fair_by", "none") != after.get("fair_by", "none")
    (first,) = await queue.claim()
    assert first == new or not lanes
    for _ in range(2):
        await queue.place(1)
        assert len(await queue.claim()) == 1
    assert len(await queue.claim(10)) == len(KEYS) - 2
    assert await queue.claim(10) == [], "none is claimed twice"
    await queue.place_all()
    assert await queue.misplaced() == 0


@CHANGES
@pytest.mark.parametrize("batches", [0, 1, 9])
async def test_a_job_can_be_cancelled_wherever_it_is(
    tx: Transaction, before: dict[str, Any], after: dict[str, Any], batches: int
) -> None:
    queue = Long(tx.connection)
    await queue.fill(**before)
    await queue.set(**after)
    await queue.set(ageing=2 * MINUTE)
    for _ in range(batches):
        await queue.place()
    for job in queue.made:
        assert (await call(tx.connection, jobs.Cancel(project="default", job=job))).status == "cancelled"
    await queue.place_all()
    assert await tx.connection.fetchval("select count(*) from coordinator.jobs_ready") == 0


async def test_a_policy_that_changes_again_begins_again(tx: Transaction) -> None:
    queue = Long(tx.connection)
    await queue.fill()
    await queue.set(fair_by="key")
    await queue.place(3)
    assert await queue.set(fair_by="none", ageing=MINUTE) == len(KEYS)
    await queue.place(3)
    await queue.set(ageing=2 * MINUTE)
    await queue.place_all()
    assert await queue.misplaced() == 0
    assert sorted(await queue.claim(10)) == sorted(queue.made)


@pytest.mark.parametrize("fair_by", ["none", "key"])
async def test_a_limit_per_key_counts_every_job_from_the_moment_that_it_is_set(tx: Transaction, fair_by: str) -> None:
    """Jobs that are not in their lanes yet wait for them; the others start, one of each key."""
    queue = Long(tx.connection)
    await queue.fill(fair_by=fair_by)
    await tx.connection.execute(
        "select coordinator.limit_set('default', 'l', p_slots => 1, p_queue => 'q', p_per_key => true)"
    )
    started = await queue.claim(10)
    await queue.place_all()
    started += await queue.claim(10)
    keys = await tx.connection.fetch("select key from coordinator.jobs_open where id = any ($1::uuid[])", started)
    assert sorted(row["key"] for row in keys) == ["a", "b", "c"]
    assert await queue.misplaced() <= 2, "a lane whose key is full has no permit"
    await tx.connection.execute("select coordinator.limit_delete('default', 'l')")
    assert len(await queue.claim(10)) == 2, "those of full keys are in the line again"
    await queue.place_all()
    assert await queue.misplaced() == 0


async def test_few_jobs_are_placed_with_the_change(tx: Transaction) -> None:
    queue = Long(tx.connection)
    await queue.fill()
    await at_once(tx.connection, len(KEYS) + 2)
    assert await queue.set(fair_by="key", ageing=MINUTE) is None
    assert await queue.misplaced() == 0


@pytest.mark.parametrize("commit", [True, False])
async def test_a_job_that_a_claim_has_is_passed_over_and_placed_if_the_claim_is_undone(
    session: Open, commit: bool
) -> None:
    claiming, other = await session(), await session()
    queue = Long(other)
    await queue.fill()
    await queue.set(fair_by="key")
    transaction = claiming.transaction()
    await transaction.start()
    (taken,) = await call(claiming, jobs.Claim(project="default", agent=queue.agent))
    for _ in range(2 * len(KEYS)):
        await queue.place(2)
    assert await queue.left() is not None, "one job is missing"
    await (transaction.commit() if commit else transaction.rollback())
    await queue.place_all()
    assert await queue.misplaced() == 0
    assert (taken.id in await queue.claim(10)) is not commit


async def test_a_cancellation_waits_for_the_batch_that_has_the_job_and_finds_it_in_its_new_place(session: Open) -> None:
    connection = await session()
    queue = Long(connection)
    await queue.fill()
    await queue.set(fair_by="key", ageing=MINUTE)
    job = queue.made[0]
    _, outcome = await while_uncommitted(session, queues.Arrange(limit=100), jobs.Cancel(project="default", job=job))
    assert not isinstance(outcome, CoordinatorError)
    assert outcome.status == "cancelled"
    assert sorted(await queue.claim(10)) == sorted(queue.made[1:])


async def test_a_batch_makes_nobody_wait(session: Open) -> None:
    placing, connection = await session(), await session()
    queue = Long(connection)
    await queue.fill()
    await queue.set(fair_by="key")
    transaction = placing.transaction()
    await transaction.start()
    assert await call(placing, queues.Arrange(limit=2)) == 2
    new = await queue.enqueue("z", priority=50)
    assert await queue.claim() == [new], "neither an enqueue nor a claim waits"
    assert len(await queue.claim(10)) == len(KEYS) - 2, "the batch hides its jobs until its commit"
    assert await queue.place(2) == 0, "nor does another daemon"
    await transaction.commit()
    assert len(await queue.claim(10)) == 2
    await queue.place_all()
    assert await queue.misplaced() == 0
