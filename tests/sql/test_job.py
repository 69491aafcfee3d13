"""Jobs: each state, each way to the next one, and each refusal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import pytest_asyncio

from coordinator.errors import Conflict, InvalidArgument
from coordinator.model.agent import Agent
from coordinator.model.job import JobGrant, JobReceipt
from coordinator.operations import agents, jobs, limits, projects, queues, transactions
from tests.conftest import Transaction
from tests.sql.refusal import refused

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOW_OR_LATER: list[dict[str, Any]] = [{}, {"delay": HOUR}]


class World:
    """A project with workers, and short forms of what they do."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.run = tx.run

    async def worker(self, name: str = "w", **fields: Any) -> Agent:
        return await self.run(
            agents.Register(project="default", name=name, **{"job_types": ["x", "y"], "ttl": DAY, **fields})
        )

    async def enqueue(self, type: str = "x", **fields: Any) -> JobReceipt:
        return await self.run(jobs.Enqueue(project="default", type=type, **fields))

    async def claim(self, worker: Agent, limit: int = 1, **fields: Any) -> list[JobGrant]:
        return await self.run(jobs.Claim(project="default", agent=worker.id, limit=limit, **fields))

    async def start(self, worker: Agent, **fields: Any) -> dict[str, Any]:
        """Enqueue a job and claim it; return what every verb of its worker takes."""
        await self.enqueue(**fields)
        return held(worker, await self.claim(worker))

    async def row(self, job: UUID) -> dict[str, Any]:
        """Return what the tables say of a job, of which exactly one has it."""
        tables = ("jobs_ready", "jobs_later", "jobs_waiting", "jobs_running", "jobs_ended")
        found = [
            name
            for name in tables
            if await self.tx.connection.fetchval(f"select 1 from coordinator.{name} where id = $1", job)
        ]
        assert len(found) == 1, found
        table = "jobs_ended" if found == ["jobs_ended"] else "jobs_open"
        row = await self.tx.connection.fetchrow(f"select * from coordinator.{table} where id = $1", job)
        assert row
        others = await self.tx.connection.fetchval("select 1 from coordinator.jobs_open where id = $1", job)
        assert (others is None) == (table == "jobs_ended")
        return {"table": found[0], **row}

    async def settle(self) -> None:
        """Let loops work, as 10 seconds after the start of the server."""
        await self.tx.connection.execute(
            "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
        )

    async def told(self) -> list[tuple[str, str | None]]:
        return [(event["type"], event["key"]) for event in await self.tx.events() if event["type"].startswith("job.")]


def batch_of(given: list[Any], project: str = "default") -> jobs.EnqueueMany:
    return jobs.EnqueueMany(project=project, jobs=given)


def held(worker: Agent, grants: list[JobGrant]) -> dict[str, Any]:
    (grant,) = grants
    return {"project": "default", "job": grant.id, "agent": worker.id, "fence": grant.fence}


@pytest_asyncio.fixture(loop_scope="session")
async def world(tx: Transaction) -> World:
    return World(tx)


async def test_a_job_is_queued_running_and_completed(world: World) -> None:
    worker = await world.worker()
    job = await world.enqueue(payload={"page": 7}, key="k")
    assert (job.status, job.created) == ("queued", True)
    (grant,) = await world.claim(worker)
    assert (grant.id, grant.payload, grant.attempt, grant.key, grant.queue) == (job.id, {"page": 7}, 1, "k", "default")
    ended = await world.run(jobs.Complete(**held(worker, [grant]), result={"words": 3}))
    assert (ended.status, ended.reason) == ("completed", None)
    row = await world.row(job.id)
    assert (row["result"], row["worker"], row["attempts"], row["fence"]) == ({"words": 3}, "w", 1, grant.fence)
    assert await world.told() == [(f"job.{what}", "default") for what in ("enqueued", "started", "completed")]


async def test_a_null_payload_is_null_and_none_is_an_empty_object(world: World) -> None:
    worker = await world.worker()
    await world.run(batch_of([{"type": "x"}, {"type": "x", "payload": None}]))
    await world.enqueue(payload=None)
    await world.enqueue()
    assert [grant.payload for grant in await world.claim(worker, 4)] == [{}, None, None, {}]


async def test_jobs_of_a_batch_start_in_its_order_and_by_priority(world: World) -> None:
    worker = await world.worker()
    given = [{"type": "xy"[n % 2], "payload": n, "priority": n % 3, "queue": f"q{n % 4}"} for n in range(20)]
    receipts = await world.run(batch_of(given))
    assert [(receipt.type, receipt.queue) for receipt in receipts] == [(one["type"], one["queue"]) for one in given]
    order = [grant.payload for _ in range(10) for grant in await world.claim(worker, 2)]
    assert order == sorted(range(20), key=lambda n: (-(n % 3), n))


@pytest.mark.parametrize("fair_by", ["none", "key"])
async def test_a_claim_gives_a_megabyte_and_leaves_the_rest_in_its_place(world: World, fair_by: str) -> None:
    """A worker that asks for a thousand jobs must not make the daemon hold a thousand of the largest payloads."""
    await world.run(queues.Set(project="default", queue="default", fair_by=fair_by))
    worker = await world.worker()
    large = [await world.enqueue(payload="p" * 250_000) for _ in range(9)]
    small = await world.enqueue()
    claimed = [[job.id for job in await world.claim(worker, 1000)] for _ in range(4)]
    assert [len(ids) for ids in claimed] == [4, 4, 2, 0]
    assert [job for ids in claimed for job in ids] == [job.id for job in (*large, small)]


