"""An enqueue whose transaction commits long after claims have passed the place of its jobs: they are still claimed."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from tests.daemon import opened

ENQUEUE = "select id from coordinator.job_enqueue('default', 'work', p_queue => $1, p_key => $2)"
CLAIM = "select id, fence from coordinator.job_claim('default', $1, 100, p_queues => $2)"


async def claimed(connection: asyncpg.Connection, agent: UUID, queue: str) -> set[UUID]:
    """Claim all that there is, in several turns, and complete it."""
    found: set[UUID] = set()
    for _ in range(3):  # an empty lane leaves the line with one of them
        for row in await connection.fetch(CLAIM, agent, [queue]):
            found.add(row["id"])
            await connection.execute(
                "select coordinator.job_complete('default', $1, $2, $3)", row["id"], agent, row["fence"]
            )
    return found


@pytest.mark.parametrize("queue", ["plain", "fair"])
@pytest.mark.parametrize("lane", ["new", "served before"])
async def test_a_job_whose_enqueue_commits_after_later_jobs_were_claimed_is_claimed(
    database_url: str, queue: str, lane: str
) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        await one.execute("select coordinator.queue_set('default', 'fair', p_fair_by => 'key')")
        agent = await one.fetchval(
            "select id from coordinator.agent_register('default', 'worker', p_job_types => '{work}', p_ttl => '1 hour')"
        )
        # Whoever uses a queue for the first time has others wait for its commit.
        before = await one.fetchval(ENQUEUE, queue, "late" if lane == "served before" else "early")
        assert await claimed(one, agent, queue) == {before}
        for way in ("commit", "rollback"):
            transaction = other.transaction()
            await transaction.start()
            late = await other.fetchval(ENQUEUE, queue, "late")
            later = {await one.fetchval(ENQUEUE, queue, f"k{number % 3}") for number in range(10)}
            assert await claimed(one, agent, queue) == later
            await getattr(transaction, way)()
            assert await claimed(one, agent, queue) == ({late} if way == "commit" else set())
            again = await one.fetchval(ENQUEUE, queue, "late")
            assert await claimed(one, agent, queue) == {again}


async def test_a_claim_that_is_rolled_back_leaves_its_jobs_to_others(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        await one.execute("select coordinator.queue_set('default', 'fair', p_fair_by => 'key')")
        agent = await one.fetchval(
            "select id from coordinator.agent_register('default', 'worker', p_job_types => '{work}', p_ttl => '1 hour')"
        )
        for queue in ("plain", "fair"):
            jobs = {await one.fetchval(ENQUEUE, queue, f"k{number % 3}") for number in range(10)}
            transaction = other.transaction()
            await transaction.start()
            first = {row["id"] for row in await other.fetch(CLAIM, agent, [queue])}
            assert first == jobs
            assert await claimed(one, agent, queue) == set()
            await transaction.rollback()
            assert await claimed(one, agent, queue) == jobs
