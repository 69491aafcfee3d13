"""Output of jobs: numbered without gaps under the fence, read after a number, kept with the job."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from coordinator.operations import job_history, jobs
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_job import MINUTE, World, held


@pytest_asyncio.fixture(loop_scope="session")
async def world(tx: Transaction) -> World:
    return World(tx)


async def output(world: World, job: UUID, after: int = 0, **page: Any) -> list[tuple[int, int | None, Any, str | None]]:
    rows = await world.run(job_history.ReadOutput(project="default", job=job, after=[str(after)], **page))
    return [(row.seq, row.attempt, row.chunk, row.status) for row in rows]


async def test_chunks_are_numbered_over_all_attempts_and_the_end_says_how_the_job_ended(world: World) -> None:
    worker = await world.worker()
    mine = await world.start(worker)
    assert await world.run(jobs.Write(**mine, chunks=["The ", {"n": 1}])) == 2
    assert await output(world, mine["job"]) == [(1, 1, "The ", None), (2, 1, {"n": 1}, None)]
    await world.run(jobs.Fail(**mine, error="down", retry_at=None))
    await world.tx.connection.execute("update coordinator.jobs_later set due_at = now() - interval '1 minute'")
    await world.run(jobs.Promote())
    (grant,) = await world.claim(worker)
    again = held(worker, [grant])
    assert await world.run(jobs.Write(**again, chunks=[None, "end"])) == 4
    assert await output(world, grant.id, after=2) == [(3, 2, None, None), (4, 2, "end", None)]
    await world.run(jobs.Complete(**again))
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_chunks_open") == 0
    whole = [(1, 1, "The ", None), (2, 1, {"n": 1}, None), (3, 2, None, None), (4, 2, "end", None)]
    assert await output(world, grant.id) == [*whole, (5, 2, None, "completed")]
    assert await output(world, grant.id, limit=2) == whole[:2]
    assert await output(world, grant.id, after=4) == [(5, 2, None, "completed")]
    assert await output(world, grant.id, after=5) == []


async def test_a_call_that_is_repeated_writes_nothing_twice(world: World) -> None:
    mine = await world.start(await world.worker())
    assert await world.run(jobs.Write(**mine, chunks=["a", "b"], seq=1)) == 2
    assert await world.run(jobs.Write(**mine, chunks=["a", "b"], seq=1)) == 2
    assert await world.run(jobs.Write(**mine, chunks=["b", "c"], seq=2)) == 3
    assert await world.run(jobs.Write(**mine, chunks=[])) == 3
    assert [chunk for _, _, chunk, _ in await output(world, mine["job"])] == ["a", "b", "c"]
    assert [event["data"]["last"] for event in await world.tx.events() if event["type"] == "job.output"] == [2, 3]
    for seq in (0, -1, 5, 2**62):
        error = await refused(world.tx, jobs.Write(**mine, chunks=["x"], seq=seq), "ZC104")
        assert '"last": 3' in str(error.detail)


async def test_a_stale_fence_writes_nothing(world: World) -> None:
    worker = await world.worker()
    mine = await world.start(worker)
    await world.run(jobs.Release(**mine))
    await refused(world.tx, jobs.Write(**mine, chunks=["x"]), "ZC320")
    (grant,) = await world.claim(worker)
    await refused(world.tx, jobs.Write(**mine, chunks=["x"]), "ZC320")
    assert await output(world, grant.id) == []


async def test_output_counts_as_progress(world: World) -> None:
    mine = await world.start(await world.worker(), stall=MINUTE)
    await world.tx.set_clock(MINUTE * 0.9)
    await world.run(jobs.Write(**mine, chunks=["x"]))
    await world.tx.set_clock(MINUTE * 1.5)
    assert await world.run(jobs.Rescue()) == 0


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_output_ends_with_its_job(world: World, end: str) -> None:
    mine = await world.start(await world.worker())
    await world.run(jobs.Write(**mine, chunks=["x"]))
    if end == "cancelled":
        await world.run(jobs.Cancel(project="default", job=mine["job"]))
        await world.run(jobs.Release(**mine))
    else:
        await world.run(jobs.Fail(**mine, error="down", final=True))
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_chunks_open") == 0
    assert await output(world, mine["job"]) == [(1, 1, "x", None), (2, 1, None, end)]


@pytest.mark.parametrize("chunks", [{"a": 1}, "text", 1])
async def test_what_is_not_a_list_is_refused(world: World, chunks: Any) -> None:
    mine = await world.start(await world.worker())
    await refused(world.tx, jobs.Write(**mine, chunks=chunks), "ZC103")


async def test_a_job_that_does_not_exist_has_no_output(world: World) -> None:
    missing = UUID("00000000-0000-7000-8000-000000000000")
    await refused(world.tx, job_history.ReadOutput(project="default", job=missing), "ZC209")