async def test_ageing_lets_a_job_that_waits_long_overtake_a_higher_priority(world: World) -> None:
    worker = await world.worker()
    await world.run(queues.Set(project="default", queue="q", ageing=MINUTE))
    await world.tx.set_clock(timedelta())
    old = await world.enqueue(queue="q")
    await world.tx.set_clock(timedelta(seconds=59))
    high = await world.enqueue(queue="q", priority=1)
    await world.tx.set_clock(timedelta(seconds=61))
    late = await world.enqueue(queue="q", priority=1)
    assert [grant.id for grant in [*await world.claim(worker), *await world.claim(worker), *await world.claim(worker)]] == [
        high.id, old.id, late.id,
    ]  # fmt: skip


async def test_a_scheduled_job_waits_for_its_time(world: World) -> None:
    worker = await world.worker()
    job = await world.enqueue(delay=HOUR)
    assert job.status == "scheduled"
    assert await world.claim(worker) == []
    assert await world.run(jobs.Promote()) == 0
    await world.tx.set_clock(2 * HOUR)
    assert "job_promote" in await world.tx.connection.fetchval("select coordinator.work_due()")
    assert await world.run(jobs.Promote()) == 1
    assert [grant.id for grant in await world.claim(worker)] == [job.id]
    assert ("job.scheduled", "default") in await world.told()


async def test_an_instant_in_the_past_means_now_and_no_job_jumps_the_queue_by_it(world: World) -> None:
    worker = await world.worker()
    first = await world.enqueue()
    past = await world.enqueue(at=datetime(2001, 1, 1, tzinfo=UTC))
    job = held(worker, await world.claim(worker))
    assert job["job"] == first.id
    await world.run(jobs.Fail(**job, error="e", retry_at=datetime(2001, 1, 1, tzinfo=UTC)))
    assert [grant.id for grant in await world.claim(worker, 2)] == [past.id, first.id]


async def test_a_job_that_does_not_start_in_time_expires_and_one_that_started_does_not(world: World) -> None:
    worker = await world.worker()
    at = datetime.now(UTC) + HOUR
    started = await world.start(worker, start_by=at)
    waits, later = await world.enqueue(start_by=at), await world.enqueue(start_by=at, delay=MINUTE)
    await world.tx.set_clock(2 * HOUR)
    assert await world.claim(worker, 10) == []
    assert await world.run(jobs.Promote()) == 0
    assert "job_expire" in await world.tx.connection.fetchval("select coordinator.work_due()")
    assert await world.run(jobs.Expire()) == 2
    for job in (waits.id, later.id):
        assert [(await world.row(job))[name] for name in ("status", "reason")] == ["expired", "start_by"]
    assert "job_expire" not in await world.tx.connection.fetchval("select coordinator.work_due()")
    await world.run(jobs.Release(**started))
    assert [grant.id for grant in await world.claim(worker)] == [started["job"]]


async def test_a_failed_attempt_backs_off_twice_as_long_each_time_and_the_last_one_is_final(world: World) -> None:
    worker = await world.worker()
    job = await world.enqueue(max_attempts=3, backoff=MINUTE)
    clock = timedelta()
    for attempt, backoff in ((1, MINUTE), (2, 2 * MINUTE)):
        (grant,) = await world.claim(worker)
        assert grant.attempt == attempt
        now = await world.tx.connection.fetchval("select coordinator.now_utc()")
        outcome = await world.run(jobs.Fail(**held(worker, [grant]), error=f"broken {attempt}"))
        assert outcome.status == "scheduled"
        assert outcome.due_at
        assert backoff * 0.79 < outcome.due_at - now < backoff * 1.21
        clock += HOUR
        await world.tx.set_clock(clock)
        assert await world.run(jobs.Promote()) == 1
    outcome = await world.run(jobs.Fail(**held(worker, await world.claim(worker)), error="broken 3"))
    assert (outcome.status, outcome.reason) == ("failed", "error")
    row = await world.row(job.id)
    assert (row["error"], row["attempts"]) == ("broken 3", 3)
    assert [(past["attempt"], past["outcome"], past["error"], past["worker"]) for past in row["past"]][:2] == [
        (1, "failed", "broken 1", "w"),
        (2, "failed", "broken 2", "w"),
    ]


async def test_a_job_that_completes_at_last_has_no_error(world: World) -> None:
    worker = await world.worker()
    job = await world.start(worker, backoff=timedelta())
    await world.run(jobs.Fail(**job, error="e"))
    await world.run(jobs.Complete(**held(worker, await world.claim(worker))))
    row = await world.row(job["job"])
    assert (row["error"], row["attempts"], [past["error"] for past in row["past"]]) == (None, 2, ["e"])


async def test_a_worker_can_end_the_retries_or_say_when_the_next_one_is(world: World) -> None:
    worker = await world.worker()
    at = datetime.now(UTC) + 3 * HOUR
    outcome = await world.run(jobs.Fail(**await world.start(worker), error="e", retry_at=at))
    assert (outcome.status, outcome.due_at) == ("scheduled", at)
    outcome = await world.run(jobs.Fail(**await world.start(worker), error="e", final=True))
    assert (outcome.status, outcome.reason) == ("failed", "error")


