"""Jobs that wait: for the end of others, and until something wakes them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from coordinator.model.job import JobReceipt
from coordinator.operations import job_history, job_trees, jobs, projects, queues, transactions
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_job import HOUR, World, batch_of, held


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


async def test_an_ended_job_says_how_it_waited(world: World) -> None:
    first = await world.enqueue()
    for mode, on_failure in (("all", "cancel"), ("any", "ignore"), ("all", "run")):
        last = await world.enqueue(after=[first.id], after_mode=mode, on_failure=on_failure)
        for _ in range(2):
            shown = await world.run(job_history.Show(project="default", job=last.id))
            assert (shown.after, shown.after_mode, shown.on_failure) == ([first.id], mode, on_failure)
            if not shown.ended:
                await world.run(jobs.Cancel(project="default", job=last.id))
    shown = await world.run(job_history.Show(project="default", job=first.id))
    assert (shown.after_mode, shown.on_failure) == (None, None)


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
        f'It waits for the end of job {job} of type "x", which runs on worker "builder", and of another job.'
    )
    assert (found.cause, found.names) == ("jobs", ["builder"])
    either = await world.enqueue(after=[job, other.id], after_mode="any")
    found = await world.run(job_history.Why(project="default", job=either.id))
    assert found.sentence.endswith('which runs on worker "builder", or of another job.')
    listed = await world.run(job_history.List(project="default", status=["waiting"]))
    assert {row.id: row.after for row in listed} == dict.fromkeys((waiting.id, either.id), sorted([job, other.id]))
    assert waiting.id not in [row.id for row in await world.run(job_history.List(project="default", status=["queued"]))]
    stats = await world.run(job_history.Stats(project="default"))
    assert [(row.type, row.queued, row.waiting, row.running) for row in stats] == [("x", 0, 2, 1), ("y", 1, 0, 0)]
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


STARTS, WAITS, STOPS = ("queued", None), ("waiting", "jobs"), ("cancelled", "dependency")


@pytest.mark.parametrize(
    ("mode", "on_failure", "ends"),
    [  # what becomes of the job when the first of two fails, completes, and then the second as well
        ("all", "cancel", {"f": STOPS, "c": WAITS, "fc": STOPS, "cf": STOPS, "cc": STARTS}),
        ("any", "cancel", {"f": WAITS, "c": STARTS, "fc": STARTS, "ff": STOPS}),
        ("all", "ignore", {"f": WAITS, "c": WAITS, "fc": STARTS, "ff": STARTS, "cf": STARTS}),
        ("any", "ignore", {"f": WAITS, "c": STARTS, "fc": STARTS, "ff": STARTS}),
        ("all", "run", {"f": STARTS, "c": WAITS, "cf": STARTS, "cc": STARTS}),
        ("any", "run", {"f": STARTS, "c": STARTS}),
    ],
)
@pytest.mark.parametrize("early", [False, True])
async def test_what_a_job_waits_for_and_what_a_failure_does(
    world: World, mode: str, on_failure: str, ends: dict[str, tuple[str, str | None]], early: bool
) -> None:
    worker = await world.worker()
    for each, expected in ends.items():
        first = [await world.enqueue("x"), await world.enqueue("x")]
        fields = {"after": [job.id for job in first], "after_mode": mode, "on_failure": on_failure}
        last = None if early else await world.enqueue("later", **fields)
        grants = await world.claim(worker, 2)
        for grant, end in zip(grants, each, strict=False):
            own = held(worker, [grant])
            if end == "c":
                await world.run(jobs.Complete(**own))
            else:
                await world.run(jobs.Fail(**own, error="e", final=True))
        last = last or await world.enqueue("later", **fields)
        assert await status(world, last) == expected, each
        for grant in grants[len(each) :]:
            await world.run(jobs.Complete(**held(worker, [grant])))
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_dependencies") == 0


async def test_jobs_of_one_call_name_each_other_by_their_places(world: World) -> None:
    worker = await world.worker()
    same = await world.enqueue(dedupe_key="same")
    made = await world.run(
        batch_of(
            [
                {"type": "x", "dedupe_key": "same", "on_duplicate": "skip"},
                {"type": "x", "after": [0]},
                {"type": "x", "after": [0, "1"], "parent": 1},
                {"type": "x", "after": [str(same.id)], "parent": 2},
            ]
        )
    )
    assert [job.status for job in made] == ["queued", "waiting", "waiting", "waiting"]
    assert (made[0].id, made[0].created) == (same.id, False)
    rows = [await world.row(job.id) for job in made]
    assert [row["after"] for row in rows[1:]] == [[same.id], sorted([same.id, made[1].id]), [same.id]]
    assert [(row["parent_id"], row["root_id"], row["depth"]) for row in rows[1:]] == [
        (None, None, None), (made[1].id, made[1].id, 1), (made[2].id, made[1].id, 2),
    ]  # fmt: skip
    await world.run(jobs.Complete(**held(worker, await world.claim(worker))))
    assert [await status(world, job) for job in made[1:]] == [STARTS, WAITS, STARTS]


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"after": [1]}, "ZC105", "job 1"),
        ({"after": [2]}, "ZC105", "job 2"),
        ({"after": [99999]}, "ZC105", "job 99999"),
        ({"parent": 1}, "ZC105", "parent"),
        ({"after": [-1]}, "ZC103", "-1"),
        ({"after": [0.5]}, "ZC103", "0.5"),
        ({"after": [None]}, "ZC103", "null"),
        ({"after": ["me"]}, "ZC103", "me"),
        ({"parent": "me"}, "ZC103", "me"),
        ({"parent": {}}, "ZC103", "{}"),
        ({"after": ["00000000-0000-0000-0000-000000000001"]}, "ZC209", "no job"),
        ({"after": [0], "after_mode": "some"}, "ZC105", "some"),
        ({"after": [0], "on_failure": "weep"}, "ZC105", "weep"),
        ({"after_mode": "any"}, "ZC105", "without after"),
        ({"after": [], "on_failure": "run"}, "ZC105", "without after"),
    ],
)
async def test_a_cycle_or_a_wrong_name_is_refused_with_the_place_of_the_job(
    world: World, given: dict[str, Any], code: str, said: str
) -> None:
    error = await refused(world.tx, batch_of([{"type": "x"}, {"type": "x", **given}, {"type": "x"}]), code)
    assert error.message.startswith("job 1: ")
    assert said in error.message
    assert error.detail
    assert json.loads(error.detail)["job"] == 1


async def test_a_job_of_another_project_is_refused(world: World) -> None:
    await world.run(projects.Create(project="p"))
    (other,) = await world.run(batch_of([{"type": "x"}], "p"))
    for given in ({"after": [other.id]}, {"parent": other.id}):
        await refused(world.tx, jobs.Enqueue(project="default", type="x", **given), "ZC209")  # type: ignore[arg-type]


async def settled(world: World) -> int:
    rounds = 0
    while await world.run(job_trees.Settle()):
        rounds += 1
    return rounds


async def test_a_failure_runs_along_a_chain_of_any_length(world: World) -> None:
    made = await world.run(batch_of([{"type": "x", "after": [n - 1]} if n else {"type": "x"} for n in range(350)]))
    await world.run(jobs.Cancel(project="default", job=made[0].id))
    assert await status(world, made[100]) == STOPS
    assert await status(world, made[-1]) == WAITS
    assert "job_settle_due" in await world.tx.connection.fetchval("select coordinator.work_due()")
    assert await settled(world) == 3
    assert await status(world, made[-1]) == STOPS
    assert "job_settle_due" not in await world.tx.connection.fetchval("select coordinator.work_due()")


async def test_one_end_wakes_many_and_the_loop_the_rest(world: World) -> None:
    worker = await world.worker()
    first = await world.start(worker)
    made = await world.run(batch_of([{"type": "y", "after": [str(first["job"])]} for _ in range(2500)]))
    await world.run(jobs.Complete(**first))
    count = "select count(*) from coordinator.jobs_ready where id = any ($1)"
    ids = [job.id for job in made]
    assert await world.tx.connection.fetchval(count, ids) == 1000
    assert await settled(world) == 2
    assert await world.tx.connection.fetchval(count, ids) == 2500
