"""While an old snapshot is open, claims do not read everything that was claimed since then, but still find jobs below their floor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest

from tests.daemon import opened

pytestmark = pytest.mark.usefixtures("untended")

PILE = 6_000
BATCH = 1_000
READ = (
    "select pg_stat_get_xact_tuples_returned('coordinator.jobs_ready_pkey'::regclass)"
    " + pg_stat_get_xact_tuples_returned('coordinator.job_permits_pkey'::regclass)"
)
FLOORS = "select coalesce(nullif(current_setting('coordinator.job_floors', true), ''), '{}')"


class Claimer:
    """A worker on one session."""

    def __init__(self, connection: asyncpg.Connection, agent: UUID, queue: str) -> None:
        self.connection = connection
        self.agent = agent
        self.queue = queue

    async def enqueue(self, jobs: int = 1, **fields: object) -> list[UUID]:
        rows = await self.connection.fetch(
            "select id from coordinator.job_enqueue_many('default', $1)",
            [{"type": "work", "queue": self.queue, "key": f"k{number}", **fields} for number in range(jobs)],
        )
        return [row["id"] for row in rows]

    async def claim(self, limit: int) -> list[UUID]:
        query = "select id from coordinator.job_claim('default', $1, $2)"
        return [row["id"] for row in await self.connection.fetch(query, self.agent, limit)]

    async def until(self, seconds: float) -> None:
        """Let the floors last for that long from now."""
        floors = json.loads(await self.connection.fetchval(FLOORS))
        assert floors, "a look over thousands of dead entries left no floor"
        now = await self.connection.fetchval("select extract(epoch from clock_timestamp())::float")
        floors["until"] = now + seconds
        await self.connection.execute("select set_config('coordinator.job_floors', $1, false)", json.dumps(floors))


@asynccontextmanager
async def claimer_in_a_pile(url: str, queue: str) -> AsyncIterator[Claimer]:
    """Hold a snapshot open, and claim thousands of jobs."""
    async with opened(url) as connection, opened(url) as holder:
        await connection.execute("select coordinator.queue_set('default', 'fair', p_fair_by => 'key')")
        agent = await connection.fetchval(
            "select id from coordinator.agent_register('default', 'worker', p_job_types => '{work}', p_ttl => '1 hour')"
        )
        claimer = Claimer(connection, agent, queue)
        await claimer.enqueue()
        await claimer.claim(1)
        # As if they were always small.
        await connection.execute("analyze coordinator.jobs_ready, coordinator.job_lanes")
        async with holder.transaction(isolation="repeatable_read", readonly=True):
            await holder.fetchval("select count(*) from coordinator.jobs_open")
            for _ in range(PILE // BATCH):
                await claimer.enqueue(BATCH)
                assert len(await claimer.claim(BATCH)) == BATCH
            await claimer.enqueue(2 * BATCH)
            await claimer.claim(10)
            yield claimer


@pytest.mark.parametrize("queue", ["default", "fair"])
async def test_a_claim_under_an_old_snapshot_steps_over_little(database_url: str, queue: str) -> None:
    async with claimer_in_a_pile(database_url, queue) as claimer:
        await claimer.until(3600)
        async with claimer.connection.transaction():
            before = await claimer.connection.fetchval(READ)
            assert len(await claimer.claim(100)) == 100
            assert await claimer.connection.fetchval(READ) - before < BATCH
        assert len(await claimer.claim(BATCH)) == BATCH


@pytest.mark.parametrize("queue", ["default", "fair"])
async def test_a_job_below_the_floor_is_found_at_once_if_there_is_nothing_else_and_first_by_the_next_full_look(
    database_url: str, queue: str
) -> None:
    async with claimer_in_a_pile(database_url, queue) as claimer, opened(database_url) as other:
        await claimer.until(3600)
        (urgent,) = await claimer.enqueue(priority=5, key="urgent")
        waiting = await claimer.connection.fetchval("select count(*) from coordinator.jobs_ready")
        found = [job for _ in range(waiting // BATCH + 1) for job in await claimer.claim(BATCH)]
        assert len(found) == waiting
        assert urgent in found

        late = other.transaction()
        await late.start()
        (first,) = await Claimer(other, claimer.agent, queue).enqueue(key="late")
        await claimer.enqueue(2 * BATCH)
        await claimer.claim(BATCH)
        await late.commit()
        await claimer.until(-1)
        assert await claimer.claim(1) == [first]


async def test_without_an_old_snapshot_no_claim_leaves_a_floor(database_url: str) -> None:
    async with opened(database_url) as connection:
        agent = await connection.fetchval(
            "select id from coordinator.agent_register('default', 'worker', p_job_types => '{work}', p_ttl => '1 hour')"
        )
        claimer = Claimer(connection, agent, "default")
        for _ in range(8):
            await claimer.enqueue(BATCH)
            assert len(await claimer.claim(BATCH)) == BATCH
        assert await connection.fetchval(FLOORS) == "{}"