async def test_a_snoozed_and_a_released_job_keep_their_checkpoint_and_spend_no_attempt(world: World) -> None:
    worker = await world.worker()
    job = await world.start(worker)
    await world.run(jobs.Report(**job, checkpoint={"page": 1}))
    assert (await world.run(jobs.Snooze(**job, delay=HOUR))).status == "scheduled"
    await world.tx.set_clock(2 * HOUR)
    await world.run(jobs.Promote())
    (grant,) = await world.claim(worker)
    assert (grant.checkpoint, grant.attempt) == ({"page": 1}, 1)
    assert (await world.run(jobs.Release(**held(worker, [grant])))).status == "queued"
    (grant,) = await world.claim(worker)
    assert (grant.checkpoint, grant.attempt) == ({"page": 1}, 1)
    assert [past["outcome"] for past in (await world.row(job["job"]))["past"]] == ["snoozed", "released"]


async def test_a_released_job_returns_to_its_place(world: World) -> None:
    worker = await world.worker()
    first = await world.start(worker)
    second = await world.enqueue()
    await world.run(jobs.Release(**first))
    assert [grant.id for grant in await world.claim(worker, 2)] == [first["job"], second.id]


async def test_progress_extends_the_stall_time_and_nothing_else(world: World) -> None:
    worker = await world.worker()
    await world.settle()
    await world.tx.set_clock(timedelta())
    job = await world.start(worker, stall=MINUTE, deadline=HOUR)
    for minute in range(1, 5):
        await world.tx.set_clock(minute * timedelta(seconds=50))
        lease = await world.run(jobs.Report(**job, percent=minute, message=f"page {minute}"))
        assert await world.run(jobs.Rescue()) == 0
    assert lease.stall_at
    assert lease.deadline_at - lease.stall_at == HOUR - timedelta(seconds=260)
    await world.tx.set_clock(timedelta(seconds=261))
    assert "job_rescue" in await world.tx.connection.fetchval("select coordinator.work_due()")
    assert await world.run(jobs.Rescue()) == 1
    row = await world.row(job["job"])
    assert (row["table"], row["past"][0]["outcome"], row["attempts"]) == ("jobs_later", "stalled", 1)


async def test_no_attempt_runs_longer_than_its_deadline_which_is_a_day_by_default(world: World) -> None:
    worker = await world.worker()
    await world.settle()
    job = await world.start(worker, max_attempts=1)
    await world.tx.set_clock(DAY - MINUTE)
    await world.run(agents.Heartbeat(agent=worker.id))
    assert await world.run(jobs.Rescue()) == 0
    await world.tx.set_clock(DAY + MINUTE)
    assert await world.run(jobs.Rescue()) == 1
    assert (await world.row(job["job"]))["reason"] == "deadline"


@pytest.mark.parametrize(
    ("rescue", "expected"), [("retry", ("jobs_ready", None)), ("resume", ("jobs_ready", {"page": 1})), ("fail", ("jobs_ended", {"page": 1}))]
)  # fmt: skip
async def test_the_rescue_policy_says_what_follows_a_lost_worker(
    world: World, rescue: str, expected: tuple[str, Any]
) -> None:
    worker = await world.worker(ttl=MINUTE)
    await world.settle()
    job = await world.start(worker, rescue=rescue)
    await world.run(jobs.Report(**job, checkpoint={"page": 1}))
    await world.tx.set_clock(HOUR)
    assert (await world.run(agents.Reap())).reaped == 1
    row = await world.row(job["job"])
    assert (row["table"], row["checkpoint"]) == expected
    assert rescue != "fail" or row["reason"] == "worker_lost"
    assert rescue == "fail" or row["past"][0]["worker"] == "w"


async def test_attempts_end_when_the_heartbeat_is_overdue_even_if_a_lock_keeps_the_agent_alive(world: World) -> None:
    worker = await world.worker(ttl=MINUTE)
    await world.settle()
    job = await world.start(worker)
    await world.tx.connection.execute(
        "select coordinator.lock_acquire('default', '{name:long}', $1, p_ttl => '1 hour')", worker.id
    )
    await world.tx.set_clock(2 * MINUTE)
    assert "job_rescue" in await world.tx.connection.fetchval("select coordinator.work_due()")
    assert (await world.run(agents.Reap())).reaped == 0
    assert await world.run(jobs.Rescue()) == 1
    assert (await world.row(job["job"]))["past"][0]["outcome"] == "worker_lost"
    assert await world.run(jobs.Rescue()) == 0


async def test_a_job_that_kills_three_workers_in_a_row_fails_as_a_crash_loop(world: World) -> None:
    await world.settle()
    job = await world.enqueue(max_attempts=100)
    for n in range(3):
        worker = await world.worker(f"w{n}", ttl=MINUTE)
        assert len(await world.claim(worker)) == 1
        await world.tx.set_clock((n + 1) * HOUR)
        await world.run(agents.Reap())
    row = await world.row(job.id)
    assert (row["status"], row["reason"], row["attempts"]) == ("failed", "crash_loop", 3)


async def test_an_agent_that_deregisters_releases_its_jobs(world: World) -> None:
    worker = await world.worker()
    job = await world.start(worker)
    await world.run(agents.Deregister(agent=worker.id))
    row = await world.row(job["job"])
    assert (row["table"], row["attempts"], row["past"][0]["outcome"]) == ("jobs_ready", 0, "released")


