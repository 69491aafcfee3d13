"""Races of jobs that wait for each other, and of trees, at the very moment when one transaction waits for another."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.model.agent import Agent
from coordinator.operations import job_trees, jobs
from coordinator.operations.transactions import Run
from tests import waiting
from tests.concurrency.test_job_race import claim, enqueue, places, started, worker
from tests.conftest import Open

SETTLED = "create or replace function coordinator.server_settled() returns boolean language sql stable return true"


async def between(
    session: Open, one: asyncpg.Connection, first: Any, two: asyncpg.Connection, second: Any, *, commit: bool = True
) -> tuple[Any, Any]:
    """Run the first in a transaction, which ends when the second waits for it."""
    return await waiting.while_uncommitted(one, two, await session(), first, second, commit=commit)


async def running(connection: asyncpg.Connection, agent: Agent, count: int) -> list[dict[str, Any]]:
    return [await started(connection, agent) for _ in range(count)]


def fail(own: dict[str, Any]) -> jobs.Fail:
    return jobs.Fail(**own, error="e", final=True)


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("awaited", [True, False])
async def test_an_end_waits_for_an_enqueue_after_it_and_wakes_the_job(
    session: Open, awaited: bool, commit: bool
) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    own = await started(one, agent)
    if awaited:
        await call(one, enqueue(after=[own["job"]]))
    made, _ = await between(session, one, enqueue(after=[own["job"]]), two, jobs.Complete(**own), commit=commit)
    assert await places(one, made.id) == (["jobs_ready"] if commit else [])


@pytest.mark.parametrize("commit", [True, False])
async def test_an_enqueue_waits_for_the_end_that_it_comes_after(session: Open, commit: bool) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    own = await started(one, agent)
    _, made = await between(session, one, jobs.Complete(**own), two, enqueue(after=[own["job"]]), commit=commit)
    assert await places(one, made.id) == (["jobs_ready"] if commit else ["jobs_waiting"])


@pytest.mark.parametrize(
    ("mode", "ends", "place"),
    [
        ("all", (jobs.Complete, jobs.Complete), "jobs_ready"),
        ("any", (fail, fail), "jobs_ended"),
        ("any", (fail, jobs.Complete), "jobs_ready"),
        ("all", (jobs.Complete, fail), "jobs_ended"),
    ],
)
@pytest.mark.parametrize("commit", [True, False])
async def test_of_two_ends_at_once_the_second_sees_what_the_first_did(
    session: Open, mode: str, ends: tuple[Any, Any], place: str, commit: bool
) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    first, second = await running(one, agent, 2)
    last = await call(one, enqueue(after=[first["job"], second["job"]], after_mode=mode))
    end, other = ends
    await between(session, one, end(**first) if end is jobs.Complete else end(first), two,
                  other(**second) if other is jobs.Complete else other(second), commit=commit)  # fmt: skip
    if await places(one, last.id) == ["jobs_waiting"]:
        assert not commit
        await call(one, end(**first) if end is jobs.Complete else end(first))
    assert await places(one, last.id) == [place]


async def test_a_loop_that_ends_a_job_leaves_dependants_that_others_have_to_the_next_one(session: Open) -> None:
    one, two = await session(), await session()
    await one.execute(SETTLED)
    agent = await worker(one)
    first, second = await running(one, agent, 2)
    last = await call(one, enqueue(after=[first["job"], second["job"]], on_failure="ignore"))
    await one.execute("update coordinator.jobs_open set max_attempts = 1")
    await one.execute("update coordinator.jobs_running set deadline_at = now() where id = $1", second["job"])
    async with one.transaction():
        await call(one, jobs.Complete(**first))
        assert await asyncio.wait_for(call(two, jobs.Rescue()), 30) == 1
        assert await call(two, job_trees.Settle()) == 0
    assert await places(one, last.id) == ["jobs_waiting"]
    assert await call(two, job_trees.Settle()) == 1
    assert await places(one, last.id) == ["jobs_ready"]


async def test_loops_pass_over_a_job_that_an_enqueue_names(session: Open) -> None:
    one, two = await session(), await session()
    await one.execute(SETTLED)
    agent = await worker(one)
    (own,) = await running(one, agent, 1)
    late = await call(one, enqueue())
    await one.execute("update coordinator.jobs_running set deadline_at = now()")
    await one.execute("update coordinator.jobs_open set start_by = now() where id = $1", late.id)
    async with one.transaction():
        await call(one, enqueue(after=[own["job"], late.id]))
        for loop in (jobs.Rescue(), jobs.Expire()):
            assert await asyncio.wait_for(call(two, loop), 30) == 0
    assert [await call(two, loop) for loop in (jobs.Rescue(), jobs.Expire())] == [1, 1]


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("kind", ["waits", "runs"])
async def test_a_cancelled_tree_has_no_child_that_was_enqueued_meanwhile(
    session: Open, kind: str, commit: bool
) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    parent = (await started(one, agent))["job"] if kind == "runs" else (await call(one, enqueue())).id
    whole = jobs.Cancel(project="default", job=parent, tree=True)
    child, _ = await between(session, one, enqueue(parent=parent), two, whole, commit=commit)
    assert await places(one, child.id) == (["jobs_ended"] if commit else [])
    assert await places(one, parent) == (["jobs_running"] if kind == "runs" else ["jobs_ended"])


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("kind", ["waits", "runs"])
async def test_a_child_of_a_tree_that_is_being_cancelled_is_refused(session: Open, kind: str, commit: bool) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    parent = (await started(one, agent))["job"] if kind == "runs" else (await call(one, enqueue())).id
    whole = jobs.Cancel(project="default", job=parent, tree=True)
    _, refused = await between(session, one, whole, two, enqueue(parent=parent), commit=commit)
    assert getattr(refused, "code", "made") == ("ZC328" if commit else "made")


async def test_a_child_and_grandchildren_that_are_enqueued_meanwhile_are_paused(session: Open) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    parent = (await started(one, agent))["job"]
    batch = jobs.EnqueueMany(project="default", jobs=[{"type": "x", "parent": str(parent)}, {"type": "x", "parent": 0}])
    made, _ = await between(session, one, batch, two, job_trees.Pause(project="default", job=parent, tree=True))
    assert [await places(one, job.id) for job in made] == [["jobs_waiting"]] * 2
    resume = job_trees.Resume(project="default", job=parent, tree=True)
    _, last = await between(session, one, resume, two, enqueue(parent=made[0].id))
    assert [await places(one, job.id) for job in (*made, last)] == [["jobs_ready"]] * 3


async def test_a_job_that_is_promoted_while_its_tree_is_paused_is_not_claimed(session: Open) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    parent = (await started(one, agent))["job"]
    child = await call(one, enqueue(parent=parent, delay=timedelta(hours=1)))
    await one.execute("update coordinator.jobs_later set due_at = now()")
    await one.execute("update coordinator.jobs_open set scheduled_at = now()")
    async with two.transaction():
        assert await call(two, jobs.Promote()) == 1
        await asyncio.wait_for(call(one, job_trees.Pause(project="default", job=parent, tree=True)), 30)
    assert await places(one, child.id) == ["jobs_ready"], "the race was not met"
    assert await call(one, claim(agent, 10)) == []
    assert await places(one, child.id) == ["jobs_waiting"]
    await call(one, job_trees.Resume(project="default", job=parent, tree=True))
    assert len(await call(one, claim(agent, 10))) == 1


@pytest.mark.parametrize("end", ["complete", "retry"])
@pytest.mark.parametrize("first", ["end", "cancel"])
async def test_a_tree_is_cancelled_while_one_of_its_jobs_ends(session: Open, end: str, first: str) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    parent = await started(one, agent)
    child = await started(one, agent, parent=parent["job"])
    ending = jobs.Complete(**child) if end == "complete" else jobs.Fail(**child, error="e")
    whole = jobs.Cancel(project="default", job=parent["job"], tree=True)
    if first == "end":
        _, result = await between(session, one, ending, two, whole)
    else:
        _, result = await between(session, one, whole, two, ending)
    assert not isinstance(result, CoordinatorError), result
    row = await one.fetchrow("select status from coordinator.jobs_ended where id = $1", child["job"])
    assert row is not None, "a retry slipped through"
    assert row["status"] == ("completed" if (end, first) == ("complete", "end") else "cancelled")


async def test_transactions_that_end_and_name_each_others_jobs_do_not_deadlock(session: Open) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    first, second = await running(one, agent, 2)

    def both(end: dict[str, Any], named: UUID) -> Run:
        own = {"job": str(end["job"]), "agent": str(agent.id), "fence": end["fence"]}
        return Run(
            project="default",
            writes=[{"verb": "job_complete", **own}, {"verb": "job_enqueue", "type": "y", "after": [str(named)]}],
        )

    done, other = await between(session, one, both(first, second["job"]), two, both(second, first["job"]))
    assert not isinstance(other, CoordinatorError), other
    assert [await places(one, UUID(run[1].result["id"])) for run in (done, other)] == [["jobs_ready"]] * 2


async def test_a_crowd_enqueues_below_and_after_a_tree_that_is_cancelled(session: Open) -> None:
    one = await session()
    agent = await worker(one)
    root = (await started(one, agent))["job"]
    parents = [root, *[(await call(one, enqueue(parent=root))).id for _ in range(3)]]

    async def spawn(number: int) -> None:
        connection = await session()
        for n in range(12):
            fields = {"parent": parents[(number + n) % 4], "after": [parents[n % 4]] if n % 3 == 0 else []}
            try:
                await call(connection, enqueue(**fields))
            except CoordinatorError as error:
                assert error.code == "ZC328", error

    async def stop() -> None:
        connection = await session()
        while await connection.fetchval("select count(*) from coordinator.jobs_open where root_id = $1", root) < 12:
            await asyncio.sleep(0)
        await call(connection, jobs.Cancel(project="default", job=root, tree=True))

    await asyncio.wait_for(asyncio.gather(stop(), *(spawn(number) for number in range(4))), 60)
    left = await one.fetch("select id, status from coordinator.jobs where status not in ('cancelled', 'running')")
    assert left == []
    assert await places(one, root) == ["jobs_running"]


@pytest.mark.parametrize("asked", [True, False])
async def test_a_portion_leaves_the_parent_of_a_child_that_is_being_enqueued_to_the_next_one(
    session: Open, asked: bool
) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    root = await call(one, jobs.Enqueue(project="default", type="y"))
    parent = await call(one, enqueue(parent=root.id))
    if asked:
        await call(one, claim(agent))
    async with one.transaction():
        child = await call(one, enqueue(parent=parent.id))
        if asked:
            await call(two, jobs.Cancel(project="default", job=parent.id))
        await two.execute(
            """
            insert into coordinator.job_changes (project_id, jobs, actor, requested_at)
            values (coordinator.project_id('default'), $1, 'boss', now())""",
            [root.id],
        )
        assert [await asyncio.wait_for(call(two, job_trees.ChangeDue()), 30) for _ in range(2)] == [1, 0]
        assert await places(one, root.id) == ["jobs_ended"]
        assert await two.fetchval("select count(*) from coordinator.job_changes") == 1
    assert await call(two, job_trees.ChangeDue()) == (1 if asked else 2)
    assert await places(one, child.id) == ["jobs_ended"]
    assert await two.fetchval("select count(*) from coordinator.job_changes") == 0


async def test_a_claim_that_finds_a_job_paused_while_it_is_being_resumed_does_not_leave_it_asleep(
    session: Open,
) -> None:
    one, two, three = await session(), await session(), await session()
    agent = await worker(one)
    job = await call(one, enqueue())
    async with two.transaction():  # a claim that is rolled back: the pause leaves the job in its queue
        await two.execute("select from coordinator.jobs_ready where id = $1 for update", job.id)
        await call(one, job_trees.Pause(project="default", job=job.id))
    async with two.transaction():
        await call(two, job_trees.Resume(project="default", job=job.id))
        assert await asyncio.wait_for(call(three, claim(agent)), 30) == []
    assert await places(one, job.id) == ["jobs_waiting"]
    await one.execute("update coordinator.jobs_waiting set due_at = now() where due_at is not null")
    assert await call(one, jobs.WakeDue()) == 1
    assert await places(one, job.id) == ["jobs_ready"]


@pytest.mark.parametrize("change", ["pause", "resume"])
async def test_a_portion_of_a_pause_passes_over_a_job_that_another_transaction_holds(
    session: Open, change: str
) -> None:
    one, two = await session(), await session()
    root = (await call(one, jobs.Enqueue(project="default", type="y"))).id
    held = (await call(one, enqueue(parent=root))).id
    if change == "resume":
        await call(one, job_trees.Pause(project="default", job=root, tree=True))
    paused = f"""jsonb_build_object('by', 'boss', 'at', now(), 'job', '{root}', 'tree', true)"""
    await two.execute(
        f"""
        insert into coordinator.job_changes (project_id, jobs, actor, requested_at, change, paused, root_id)
        values (coordinator.project_id('default'), $1, 'boss', now(), $2, {paused if change == "pause" else "null"}, $3)""",
        [root],
        change,
        root,
    )
    async with one.transaction():
        child = (await call(one, enqueue(parent=held))).id
        assert [await asyncio.wait_for(call(two, job_trees.ChangeDue()), 30) for _ in range(2)] == [1, 0]
        assert await two.fetchval("select count(*) from coordinator.job_changes") == 1
    assert await call(two, job_trees.ChangeDue()) == 2
    place = ["jobs_waiting"] if change == "pause" else ["jobs_ready"]
    assert [await places(one, job) for job in (root, held, child)] == [place] * 3
    assert await two.fetchval("select count(*) from coordinator.job_changes") == 0
