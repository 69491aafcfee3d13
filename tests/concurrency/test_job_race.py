"""Races of jobs, each with two connections and, where a lock decides, at the very moment when one waits for the other."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.model.agent import Agent
from coordinator.model.job import JobGrant, JobReceipt
from coordinator.operations import agents, job_waits, jobs, projects, queues
from tests.conftest import Open
from tests.sql.test_races import RESUME, outcomes, pause, while_uncommitted
from tests.waiting import DEADLINE_S, until_blocked

DAY = timedelta(days=1)


async def worker(connection: asyncpg.Connection, name: str = "w") -> Agent:
    return await call(connection, agents.Register(project="default", name=name, job_types=["x"], ttl=DAY))


def enqueue(**fields: Any) -> jobs.Enqueue:
    return jobs.Enqueue(project="default", type="x", **fields)


def claim(agent: Agent, limit: int = 1, **fields: Any) -> jobs.Claim:
    return jobs.Claim(project="default", agent=agent.id, limit=limit, **fields)


def held(agent: Agent, grants: list[JobGrant]) -> dict[str, Any]:
    (grant,) = grants
    return {"project": "default", "job": grant.id, "agent": agent.id, "fence": grant.fence}


async def started(connection: asyncpg.Connection, agent: Agent, **fields: Any) -> dict[str, Any]:
    await call(connection, enqueue(**fields))
    return held(agent, await call(connection, claim(agent)))


async def places(connection: asyncpg.Connection, job: object) -> list[str]:
    """Return the tables that have a job, of which one must."""
    tables = ("jobs_ready", "jobs_later", "jobs_waiting", "jobs_running", "jobs_ended")
    return [
        table for table in tables if await connection.fetchval(f"select 1 from coordinator.{table} where id = $1", job)
    ]


async def test_of_many_enqueues_with_one_dedupe_key_one_creates_the_job(session: Open) -> None:
    receipts = await outcomes(session, [enqueue(dedupe_key="d", on_duplicate="skip") for _ in range(8)])
    made = [receipt for receipt in receipts if isinstance(receipt, JobReceipt)]
    assert len(made) == 8
    assert len({receipt.id for receipt in made}) == 1
    assert [receipt.created for receipt in made].count(True) == 1


@pytest.mark.parametrize("commit", [True, False])
async def test_a_duplicate_waits_for_the_enqueue_that_may_still_be_undone(session: Open, commit: bool) -> None:
    first, second = await while_uncommitted(session, enqueue(dedupe_key="d"), enqueue(dedupe_key="d"), commit=commit)
    if commit:
        assert getattr(second, "code", second) == "ZC321"
    else:
        assert isinstance(second, JobReceipt)
        assert second.created
    assert isinstance(first, JobReceipt)


async def test_many_replacements_of_one_job_leave_one_that_waits(session: Open) -> None:
    connection = await session()
    await call(connection, enqueue(dedupe_key="d"))
    results = await outcomes(session, [enqueue(dedupe_key="d", on_duplicate="replace") for _ in range(6)])
    assert [result for result in results if isinstance(result, CoordinatorError) and result.code != "ZC321"] == []
    assert await connection.fetchval("select count(*) from coordinator.jobs_ready") == 1
    assert await connection.fetchval("select count(*) from coordinator.jobs_open") == 1
    replaced = await connection.fetchval("select count(*) from coordinator.jobs_ended where reason = 'replaced'")
    assert replaced == sum(isinstance(result, JobReceipt) for result in results)


async def test_the_last_job_goes_to_one_of_two_workers_and_neither_waits(session: Open) -> None:
    one, two = await session(), await session()
    first, second = await worker(one, "first"), await worker(one, "second")
    await call(one, enqueue())
    async with one.transaction():
        assert len(await call(one, claim(first))) == 1
        assert await asyncio.wait_for(call(two, claim(second)), DEADLINE_S) == []
        transaction = two.transaction()
        await transaction.start()
        await transaction.rollback()
    assert await call(two, claim(second)) == []


async def test_a_claim_over_several_classes_takes_what_another_claim_leaves(session: Open) -> None:
    one, two = await session(), await session()
    first, second = await worker(one, "first"), await worker(one, "second")
    await call(one, jobs.EnqueueMany(project="default", jobs=[{"type": "x", "queue": "a"}] * 3))
    late = await call(one, enqueue(queue="b"))
    async with one.transaction():
        assert len(await call(one, claim(first, 3))) == 3
        # The first look still sees the three as the best.
        assert [grant.id for grant in await call(two, claim(second, 3))] == [late.id]


async def test_a_claim_of_a_fair_queue_takes_jobs_of_a_lane_that_another_claim_serves(session: Open) -> None:
    one, two = await session(), await session()
    first, second = await worker(one, "first"), await worker(one, "second")
    await call(one, queues.Set(project="default", queue="q", fair_by="key"))
    await call(one, jobs.EnqueueMany(project="default", jobs=[{"type": "x", "queue": "q", "key": "k"}] * 10))
    async with one.transaction():
        assert len(await call(one, claim(first, 5))) == 5
        assert len(await call(two, claim(second, 5))) == 5
    assert await call(two, claim(second, 5)) == []
    await call(one, enqueue(queue="q", key="k"))
    assert len(await call(two, claim(second, 5))) == 1


async def test_an_enqueue_that_commits_after_later_jobs_were_claimed_is_not_forgotten(session: Open) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    await started(one, agent)
    transaction = one.transaction()
    await transaction.start()
    early = await call(one, enqueue())
    late = await call(two, enqueue())
    assert [grant.id for grant in await call(two, claim(agent, 10))] == [late.id]
    await transaction.commit()
    assert [grant.id for grant in await call(two, claim(agent, 10))] == [early.id]


@pytest.mark.parametrize("commit", [True, False])
async def test_no_lane_falls_asleep_when_a_claim_finds_it_empty_while_a_job_is_added(
    session: Open, commit: bool
) -> None:
    one, two, three = [await session() for _ in range(3)]
    agent = await worker(one)
    await call(one, queues.Set(project="default", queue="q", fair_by="key"))
    await call(one, enqueue(queue="q", key="k"))
    transaction = one.transaction()
    await transaction.start()
    added = await call(one, enqueue(queue="q", key="k"))
    # The claim takes the only job that it sees, and the lane looks empty.
    assert len(await call(two, claim(agent, 10))) == 1
    assert await call(two, claim(agent, 10)) == []
    await (transaction.commit() if commit else transaction.rollback())
    assert [grant.id for grant in await call(three, claim(agent, 10))] == ([added.id] if commit else [])
    assert await call(three, claim(agent, 10)) == []
    query = "select count(*), count(p.turn) from coordinator.job_lanes l left join coordinator.job_permits p on p.lane_id = l.id"
    assert [*(await three.fetch(query))[0]] == [0, 0], "a claim that finds a lane empty deletes it with its permit"
    again = await call(one, enqueue(queue="q", key="k"))
    assert [grant.id for grant in await call(three, claim(agent, 10))] == [again.id]
    assert [*(await three.fetch(query))[0]] == [0, 0]


async def test_an_enqueue_waits_for_the_claim_that_deletes_its_lane_and_makes_it_again(session: Open) -> None:
    connection = await session()
    agent = await worker(connection)
    await call(connection, queues.Set(project="default", queue="q", fair_by="key"))
    await call(connection, enqueue(queue="q", key="k"))
    taken, added = await while_uncommitted(session, claim(agent, 10), enqueue(queue="q", key="k"))
    assert isinstance(taken, list)
    assert isinstance(added, JobReceipt)
    assert [grant.id for grant in await call(connection, claim(agent, 10))] == [added.id]


@pytest.mark.parametrize("commit", [True, False])
async def test_two_first_jobs_of_a_key_share_one_lane_with_one_permit(session: Open, commit: bool) -> None:
    connection = await session()
    agent = await worker(connection)
    await call(connection, queues.Set(project="default", queue="q", fair_by="key"))
    made = await while_uncommitted(session, enqueue(queue="q", key="k"), enqueue(queue="q", key="k"), commit=commit)
    query = "select count(distinct l.id), count(p.turn) from coordinator.job_lanes l left join coordinator.job_permits p on p.lane_id = l.id"
    assert [*(await connection.fetch(query))[0]] == [1, 1]
    kept = [receipt.id for receipt in made if isinstance(receipt, JobReceipt)][0 if commit else 1 :]
    assert [grant.id for grant in await call(connection, claim(agent, 10))] == kept


@pytest.mark.parametrize("commit", [True, False])
async def test_a_cancel_waits_for_a_claim_and_then_asks_its_worker(session: Open, commit: bool) -> None:
    connection = await session()
    agent = await worker(connection)
    job = await call(connection, enqueue())
    _, outcome = await while_uncommitted(
        session, claim(agent), jobs.Cancel(project="default", job=job.id), commit=commit
    )
    assert getattr(outcome, "status", outcome) == ("running" if commit else "cancelled")
    assert await places(connection, job.id) == ["jobs_running" if commit else "jobs_ended"]


async def test_a_job_that_is_being_cancelled_is_not_claimed(session: Open) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    job = await call(one, enqueue())
    async with one.transaction():
        await call(one, jobs.Cancel(project="default", job=job.id))
        assert await call(two, claim(agent)) == []
    assert await places(two, job.id) == ["jobs_ended"]


async def test_of_a_cancel_and_a_completion_both_take_effect_in_either_order(session: Open) -> None:
    connection = await session()
    agent = await worker(connection)
    job = await started(connection, agent)
    cancel = jobs.Cancel(project="default", job=job["job"])
    _, second = await while_uncommitted(session, jobs.Complete(**job), cancel)
    assert getattr(second, "code", second) == "ZC323"
    job = await started(connection, agent)
    _, outcome = await while_uncommitted(session, jobs.Cancel(project="default", job=job["job"]), jobs.Complete(**job))
    assert getattr(outcome, "status", outcome) == "cancelled"


@pytest.mark.parametrize("part", ["steps", "chunks"])
async def test_a_completion_waits_for_what_the_worker_stores_and_keeps_it(session: Open, part: str) -> None:
    connection = await session()
    job = await started(connection, await worker(connection))
    store = {
        "steps": job_waits.FinishStep(**job, step="fetch", result=1),
        "chunks": jobs.Write(**job, chunks=["a"]),
    }[part]
    _, outcome = await while_uncommitted(session, store, jobs.Complete(**job))
    assert getattr(outcome, "status", outcome) == "completed"
    ended = await connection.fetchval(f"select {part}::text from coordinator.jobs_ended where id = $1", job["job"])
    assert ended is not None
    assert await connection.fetchval(f"select count(*) from coordinator.job_{part}_open") == 0


@pytest.mark.parametrize("first", ["rescue", "complete"])
async def test_of_a_rescue_and_a_completion_one_ends_the_attempt(session: Open, first: str) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    await one.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    job = await started(one, agent, deadline=timedelta(seconds=1))
    await two.execute("select set_config('coordinator.fake_now', (clock_timestamp() + interval '1 hour')::text, false)")
    if first == "complete":
        async with one.transaction():
            await call(one, jobs.Complete(**job))
            assert await call(two, jobs.Rescue()) == 0, "the loop waits for nobody"
        assert await places(one, job["job"]) == ["jobs_ended"]
        assert await call(two, jobs.Rescue()) == 0
        return
    transaction = two.transaction()
    await transaction.start()
    assert await call(two, jobs.Rescue()) == 1
    task = asyncio.create_task(call(one, jobs.Complete(**job)))
    await until_blocked(await session(), one)
    await transaction.commit()
    with pytest.raises(CoordinatorError) as raised:
        await task
    assert raised.value.code == "ZC320"
    assert await places(two, job["job"]) == ["jobs_later"]


async def test_an_agent_that_ends_waits_for_its_claim_and_leaves_no_attempt_behind(session: Open) -> None:
    connection = await session()
    agent = await worker(connection)
    job = await call(connection, enqueue())
    await while_uncommitted(session, claim(agent), agents.Deregister(agent=agent.id))
    assert await places(connection, job.id) == ["jobs_ready"]
    other = await worker(connection, "other")
    assert [grant.id for grant in await call(connection, claim(other))] == [job.id]


async def test_a_claim_waits_for_the_end_of_its_agent_and_gets_nothing(session: Open) -> None:
    connection = await session()
    agent = await worker(connection)
    job = await call(connection, enqueue())
    _, refused = await while_uncommitted(session, agents.Deregister(agent=agent.id), claim(agent))
    assert getattr(refused, "code", refused) == "ZC202"
    assert await places(connection, job.id) == ["jobs_ready"]


async def test_an_agent_ends_although_a_transaction_guards_its_attempt_which_is_rescued_afterwards(
    session: Open,
) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    await one.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    job = await started(one, agent)
    async with one.transaction():
        await call(one, jobs.Assert(project="default", job=job["job"], fence=job["fence"]))
        assert await call(two, agents.Deregister(agent=agent.id))
        assert await call(two, jobs.Rescue()) == 0
        assert await places(two, job["job"]) == ["jobs_running"]
    # At the next heartbeat, not within a minute.
    assert "job_rescue" in await two.fetchval("select coordinator.work_due()")
    assert await call(two, jobs.Rescue()) == 1
    assert await places(two, job["job"]) == ["jobs_ready"]
    assert "job_rescue" not in await two.fetchval("select coordinator.work_due()")


async def test_a_guarded_attempt_is_ended_only_after_the_transaction_that_guards_it(session: Open) -> None:
    connection = await session()
    agent = await worker(connection)
    job = await started(connection, agent)
    guard = jobs.Assert(project="default", job=job["job"], fence=job["fence"])
    _, outcome = await while_uncommitted(session, guard, jobs.Fail(**job, error="e"))
    assert getattr(outcome, "status", outcome) == "scheduled"


async def test_a_full_queue_stays_full_when_many_enqueue_at_once(session: Open) -> None:
    connection = await session()
    await call(connection, queues.Set(project="default", queue="q", max_waiting=5))
    results = await outcomes(session, [enqueue(queue="q") for _ in range(12)])
    assert sum(isinstance(result, JobReceipt) for result in results) == 5
    assert {result.code for result in results if isinstance(result, CoordinatorError)} == {"ZC322"}


async def test_an_enqueue_and_a_change_of_its_queue_take_turns(session: Open) -> None:
    connection = await session()
    agent = await worker(connection)
    await call(connection, enqueue(queue="q", key="a"))
    fair = queues.Set(project="default", queue="q", fair_by="key")
    await while_uncommitted(session, enqueue(queue="q", key="b"), fair)
    await while_uncommitted(
        session, queues.Set(project="default", queue="q", fair_by="none"), enqueue(queue="q", key="c")
    )
    assert sorted(grant.key or "" for grant in await call(connection, claim(agent, 10))) == ["a", "b", "c"]


async def test_a_combination_to_which_a_job_is_being_added_is_not_forgotten(session: Open) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    await started(one, agent)
    await one.execute(
        "select coordinator.job_complete('default', r.id, r.agent_id, r.fence) from coordinator.jobs_running r"
    )
    filler = "insert into coordinator.job_classes (project_id, queue, type) select project_id, 'default', 'filler' || n from coordinator.queues, generate_series(1, 600) n"
    await one.execute(filler)
    async with one.transaction():
        job = await call(one, enqueue())
        assert await call(two, jobs.PruneClasses()) == 0
    assert await call(two, jobs.PruneClasses()) == 600
    assert [grant.id for grant in await call(one, claim(agent))] == [job.id]


async def test_a_fence_exceeds_those_of_an_epoch_that_was_lost(session: Open) -> None:
    connection = await session()
    agent = await worker(connection)
    lost = await started(connection, agent)
    await connection.execute("select setval('coordinator.epoch_mark', 1)")  # as after a start of the server
    for _ in range(2):
        job = await started(connection, agent)
        assert job["fence"] > max(lost["fence"], 10**12)
        lost = job


async def test_a_project_is_deleted_with_the_jobs_that_are_being_enqueued(session: Open) -> None:
    connection = await session()
    await call(connection, projects.Create(project="p"))
    add = jobs.Enqueue(project="p", type="x")
    await call(connection, add)
    await while_uncommitted(session, add, projects.Delete(project="p"))
    for table in ("jobs_open", "jobs_ready", "queues", "job_classes"):
        assert await connection.fetchval(f"select count(*) from coordinator.{table}") == 0


async def test_transactions_with_the_same_jobs_and_keys_in_opposite_orders_do_not_deadlock(session: Open) -> None:
    connection = await session()
    agent = await worker(connection)
    mine = [await started(connection, agent) for _ in range(2)]

    def both(order: int) -> str:
        parts = [
            [
                {"verb": "job_enqueue", "type": "x", "queue": f"q{n}", "dedupe_key": f"k{n}", "on_duplicate": "skip"}
                for n in range(2)
            ],
            [{"verb": "job_cancel", "job": str(job["job"])} for job in mine],
        ]
        listed = [part for group in parts for part in group]
        return str(listed[::order]).replace("'", '"')

    async def run(order: int) -> None:
        one = await session()
        await one.execute("select coordinator.transaction_run('default', $1::text::jsonb)", both(order))

    await asyncio.gather(*(run(order) for order in (1, -1) * 4))
    assert await connection.fetchval("select count(*) from coordinator.jobs_ready") == 2


async def test_a_claim_that_puts_jobs_back_does_not_wait_for_who_changes_their_queue(session: Open) -> None:
    """Who changes the policy waits for the rows of the jobs that a claim took, so the claim must not wait for the queue."""
    first, second, watcher = await session(), await session(), await session()
    agent = await worker(first)
    made = [await call(first, enqueue(payload="x" * 200_000)) for _ in range(8)]
    await pause(watcher, "before insert on coordinator.jobs_running for each row")
    claiming = asyncio.create_task(call(first, claim(agent, 8)))
    await until_blocked(watcher, first)
    setting = asyncio.create_task(
        call(second, queues.Set(project="default", queue="default", ageing=timedelta(minutes=1)))
    )
    await until_blocked(watcher, second)
    await watcher.execute(RESUME)
    grants = await claiming
    await setting
    assert 1 <= len(grants) < 8
    assert await watcher.fetchval("select count(*) from coordinator.jobs_later") == 8 - len(grants)
    await call(watcher, jobs.Promote())
    assert await watcher.fetchval("select count(*) from coordinator.jobs_ready") == 8 - len(grants)
    assert {receipt.id for receipt in made} >= {grant.id for grant in grants}