async def test_of_many_past_attempts_the_newest_fifty_are_kept_and_long_errors_are_cut(world: World) -> None:
    worker = await world.worker()
    await world.enqueue(max_attempts=1000, backoff=timedelta())
    for n in range(53):
        await world.tx.set_clock(n * SECOND)
        await world.run(jobs.Promote())
        job = held(worker, await world.claim(worker))
        await world.run(jobs.Fail(**job, error=f"{n} " + "x" * 5000))
    past = (await world.row(job["job"]))["past"]
    assert [one["attempt"] for one in past] == [*range(4, 54)]
    assert {len(one["error"]) for one in past} == {2000}


async def test_a_waiting_job_is_cancelled_at_once_and_an_ended_one_cannot_be(world: World) -> None:
    for fields in NOW_OR_LATER:
        job = await world.enqueue(**fields)
        outcome = await world.run(jobs.Cancel(project="default", job=job.id, reason="why", actor="boss"))
        assert (outcome.status, outcome.reason) == ("cancelled", "cancelled")
        row = await world.row(job.id)
        assert (row["ended_by"], row["error"]) == ("boss", "why")
        await refused(world.tx, jobs.Cancel(project="default", job=job.id), "ZC323")
    await refused(world.tx, jobs.Cancel(project="default", job=uuid4()), "ZC209")


@pytest.mark.parametrize("ends", ["complete", "fail", "release", "snooze", "deregister", "loop"])
async def test_the_worker_of_a_cancelled_job_learns_it_and_whatever_it_says_the_end_is_cancelled(
    world: World, ends: str
) -> None:
    worker = await world.worker()
    await world.settle()
    job = await world.start(worker)
    outcome = await world.run(jobs.Cancel(project="default", job=job["job"], reason="why", actor="boss"))
    assert outcome.status == "running"
    assert outcome.due_at
    assert ("job.cancel_requested", "default") in await world.told()
    lease = await world.run(jobs.Report(**job))
    assert (lease.cancel_at, lease.cancel_reason) == (outcome.due_at, "why")
    verdicts = await world.run(jobs.Reconcile(project="default", agent=worker.id, fences=[job["fence"]]))
    assert [(verdict.id, verdict.verdict) for verdict in verdicts] == [(job["job"], "cancel")]
    if ends == "complete":
        assert (await world.run(jobs.Complete(**job, result=1))).status == "cancelled"
    elif ends == "fail":
        assert (await world.run(jobs.Fail(**job, error="e"))).status == "cancelled"
    elif ends == "release":
        assert (await world.run(jobs.Release(**job))).status == "cancelled"
    elif ends == "snooze":
        assert (await world.run(jobs.Snooze(**job, delay=HOUR))).status == "cancelled"
    elif ends == "deregister":
        await world.run(agents.Deregister(agent=worker.id))
    else:
        await world.tx.set_clock(29 * SECOND)
        assert await world.run(jobs.Rescue()) == 0
        await world.tx.set_clock(31 * SECOND)
        assert await world.run(jobs.Rescue()) == 1
        await refused(world.tx, jobs.Complete(**job), "ZC320")  # the fence was revoked
    row = await world.row(job["job"])
    assert [row[name] for name in ("status", "reason", "ended_by", "error")] == [
        "cancelled",
        "cancelled",
        "boss",
        "why",
    ]


async def test_a_job_that_was_cancelled_without_a_reason_says_whether_its_worker_stopped(world: World) -> None:
    worker = await world.worker()
    await world.settle()
    job = await world.start(worker)
    await world.run(jobs.Cancel(project="default", job=job["job"]))
    await world.tx.set_clock(31 * SECOND)
    assert await world.run(jobs.Rescue()) == 1
    assert (await world.row(job["job"]))["error"] == "the worker did not stop in time"


STALE: dict[str, Any] = {
    "complete": lambda job: jobs.Complete(**job),
    "fail": lambda job: jobs.Fail(**job, error="e"),
    "report": lambda job: jobs.Report(**job, percent=1),
    "snooze": lambda job: jobs.Snooze(**job, delay=HOUR),
    "release": lambda job: jobs.Release(**job),
    "assert": lambda job: jobs.Assert(project="default", job=job["job"], fence=job["fence"]),
}


@pytest.mark.parametrize("verb", STALE)
async def test_a_stale_fence_changes_nothing_and_says_who_has_the_job_or_how_it_ended(world: World, verb: str) -> None:
    first, second = await world.worker("first"), await world.worker("second")
    stale = await world.start(first)
    await world.run(jobs.Release(**stale))
    error = await refused(world.tx, STALE[verb](stale), "ZC320")
    assert "nobody has it now, it is queued" in error.message
    present = held(second, await world.claim(second))
    before = await world.row(stale["job"])
    error = await refused(world.tx, STALE[verb](stale), "ZC320")
    assert 'worker "second" has it now, attempt 1' in error.message
    assert error.detail
    assert f'"fence": {present["fence"]}' in error.detail
    assert await world.row(stale["job"]) == before
    for other in (stale["fence"], present["fence"] + 1):  # even if it is the same worker
        await refused(world.tx, STALE[verb]({**present, "fence": other}), "ZC320")
    if verb != "assert":
        error = await refused(world.tx, STALE[verb]({**present, "agent": first.id}), "ZC320")
        assert f'fence {present["fence"]} of job {present["job"]} is not a fence of worker "first"' in error.message
        assert error.hint == "Give the agent that claimed the job."
    await world.run(jobs.Complete(**present))
    error = await refused(world.tx, STALE[verb](stale), "ZC320")
    assert "it completed at" in error.message
    await refused(world.tx, STALE[verb]({**stale, "job": uuid4()}), "ZC209")


