"""Steps of jobs: stored under the fence, read by the next attempt, kept with the job, reused by a retry."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from coordinator.operations import job_history, job_waits, jobs, transactions
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_job import MINUTE, World, held


@pytest_asyncio.fixture(loop_scope="session")
async def world(tx: Transaction) -> World:
    return World(tx)


async def steps(world: World, job: UUID, **page: Any) -> list[Any]:
    return await world.run(job_history.ListSteps(project="default", job=job, **page))


async def results(world: World, job: UUID) -> list[tuple[str, int, Any]]:
    return [(step.name, step.ordinal, step.result) for step in await steps(world, job)]


async def test_a_step_is_stored_and_the_next_attempt_reads_it(world: World) -> None:
    worker = await world.worker()
    mine = await world.start(worker, backoff=MINUTE)
    stored = await world.run(job_waits.FinishStep(**mine, step="fetch", result={"bytes": 7}))
    assert (stored.job, stored.place, stored.name, stored.ordinal, stored.kind) == (mine["job"], 1, "fetch", 1, "step")
    assert (stored.result, stored.fence, stored.actor, stored.project) == ({"bytes": 7}, mine["fence"], "w", "default")
    await world.run(job_waits.FinishStep(**mine, step="fetch", result=None, ordinal=2))
    await world.run(jobs.Release(**mine))
    (grant,) = await world.claim(worker)
    assert (grant.id, grant.steps) == (mine["job"], 2)
    assert await results(world, grant.id) == [("fetch", 1, {"bytes": 7}), ("fetch", 2, None)]
    await world.run(job_waits.FinishStep(**held(worker, [grant]), step="send", result="sent"))
    await world.run(jobs.Complete(**held(worker, [grant])))
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_steps_open") == 0
    ended = await steps(world, grant.id)
    assert [(step.place, step.name, step.ordinal, step.fence) for step in ended] == [
        (1, "fetch", 1, mine["fence"]),
        (2, "fetch", 2, mine["fence"]),
        (3, "send", 1, grant.fence),
    ]
    assert ended[0] == stored


async def test_a_job_without_steps_says_so(world: World) -> None:
    worker = await world.worker()
    first = await world.enqueue()
    (grant,) = await world.claim(worker)
    assert grant.steps == 0
    await world.run(jobs.Release(**held(worker, [grant])))
    request = msgspec.convert("00000000-0000-7000-8000-000000000001", UUID)
    (grant,) = await world.claim(worker, request_id=request)
    assert (grant.id, grant.steps) == (first.id, 0)
    await world.run(job_waits.FinishStep(**held(worker, [grant]), step="a"))
    assert [repeated.steps for repeated in await world.claim(worker, request_id=request)] == [1]
    assert [stale.steps for stale in await world.claim(worker, finished=[first.id], fences=[1], results=[1])] == [None]


async def test_a_stale_fence_stores_nothing(world: World) -> None:
    worker = await world.worker()
    mine = await world.start(worker)
    await world.run(jobs.Release(**mine))
    await refused(world.tx, job_waits.FinishStep(**mine, step="fetch"), "ZC320")
    (grant,) = await world.claim(worker)
    await refused(world.tx, job_waits.FinishStep(**mine, step="fetch"), "ZC320")
    other = await world.worker("other")
    await refused(world.tx, job_waits.FinishStep(**{**held(worker, [grant]), "agent": other.id}, step="fetch"), "ZC320")
    await world.run(jobs.Complete(**held(worker, [grant])))
    await refused(world.tx, job_waits.FinishStep(**held(worker, [grant]), step="fetch"), "ZC320")
    assert await steps(world, mine["job"]) == []


async def test_a_repetition_changes_nothing_and_another_result_is_refused(world: World) -> None:
    worker = await world.worker()
    mine = await world.start(worker)
    first = await world.run(job_waits.FinishStep(**mine, step="fetch", result={"a": 1, "b": 2.0}))
    assert await world.run(job_waits.FinishStep(**mine, step="fetch", result={"b": 2, "a": 1})) == first
    error = await refused(world.tx, job_waits.FinishStep(**mine, step="fetch", result={"a": 2}), "ZC329")
    detail = msgspec.json.decode(error.detail or "")
    assert (detail["name"], detail["ordinal"], detail["fence"]) == ("fetch", 1, mine["fence"])
    assert await steps(world, mine["job"]) == [first]


async def test_a_step_is_progress(world: World) -> None:
    worker = await world.worker()
    await world.settle()
    mine = await world.start(worker, stall=10 * MINUTE)
    for minutes in (9, 18, 27):
        await world.tx.set_clock(minutes * MINUTE)
        await world.run(job_waits.FinishStep(**mine, step="page", ordinal=minutes))
        assert await world.run(jobs.Rescue()) == 0
    await world.tx.set_clock(38 * MINUTE)
    assert await world.run(jobs.Rescue()) == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"step": ""}, "ZC101"),
        ({"step": "a" * 513}, "ZC102"),
        ({"step": "a\nb"}, "ZC103"),
        ({"step": "a", "ordinal": 0}, "ZC104"),
        ({"step": "a", "ordinal": 1_000_001}, "ZC104"),
        ({"step": "a", "result": "x" * 262_143}, "ZC102"),
        ({"step": "a", "result": [[[]]], "ordinal": -1}, "ZC104"),
    ],
)
async def test_an_invalid_step_is_refused(world: World, fields: dict[str, Any], code: str) -> None:
    worker = await world.worker()
    mine = await world.start(worker)
    await refused(world.tx, job_waits.FinishStep(**mine, **fields), code)
    assert await steps(world, mine["job"]) == []


async def test_pages_of_steps_are_bounded_by_bytes_before_and_after_the_end(world: World) -> None:
    worker = await world.worker()
    mine = await world.start(worker)
    for number in range(9):
        await world.run(job_waits.FinishStep(**mine, step="page", ordinal=number + 1, result="x" * 250_000))
    for _ in range(2):
        first = await steps(world, mine["job"])
        assert [step.ordinal for step in first] == [1, 2, 3, 4, 5]
        rest = await steps(world, mine["job"], after=["5"], limit=2)
        assert [step.ordinal for step in rest] == [6, 7]
        if await world.tx.connection.fetchval("select 1 from coordinator.jobs_running"):
            await world.run(jobs.Fail(**mine, error="e", final=True))


async def test_steps_of_an_unknown_job_are_not_found(world: World) -> None:
    await refused(world.tx, job_history.ListSteps(project="default", job=UUID(int=1)), "ZC209")


async def test_a_job_that_waits_and_is_cancelled_keeps_its_steps(world: World) -> None:
    worker = await world.worker()
    mine = await world.start(worker)
    await world.run(job_waits.FinishStep(**mine, step="fetch"))
    await world.run(jobs.Release(**mine))
    await world.run(jobs.Cancel(project="default", job=mine["job"]))
    assert await results(world, mine["job"]) == [("fetch", 1, None)]


async def failed(world: World, *names: str, **fields: Any) -> UUID:
    """Return a job that finished steps of these names and then failed."""
    worker = await world.worker(f"w{len(names)}")
    mine = await world.start(worker, **fields)
    for place, name in enumerate(names):
        await world.run(job_waits.FinishStep(**mine, step=name, result=place, ordinal=names[: place + 1].count(name)))
    await world.run(jobs.Fail(**mine, error="e", final=True))
    job: UUID = mine["job"]
    return job


@pytest.mark.parametrize(
    ("step", "reused"),
    [("send", ["fetch", "parse", "fetch"]), ("fetch", []), ("report", ["fetch", "parse", "fetch", "send"]), (None, [])],
)
async def test_a_retry_reuses_the_steps_before_one(world: World, step: str | None, reused: list[str]) -> None:
    old = await failed(world, "fetch", "parse", "fetch", "send")
    (new,) = await world.run(job_history.Retry(project="default", job=old, from_step=step))
    assert (new.retry_of, new.created, new.steps) == (old, True, len(reused))
    assert [name for name, _, _ in await results(world, new.id)] == reused
    assert len(await steps(world, old)) == 4
    (grant,) = await world.claim(await world.worker("next"))
    assert (grant.id, grant.steps) == (new.id, len(reused))
    (again,) = await world.run(job_history.Retry(project="default", job=old, from_step=step))
    assert (again.id, again.created, again.steps) == (new.id, False, len(reused))


@pytest.mark.parametrize(
    ("ordinal", "reused"), [(1, []), (2, ["fetch", "parse"]), (3, ["fetch", "parse", "fetch", "send"])]
)
async def test_a_retry_begins_at_one_of_several_steps_of_a_name(world: World, ordinal: int, reused: list[str]) -> None:
    old = await failed(world, "fetch", "parse", "fetch", "send")
    retry = job_history.Retry(project="default", job=old, from_step="fetch", from_ordinal=ordinal)
    (new,) = await world.run(retry)
    assert [name for name, _, _ in await results(world, new.id)] == reused


async def test_an_ordinal_of_no_step_is_refused(world: World) -> None:
    old = await failed(world, "fetch")
    await refused(world.tx, job_history.Retry(project="default", job=old, from_ordinal=2), "ZC105")
    await refused(world.tx, job_history.Retry(project="default", job=old, from_step="fetch", from_ordinal=0), "ZC104")


async def test_a_misspelt_step_of_a_retry_is_refused(world: World) -> None:
    old = await failed(world, "charge_card", "send")
    retry = job_history.Retry(project="default", job=old, from_step="charge_crad")
    error = await refused(world.tx, retry, "ZC105")
    assert '"charge_card"' in (error.hint or "")
    await refused(world.tx, job_history.Retry(project="default", job=old, from_step="a\tb"), "ZC103")


async def test_many_jobs_are_retried_from_a_step(world: World) -> None:
    old = [await failed(world, "fetch", "send"), await failed(world, "fetch", "send", "report")]
    made = await world.run(job_history.Retry(project="default", type="x", from_step="send"))
    assert [(new.retry_of, new.steps) for new in made] == [(job, 1) for job in old]


async def test_a_step_commits_with_the_other_writes_of_a_transaction(world: World) -> None:
    worker = await world.worker()
    mine = await world.start(worker)
    part = {
        "verb": "job_step",
        "job": str(mine["job"]),
        "agent": "w",
        "fence": mine["fence"],
        "step": "send",
        "result": 1,
    }
    write = {"verb": "signal_set", "key": "sent", "value": True}
    await world.run(transactions.Run(project="default", writes=[write, part]))
    assert await results(world, mine["job"]) == [("send", 1, 1)]
    stale = {**part, "fence": mine["fence"] - 1, "step": "other"}
    await refused(world.tx, transactions.Run(project="default", writes=[{**write, "key": "twice"}, stale]), "ZC320")
    assert await world.tx.connection.fetchval("select count(*) from coordinator.signals") == 1


async def test_a_deleted_project_takes_its_steps_with_it(world: World) -> None:
    mine = await world.start(await world.worker())
    await world.run(job_waits.FinishStep(**mine, step="fetch"))
    await world.tx.connection.execute(
        "select coordinator.job_end_project((select id from coordinator.projects where name = 'default'))"
    )
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_steps_open") == 0
