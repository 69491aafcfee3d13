"""Jobs that wait: for the end of others, and until something wakes them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from coordinator.model.job import JobReceipt
from coordinator.operations import job_history, jobs, queues, transactions
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_job import HOUR, World, held


@pytest_asyncio.fixture(loop_scope="session")
async def world(tx: Transaction) -> World:
    world = World(tx)
    await world.settle()
    return world


async def status(world: World, job: JobReceipt | UUID) -> tuple[str, str | None]:
    own = job if isinstance(job, UUID) else job.id
    found = await world.run(job_history.Show(project="default", job=own))
    assert (await world.row(own))["id"] == own
    return found.status, found.reason or found.waiting_for


async def test_a_job_waits_until_those_before_it_have_completed(world: World) -> None:
    worker = await world.worker()
    first, second = await world.enqueue(), await world.enqueue()
    last = await world.enqueue(after=[first.id, second.id])
    assert (last.status, await status(world, last)) == ("waiting", ("waiting", "jobs"))
    assert (await world.told())[-1] == ("job.waiting", "default")
    grants = await world.claim(worker, 10)
    assert [grant.id for grant in grants] == [first.id, second.id]
    await world.run(jobs.Complete(**held(worker, grants[:1])))
    assert await status(world, last) == ("waiting", "jobs")
    await world.run(jobs.Complete(**held(worker, grants[1:])))
    assert await status(world, last) == ("queued", None)
    assert (await world.told())[-1] == ("job.enqueued", "default")
    assert [grant.id for grant in await world.claim(worker)] == [last.id]


async def test_a_job_is_cancelled_if_one_before_it_does_not_complete(world: World) -> None:
    first = await world.enqueue()
    second = await world.enqueue(after=[first.id])
    third = await world.enqueue(after=[second.id])
    await world.run(jobs.Cancel(project="default", job=first.id))
    assert [await status(world, job) for job in (first, second, third)] == [
        ("cancelled", "cancelled"), ("cancelled", "dependency"), ("cancelled", "dependency"),
    ]  # fmt: skip


async def test_jobs_that_have_ended_already_are_not_waited_for(world: World) -> None:
    worker = await world.worker()
    done = await world.start(worker)
    await world.run(jobs.Complete(**done))
    lost = await world.enqueue()
    await world.run(jobs.Cancel(project="default", job=lost.id))
    assert (await world.enqueue(after=[done["job"]])).status == "queued"
    assert (await world.enqueue(after=[done["job"]], delay=HOUR)).status == "scheduled"
    assert (await world.enqueue(after=[done["job"], lost.id])).status == "cancelled"


async def test_a_waiting_job_can_be_cancelled_replaced_and_expired(world: World) -> None:
    first = await world.enqueue()
    cancelled = await world.enqueue(after=[first.id])
    assert (await world.run(jobs.Cancel(project="default", job=cancelled.id))).status == "cancelled"
    replaced = await world.enqueue(after=[first.id], dedupe_key="k")
    later = await world.enqueue(
        dedupe_key="k", on_duplicate="replace", start_by=first.scheduled_at + HOUR, after=[first.id]
    )
    assert await status(world, replaced) == ("cancelled", "replaced")
    await world.tx.set_clock(2 * HOUR)
    assert await world.run(jobs.Expire()) == 1
    assert await status(world, later) == ("expired", "start_by")
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_dependencies") == 0


async def test_waiting_jobs_are_counted_listed_and_explained(world: World) -> None:
    worker = await world.worker(name="builder")
    job = (await world.start(worker))["job"]
    other = await world.enqueue("y")
    waiting = await world.enqueue(after=[job, other.id])
    found = await world.run(job_history.Why(project="default", job=waiting.id))
    assert found.sentence == (
        f'It waits for the end of job {job} of type "x", which runs on worker "builder", and for another job.'
    )
    assert (found.cause, found.names) == ("jobs", ["builder"])
    listed = await world.run(job_history.List(project="default", status=["waiting"]))
    assert [(row.id, row.after) for row in listed] == [(waiting.id, sorted([job, other.id]))]
    assert waiting.id not in [row.id for row in await world.run(job_history.List(project="default", status=["queued"]))]
    stats = await world.run(job_history.Stats(project="default"))
    assert [(row.type, row.queued, row.waiting, row.running) for row in stats] == [("x", 0, 1, 1), ("y", 1, 0, 0)]
    await world.run(queues.Set(project="default", queue="default", max_waiting=2))
    await refused(world.tx, jobs.Enqueue(project="default", type="x"), "ZC322")


async def test_a_job_that_is_woken_keeps_its_place_and_its_time(world: World) -> None:
    worker = await world.worker()
    first = await world.enqueue()
    early = await world.enqueue(after=[first.id])
    timed = await world.enqueue(after=[first.id], delay=HOUR)
    await world.tx.set_clock(timedelta(minutes=1))
    late = await world.enqueue()
    await world.run(jobs.Complete(**held(worker, await world.claim(worker))))
    assert await status(world, timed) == ("scheduled", None)
    assert [grant.id for grant in await world.claim(worker, 10)] == [early.id, late.id]


async def test_the_loop_wakes_jobs_that_are_due(world: World) -> None:
    job = await world.enqueue()
    sql = "with t as (delete from coordinator.jobs_ready) select coordinator.job_make_waiting(array[$1::uuid], 'lock', coordinator.now_utc() + interval '1 hour', 'me', coordinator.now_utc())"
    await world.tx.connection.execute(sql, job.id)
    assert await status(world, job) == ("waiting", "lock")
    assert await world.run(jobs.WakeDue()) == 0
    await world.tx.set_clock(2 * HOUR)
    assert "job_wake_due" in await world.tx.connection.fetchval("select coordinator.work_due()")
    assert await world.run(jobs.WakeDue()) == 1
    assert await status(world, job) == ("queued", None)


@pytest.mark.parametrize("given", [{"after": [UUID(int=1)]}, {"parent": UUID(int=1)}])
async def test_unknown_jobs_are_refused(world: World, given: dict[str, object]) -> None:
    await refused(world.tx, jobs.Enqueue(project="default", type="x", **given), "ZC209")  # type: ignore[arg-type]


async def test_a_transaction_enqueues_a_job_after_others(world: World) -> None:
    worker = await world.worker()
    own = await world.start(worker)
    other = await world.enqueue()
    writes: list[dict[str, Any]] = [
        {"verb": "job_complete", "job": str(own["job"]), "agent": str(worker.id), "fence": own["fence"]},
        {"verb": "job_enqueue", "type": "x", "after": [str(own["job"]), str(other.id)]},
    ]
    results = await world.run(transactions.Run(project="default", writes=writes))
    assert results[1].result["status"] == "waiting"
    writes[1] |= {"after": ["me"]}
    await refused(world.tx, transactions.Run(project="default", writes=writes), "ZC103")