async def test_a_completion_may_be_repeated_by_the_one_that_made_it(world: World) -> None:
    worker = await world.worker()
    job = await world.start(worker)
    ended = await world.run(jobs.Complete(**job, result=1))
    before = await world.tx.events()
    assert await world.run(jobs.Complete(**job, result=2)) == ended
    assert await world.claim(worker, 0, finished=[job["job"]], fences=[job["fence"]], results=[3]) == []
    assert await world.tx.events() == before
    assert (await world.row(job["job"]))["result"] == 1


async def test_a_claim_ends_what_is_finished_in_the_same_call_and_reports_what_was_lost(world: World) -> None:
    worker, other = await world.worker(), await world.worker("other")
    await world.run(batch_of([{"type": "x", "payload": n} for n in range(6)]))
    mine, theirs = await world.claim(worker, 3), await world.claim(other, 1)
    lost = mine[2]
    await world.run(jobs.Release(**held(worker, [lost])))
    named = [*mine, *theirs]
    grants = await world.claim(
        worker, 1, finished=[grant.id for grant in named], fences=[grant.fence for grant in named], results=[1, "two", 3, 4]
    )  # fmt: skip
    assert [(grant.id, grant.fence, grant.stale) for grant in grants[:2]] == [
        (lost.id, lost.fence, True), (theirs[0].id, theirs[0].fence, True),
    ]  # fmt: skip
    assert [(grant.id, grant.stale) for grant in grants[2:]] == [(lost.id, False)]
    assert [(await world.row(grant.id))["result"] for grant in mine[:2]] == [1, "two"]


async def test_a_claim_is_repeated_by_its_request_id(world: World) -> None:
    worker = await world.worker()
    await world.run(batch_of([{"type": "x"}] * 5))
    request = uuid4()
    grants = await world.claim(worker, 2, request_id=request)
    assert sorted(grants, key=lambda grant: grant.id) == sorted(
        await world.claim(worker, 2, request_id=request), key=lambda grant: grant.id
    )
    assert len(await world.claim(worker, 2, request_id=uuid4())) == 2


async def test_reconciling_releases_what_the_worker_does_not_know_and_reports_what_it_lost(world: World) -> None:
    worker = await world.worker()
    known, unknown, lost = [await world.start(worker) for _ in range(3)]
    await world.run(jobs.Complete(**lost))
    fences = [known["fence"], lost["fence"]]
    verdicts = await world.run(jobs.Reconcile(project="default", agent=worker.id, fences=fences))
    assert [(verdict.fence, verdict.verdict) for verdict in verdicts] == [(lost["fence"], "lost")], (
        "the answer may be on its way"
    )
    await world.tx.set_clock(MINUTE)
    verdicts = await world.run(jobs.Reconcile(project="default", agent=worker.id, fences=fences))
    assert sorted((verdict.fence, verdict.id, verdict.verdict) for verdict in verdicts if verdict.id) == [
        (unknown["fence"], unknown["job"], "released")
    ]
    assert (await world.row(unknown["job"]))["table"] == "jobs_ready"
    assert (await world.row(known["job"]))["table"] == "jobs_running"


async def test_a_worker_gets_jobs_of_its_types_and_labels_and_from_the_queues_that_it_names(world: World) -> None:
    plain = await world.worker("plain", job_types=["x"])
    gpu = await world.worker("gpu", job_types=["x"], labels=["gpu", "linux", "eu"])
    await world.enqueue("z")
    needs = await world.enqueue(labels=["linux", "gpu", "gpu"])
    other = await world.enqueue(queue="other")
    assert [grant.id for grant in await world.claim(plain, 10)] == [other.id]
    assert await world.claim(gpu, 10, queues=["other"]) == []
    assert await world.claim(gpu, 10, types=["y"]) == []
    assert [grant.id for grant in await world.claim(gpu, 10)] == [needs.id]
    await refused(world.tx, jobs.Claim(project="default", agent=(await world.worker("none", job_types=[])).id), "ZC105")


async def test_a_paused_queue_gives_no_jobs(world: World) -> None:
    worker = await world.worker()
    job = await world.enqueue(queue="q")
    await world.run(queues.Pause(project="default", queue="q"))
    assert await world.claim(worker) == []
    await world.run(queues.Resume(project="default", queue="q"))
    assert [grant.id for grant in await world.claim(worker)] == [job.id]


async def test_keys_of_a_fair_queue_take_turns_by_weight_and_no_job_waits_without_need(world: World) -> None:
    worker = await world.worker()
    await world.run(queues.Set(project="default", queue="q", fair_by="key", weights={"heavy": 3}))
    for key, count in (("big", 100), ("heavy", 100), ("small", 2)):
        await world.run(batch_of([{"type": "x", "queue": "q", "key": key}] * count))
    served: dict[str, list[int]] = {"big": [], "heavy": [], "small": []}
    for _ in range(10):
        keys = [grant.key for grant in await world.claim(worker, 10)]
        assert len(keys) == 10
        for key, counts in served.items():
            counts.append(keys.count(key))
    assert sum(served["small"][:2]) == 2, "a small key waits behind a big one"
    assert 2 < sum(served["heavy"][2:]) / sum(served["big"][2:]) < 4
    assert len(await world.claim(worker, 1000)) == 102
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_lanes") == 0
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_permits") == 0


async def test_a_claim_never_exceeds_its_limit_in_a_fair_queue(world: World) -> None:
    worker = await world.worker()
    await world.run(queues.Set(project="default", queue="q", fair_by="key"))
    await world.run(batch_of([{"type": "x", "queue": "q", "key": f"k{n % 30}"} for n in range(300)]))
    taken = 0
    for limit in (1, 2, 3, 7, 50, 100, 137):
        assert len(await world.claim(worker, limit)) == limit
        taken += limit
    assert taken == 300
    assert await world.claim(worker, 10) == []


async def test_a_full_queue_refuses_jobs_in_total_and_of_a_key(world: World) -> None:
    worker = await world.worker()
    await world.run(queues.Set(project="default", queue="q", max_waiting=5))
    await world.run(queues.Set(project="default", queue="k", max_waiting_per_key=2))
    many = [{"type": "x", "queue": "q"}, {"type": "x", "queue": "q", "delay": 60}]
    await world.run(batch_of(many * 2))
    error = await refused(world.tx, batch_of(many), "ZC322")
    assert error.detail
    assert '"max": 5' in error.detail
    await world.enqueue(queue="q")
    await refused(world.tx, jobs.Enqueue(project="default", type="x", queue="q"), "ZC322")
    await world.claim(worker, 1)
    await world.enqueue(queue="q")
    for key in ("a", "b", None, None, None, "a", "b"):
        await world.enqueue(queue="k", key=key)
    await refused(world.tx, jobs.Enqueue(project="default", type="x", queue="k", key="a"), "ZC322")


async def test_a_dedupe_key_answers_until_the_end_of_the_job_by_default(world: World) -> None:
    worker = await world.worker()
    first = await world.enqueue(dedupe_key="d")
    error = await refused(world.tx, jobs.Enqueue(project="default", type="x", dedupe_key="d"), "ZC321")
    assert error.detail
    assert str(first.id) in error.detail
    same = await world.enqueue(dedupe_key="d", on_duplicate="skip", queue="elsewhere")
    assert (same.id, same.created, same.queue) == (first.id, False, "default")
    job = held(worker, await world.claim(worker))
    assert (await world.enqueue(dedupe_key="d", on_duplicate="skip")).status == "running"
    await refused(world.tx, jobs.Enqueue(project="default", type="x", dedupe_key="d", on_duplicate="replace"), "ZC321")
    await world.run(jobs.Fail(**job, error="e"))
    await world.tx.set_clock(HOUR)
    assert await world.run(jobs.Promote()) == 1, "a retry met its own key"
    await world.run(jobs.Complete(**held(worker, await world.claim(worker))))
    assert (await world.enqueue(dedupe_key="d")).created


async def test_a_dedupe_key_with_a_window_answers_for_a_completed_job_and_not_for_a_failed_one(world: World) -> None:
    worker = await world.worker()
    done = await world.enqueue(dedupe_key="d", dedupe_for=HOUR)
    await world.run(jobs.Complete(**held(worker, await world.claim(worker))))
    same = await world.enqueue(dedupe_key="d", on_duplicate="skip")
    assert (same.id, same.status) == (done.id, "completed")
    error = await refused(
        world.tx, jobs.Enqueue(project="default", type="x", dedupe_key="d", on_duplicate="replace"), "ZC321"
    )
    assert "(completed) holds the dedupe key" in error.message
    assert "until its window ends" in error.hint
    await world.tx.set_clock(2 * HOUR)
    again = await world.enqueue(dedupe_key="d", dedupe_for=HOUR)
    assert again.id != done.id
    await world.run(jobs.Fail(**held(worker, await world.claim(worker)), error="e", final=True))
    third = await world.enqueue(dedupe_key="d", dedupe_for=HOUR, dedupe_failed=True)
    assert third.created
    await world.run(jobs.Fail(**held(worker, await world.claim(worker)), error="e", final=True))
    assert (await world.enqueue(dedupe_key="d", on_duplicate="skip")).id == third.id
    await world.tx.set_clock(4 * HOUR)
    assert await world.run(jobs.PruneDedupes()) == 1


async def test_a_waiting_job_is_replaced(world: World) -> None:
    for fields in NOW_OR_LATER:
        first = await world.enqueue(dedupe_key="d", **fields)
        second = await world.enqueue(dedupe_key="d", on_duplicate="replace", payload=2)
        assert second.created
        row = await world.row(first.id)
        assert (row["status"], row["reason"]) == ("cancelled", "replaced")
        await refused(world.tx, jobs.Enqueue(project="default", type="x", dedupe_key="d"), "ZC321")
        await world.run(jobs.Cancel(project="default", job=second.id))


async def test_duplicates_within_a_batch(world: World) -> None:
    twice: list[dict[str, Any]] = [
        {"type": "x", "dedupe_key": "b"},
        {"type": "y", "dedupe_key": "a"},
        {"type": "y", "dedupe_key": "b"},
    ]
    await refused(world.tx, batch_of(twice), "ZC321")
    receipts = await world.run(batch_of([{**job, "on_duplicate": "skip"} for job in twice]))
    assert [receipt.created for receipt in receipts] == [True, True, False]
    assert (receipts[2].id, receipts[2].type) == (receipts[0].id, "x")


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "no type": ({"type": None}, "ZC101"),
    "empty type": ({"type": ""}, "ZC101"),
    "no such field": ({"priorty": 1}, "ZC105"),
    "priority": ({"priority": 101}, "ZC104"),
    "attempts": ({"max_attempts": 0}, "ZC104"),
    "rescue": ({"rescue": "maybe"}, "ZC105"),
    "duplicates": ({"on_duplicate": "ignore"}, "ZC105"),
    "window without key": ({"dedupe_for": 60}, "ZC105"),
    "at and delay": ({"at": "2030-01-01T00:00:00Z", "delay": 1}, "ZC105"),
    "negative delay": ({"delay": -1}, "ZC104"),
    "never ends": ({"deadline": "10000 days"}, "ZC104"),
    "far away": ({"at": "2099-01-01T00:00:00Z"}, "ZC104"),
    "never starts": ({"start_by": "2020-01-01T00:00:00Z"}, "ZC105"),
    "labels": ({"labels": [str(n) for n in range(17)]}, "ZC102"),
    "label": ({"labels": ["a\nb"]}, "ZC103"),
    "parent": ({"parent": "00000000-0000-0000-0000-000000000000"}, "ZC209"),
    "payload": ({"payload": "x" * 300000}, "ZC102"),
    "deep payload": ({"payload": [[[]]]}, ""),
    "too deep payload": ({"payload": json.loads("[" * 65 + "]" * 65)}, "ZC102"),
    "empty key": ({"key": ""}, "ZC101"),
    "long key": ({"key": "k" * 513}, "ZC102"),
    "key": ({"key": "a\nb"}, "ZC103"),
    "key of two words": ({"key": "two words"}, ""),
    "interval": ({"delay": "soon"}, "22007"),
    "number": ({"priority": "high"}, "22P02"),
    "uuid": ({"parent": "me"}, "ZC103"),
}


@pytest.mark.parametrize("last", [{}, {"delay": 1}], ids=["alike", "delayed"])
@pytest.mark.parametrize("what", INVALID)
async def test_an_invalid_job_of_a_batch_is_named_and_nothing_is_enqueued(
    world: World, what: str, last: dict[str, Any]
) -> None:
    fields, code = INVALID[what]
    batch: list[dict[str, Any]] = [{"type": "x"}, {"type": "x"}, {"type": "x", **fields}, {"type": "x", **last}]
    call = batch_of(batch)
    if not code:
        receipts: list[JobReceipt] = await world.run(call)
        assert len(receipts) == 4
        return
    error = await refused(world.tx, call, code) if code.startswith("ZC") else None
    if error is None:
        with pytest.raises(Exception, match="job 2: ") as raised:
            await world.run(call)
        error = raised.value  # type: ignore[assignment]
        assert getattr(error, "code", "") == code
    assert error
    assert error.message.startswith("job 2")
    assert error.detail
    assert '"job": 2' in error.detail


@pytest.mark.parametrize("fields", [{"type": ""}, {"type": None}, {"type": "x" * 201}, {"queue": ""}, {"queue": "q\n"}])
async def test_of_alike_jobs_that_are_invalid_the_first_is_named(world: World, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="job 0: "):
        await world.run(batch_of([{"type": "x", **fields}] * 2))


async def test_alike_jobs_keep_the_trace_of_their_call(world: World) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await world.tx.connection.execute("select set_config('coordinator.traceparent', $1, true)", trace)
    receipts = await world.run(batch_of([{"type": "x"}] * 2))
    assert [(await world.row(receipt.id))["traceparent"] for receipt in receipts] == [trace] * 2


ALIKE: list[dict[str, Any]] = [
    {},
    {"key": None, "payload": None, "priority": None},
    {"queue": "fair", "key": "k", "payload": {"text": "x" * 9000}},
    {"queue": "aged", "priority": -3, "key": "two words"},
    {"queue": "narrow"},
    {"queue": None, "type": "größe"},
    {"max_attempts": 7, "backoff": 3, "deadline": 60, "stall": "5 minutes"},
    {"start_by": datetime.now(UTC) + DAY},
    {"rescue": "resume", "labels": ["gpu", "big", "gpu"], "after": [], "locks": [], "limits": None},
    {"limits": ["wide"]},
    {"delay": 1},
    {"dedupe_key": "d", "on_duplicate": "skip"},
]


@pytest.mark.parametrize("fields", ALIKE, ids=lambda fields: ",".join(fields) or "nothing")
async def test_jobs_that_are_alike_are_stored_like_each_of_them_among_others(
    world: World, fields: dict[str, Any]
) -> None:
    await world.tx.set_clock(timedelta(0))
    for queue in (
        {"queue": "fair", "fair_by": "key"},
        {"queue": "aged", "ageing": MINUTE},
        {"queue": "narrow", "max_waiting": 3},
    ):
        await world.run(queues.Set(project="default", **queue))
    await world.run(limits.Set(project="default", name="wide", slots=3))
    work: dict[str, Any] = {"type": "x", **fields}
    seen = []
    for batch in ([work, work], [{"type": "other", "queue": "others"}, work, work]):
        receipts = (await world.run(batch_of(batch)))[-2:]
        rows = [await world.row(receipt.id) for receipt in receipts]
        place = "select r.class_id, r.rank, l.key from coordinator.jobs_ready r left join coordinator.job_lanes l on l.id = r.lane_id where r.id = $1"
        seen.append(
            [
                (
                    {name: value for name, value in row.items() if name != "id"},
                    await world.tx.connection.fetchrow(place, receipt.id),
                    msgspec.structs.replace(receipt, id=UUID(int=0), created=True),
                )
                for row, receipt in zip(rows, receipts, strict=True)
            ]
        )
        for receipt in receipts:
            if receipt.created:
                await world.run(jobs.Cancel(project="default", job=receipt.id))
    assert seen[0] == seen[1]
    events = [event for event in await world.tx.events() if event["type"] in ("job.enqueued", "job.scheduled")]
    assert sum(len(event["data"]["ids"]) for event in events) == (3 if "dedupe_key" in fields else 5)


@pytest.mark.parametrize(
    ("batch", "code"), [([], "ZC101"), ([{"type": "x"}] * 10001, "ZC102"), ([{"type": "x"}, 5], "ZC103")]
)
async def test_an_invalid_batch_is_refused(world: World, batch: list[Any], code: str) -> None:
    await refused(world.tx, batch_of(batch), code)


async def test_events_of_one_call_are_one_up_to_150_jobs_and_one_for_each_job_if_the_queue_says_so(
    world: World,
) -> None:
    worker = await world.worker()
    await world.run(queues.Set(project="default", queue="each", events="job"))
    await world.run(batch_of([{"type": "x"}] * 301 + [{"type": "x", "queue": "each"}] * 3))
    sizes = [len(event["data"]["ids"]) for event in await world.tx.events() if event["type"] == "job.enqueued"]
    assert sorted(sizes) == [1, 1, 1, 1, 150, 150]
    grants = await world.claim(worker, 304)
    await world.claim(
        worker, 0, finished=[g.id for g in grants], fences=[g.fence for g in grants], results=[None] * len(grants)
    )
    for what in ("started", "completed"):
        ids = [
            one for event in await world.tx.events() if event["type"] == f"job.{what}" for one in event["data"]["ids"]
        ]
        assert sorted(ids) == sorted(str(grant.id) for grant in grants)


async def test_combinations_without_open_jobs_are_forgotten_where_there_are_many(world: World) -> None:
    worker = await world.worker(job_types=[f"x{n}" for n in range(501)])
    await world.run(batch_of([{"type": f"x{n}"} for n in range(500)]))
    assert await world.run(jobs.PruneClasses()) == 0, "there are few"
    await world.run(batch_of([{"type": "x500"}, {"type": "x500", "delay": 60, "queue": "q"}]))
    assert len(await world.claim(worker)) == 1
    assert await world.run(jobs.PruneClasses()) == 0, "all have jobs"
    rest = "select coordinator.job_cancel('default', r.id) from coordinator.jobs_ready r"
    await world.tx.connection.execute(rest)
    assert await world.run(jobs.PruneClasses()) == 500
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_classes") == 2
    again = await world.enqueue("x7")
    assert [grant.id for grant in await world.claim(worker)] == [again.id]


async def test_a_transaction_writes_under_the_fence_of_a_job(world: World) -> None:
    worker = await world.worker()
    job = await world.start(worker)
    parts: dict[str, Any] = {"conditions": [{"verb": "assert_job", "job": str(job["job"]), "fence": job["fence"]}]}
    writes: list[dict[str, Any]] = [
        {"verb": "signal_set", "key": "result", "value": 1},
        {"verb": "job_enqueue", "type": "x", "dedupe_key": "next", "at": "2030-01-01T00:00:00Z"},
        {"verb": "job_complete", "job": str(job["job"]), "agent": "w", "fence": job["fence"], "result": 2},
    ]
    run = transactions.Run(project="default", writes=writes, **parts)
    if datetime.now(UTC) > datetime(2029, 1, 2, tzinfo=UTC):
        pytest.fail("give a later instant")
    writes[1]["at"] = (datetime.now(UTC) + HOUR).isoformat()
    await world.run(run)
    assert (await world.row(job["job"]))["result"] == 2
    before = await world.tx.events()
    with pytest.raises(Conflict) as raised:
        await world.run(run)
    assert raised.value.code == "ZC320"
    assert await world.tx.events() == before


async def test_a_transaction_takes_the_locks_of_jobs_before_those_of_locks_as_the_end_of_an_agent_does(
    world: World,
) -> None:
    query = "select array_agg(distinct entered_by order by entered_by), min(ordinal) from coordinator.transaction_verbs where function ~ $1"
    entered = [await world.tx.connection.fetchrow(query, noun) for noun in ("job", "lock|fence")]
    assert [row[0] for row in entered if row] == [["job_enter_parts"], ["lock_enter_parts"]]
    assert [row[1] for row in entered if row] == sorted(row[1] for row in entered if row)
    source = await world.tx.connection.fetchval("select prosrc from pg_proc where proname = 'agent_end'")
    assert source.index("job_end_agent") < source.index("lock_end_agent")


async def test_a_deleted_project_leaves_nothing_of_its_jobs(world: World) -> None:
    await world.run(projects.Create(project="p"))
    worker = await world.run(agents.Register(project="p", name="w", job_types=["x"]))
    await world.run(queues.Set(project="p", queue="default", fair_by="key"))
    batch = [{"type": "x", "key": str(n), "delay": n % 2, "dedupe_key": str(n)} for n in range(10)]
    made = await world.run(batch_of(batch, "p"))
    await world.run(jobs.Enqueue(project="p", type="x", after=[made[8].id]))
    grants = await world.run(jobs.Claim(project="p", agent=worker.id, limit=3))
    await world.run(jobs.Complete(project="p", job=grants[0].id, agent=worker.id, fence=grants[0].fence))
    await world.run(projects.Delete(project="p"))
    for table in (
        "queues",
        "job_classes",
        "job_lanes",
        "job_permits",
        "job_dedupes",
        "jobs_open",
        "jobs_ready",
        "jobs_later",
        "jobs_waiting",
        "job_dependencies",
        "jobs_running",
        "jobs_ended",
    ):
        assert await world.tx.connection.fetchval(f"select count(*) from coordinator.{table}") == 0, table
