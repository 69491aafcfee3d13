"""Locks of jobs: acquired with the claim, all or none, held until the attempt ends, and waited for without holding anything."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from coordinator.errors import CoordinatorError
from coordinator.model.job import JobGrant, JobReceipt
from coordinator.model.job_history import Job, JobExplanation
from coordinator.operations import agents, job_history, jobs, locks, projects, queues, transactions
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_job import DAY, HOUR, MINUTE, SECOND, World, batch_of, held


class Locks(World):
    """What the tests of this file do."""

    async def shown(self, job: JobReceipt | JobGrant | UUID) -> Job:
        own = job if isinstance(job, UUID) else job.id
        await self.row(own)
        return await self.run(job_history.Show(project="default", job=own))

    async def status(self, *given: JobReceipt | JobGrant) -> list[str]:
        return [(shown := await self.shown(job)).waiting_for or shown.status for job in given]

    async def why(self, job: JobReceipt) -> JobExplanation:
        return await self.run(job_history.Why(project="default", job=job.id))

    async def held(self) -> dict[str, tuple[str, UUID | None]]:
        """Return the owner of each lock, and the job to which that belongs."""
        found = await self.run(locks.List(project="default"))
        return {lock.resource: (lock.owner, lock.job) for lock in found}

    async def acquire(self, worker: Any, *resources: str, **fields: Any) -> int:
        grants = await self.run(locks.Acquire(project="default", resources=list(resources), agent=worker.id, **fields))
        assert grants[0].fencing_token
        return grants[0].fencing_token

    async def release(self, worker: Any, token: int, *resources: str) -> None:
        await self.run(locks.Release(project="default", resources=list(resources), agent=worker.id, tokens=[token]))


@pytest_asyncio.fixture(loop_scope="session")
async def world(tx: Transaction) -> Locks:
    world = Locks(tx)
    await world.settle()
    return world


async def test_a_claim_acquires_the_locks_and_the_end_of_the_attempt_ends_them(world: Locks) -> None:
    worker = await world.worker()
    job = await world.enqueue(locks=["name:deploy", "./src/", "src/"])
    assert (await world.shown(job)).locks == ["name:deploy", "src/"]
    (grant,) = await world.claim(worker)
    assert grant.tokens is not None
    assert set(grant.tokens) == {"name:deploy", "src/"}
    assert grant.owner == f"job/{job.id}/{grant.fence}"
    assert await world.held() == dict.fromkeys(grant.tokens, (grant.owner, job.id))
    assert (await world.shown(job)).tokens == grant.tokens
    (shown,) = await world.run(locks.Show(project="default", resource="src/a.py"))
    assert (shown.job, shown.expires_at, shown.fencing_token) == (job.id, grant.deadline_at, grant.tokens["src/"])
    guard = locks.Assert(project="default", resource="src/", token=grant.tokens["src/"])
    await world.run(guard)
    await world.run(jobs.Complete(**held(worker, [grant])))
    assert await world.held() == {}
    assert (await world.shown(job)).locks == ["name:deploy", "src/"]
    await refused(world.tx, guard, "ZC312")


async def test_a_repeated_claim_returns_the_tokens(world: Locks) -> None:
    worker = await world.worker()
    await world.enqueue(locks=["a"])
    request = UUID(int=1)
    first = await world.claim(worker, request_id=request)
    assert first[0].tokens
    assert await world.claim(worker, request_id=request) == first


async def test_two_jobs_of_one_worker_exclude_each_other_and_block_nobody_behind_them(world: Locks) -> None:
    worker = await world.worker()
    first, second = [await world.enqueue(locks=["src/"]) for _ in range(2)]
    third, other = await world.enqueue(locks=["src/a.py", "b"]), await world.enqueue()
    grants = await world.claim(worker, 10)
    assert [grant.id for grant in grants] == [first.id, other.id]
    assert await world.status(second, third) == ["lock", "lock"]
    assert set(await world.held()) == {"src/"}
    assert await world.claim(worker, 10) == []
    why = await world.why(second)
    assert (why.cause, why.names, why.until) == ("lock", ["w"], grants[0].deadline_at)
    assert f'which job {first.id} of worker "w" holds until its attempt ends' in why.sentence
    assert (await world.why(third)).sentence.startswith('It waits for the lock on "src/a.py", which job')
    await world.run(jobs.Complete(**held(worker, grants[:1])))
    assert await world.status(second, third) == ["queued", "queued"]
    (grant,) = await world.claim(worker, 10)
    assert grant.id == second.id
    assert await world.status(third) == ["lock"]


@pytest.mark.parametrize(
    "end",
    [
        "complete",
        "fail",
        "final",
        "snooze",
        "release",
        "reconcile",
        "cancel",
        "deadline",
        "stall",
        "lost",
        "deregister",
        "finish",
    ],
)
async def test_every_end_of_an_attempt_ends_its_locks_and_wakes_who_waits(world: Locks, end: str) -> None:
    worker, other = await world.worker(), await world.worker("v")
    first = await world.enqueue(locks=["src/"], stall=MINUTE, deadline=HOUR)
    grants = await world.claim(worker)
    own = held(worker, grants)
    part = grants[0].owner + "/part"
    await world.acquire(worker, "lib/x", "src/y", owner=part)
    later = await world.enqueue(locks=["src/y"])
    assert await world.claim(other) == []
    assert await world.status(later) == ["lock"]
    match end:
        case "complete":
            await world.run(jobs.Complete(**own))
        case "fail" | "final":
            await world.run(jobs.Fail(**own, error="no", final=end == "final"))
        case "snooze":
            await world.run(jobs.Snooze(**own, delay=HOUR))
        case "release":
            await world.run(jobs.Release(**own))
        case "reconcile":
            await world.tx.set_clock(MINUTE)
            await world.run(jobs.Reconcile(project="default", agent=worker.id, fences=[]))
        case "finish":
            fields = {"finished": [first.id], "fences": [grants[0].fence], "results": [None]}
            (grant,) = await world.claim(worker, 1, **fields)
            assert grant.id == later.id
            return
        case "cancel":
            await world.run(jobs.Cancel(project="default", job=first.id))
            await world.tx.set_clock(MINUTE)
            await world.run(jobs.Rescue())
        case "deadline" | "stall":
            await world.tx.set_clock(2 * HOUR if end == "deadline" else 2 * MINUTE)
            await world.run(jobs.Rescue())
        case "lost":
            await world.tx.set_clock(DAY)
            await world.tx.connection.execute("update coordinator.agents set ttl = '2 days' where name = 'v'")
            await world.run(jobs.Rescue())
            await world.run(agents.Reap())
        case "deregister":
            await world.run(agents.Deregister(agent=worker.id))
    assert await world.held() == {}
    assert await world.status(later) == ["queued"]
    with pytest.raises(CoordinatorError) as stale:
        await world.run(jobs.Complete(**own)) if end != "complete" else await world.release(worker, 1, "src/")
    assert stale.value.code in ("ZC320", "ZC311", "ZC202")


async def test_locks_of_a_job_keep_no_worker_alive_and_no_expiry_ends_them(world: Locks) -> None:
    worker = await world.worker(ttl=MINUTE)
    job = await world.enqueue(locks=["src/"], deadline=DAY)
    await world.claim(worker)
    await world.tx.set_clock(30 * SECOND)
    await world.run(locks.Expire())
    assert set(await world.held()) == {"src/"}
    lives = await world.tx.connection.fetchval(
        "select expires_at - heartbeat_at from coordinator.agents where id = $1", worker.id
    )
    assert lives <= 2 * MINUTE
    await world.tx.set_clock(3 * MINUTE)
    await world.run(agents.Reap())
    assert await world.held() == {}
    assert (await world.shown(job)).status == "queued"


async def test_nobody_gets_the_lock_between_the_deadline_and_the_rescue(world: Locks) -> None:
    worker, other = await world.worker(ttl=DAY), await world.worker("v")
    await world.enqueue(locks=["src/"], deadline=MINUTE)
    await world.claim(worker)
    await world.tx.set_clock(2 * MINUTE)
    await world.run(locks.Expire())
    error = await refused(world.tx, locks.Acquire(project="default", resources=["src/a"], agent=other.id), "ZC310")
    assert "job " in error.message
    assert "of agent" in error.message
    await world.run(jobs.Rescue())
    await world.acquire(other, "src/a")


async def test_renewals_and_acquisitions_of_the_worker_do_not_shorten_its_locks(world: Locks) -> None:
    worker, other = await world.worker(), await world.worker("v")
    await world.enqueue(locks=["src/"], deadline=HOUR)
    (grant,) = await world.claim(worker)
    assert grant.tokens
    token = grant.tokens["src/"]
    renewed = await world.run(
        locks.Renew(project="default", resources=["src/"], agent=worker.id, tokens=[token], ttl=SECOND)
    )
    assert renewed[0].expires_at == grant.deadline_at
    await world.run(locks.Renew(project="default", resources=["src/"], agent=worker.id, tokens=[token]))
    assert await world.acquire(worker, "src/", owner=grant.owner, ttl=SECOND) == token
    await world.release(worker, token, "src/")
    await world.tx.set_clock(30 * SECOND)
    await world.run(locks.Expire())
    assert set(await world.held()) == {"src/"}
    await refused(world.tx, locks.Acquire(project="default", resources=["src/"], agent=other.id), "ZC310")
    await refused(world.tx, locks.Acquire(project="default", resources=["src/"], agent=worker.id, owner="job"), "ZC310")
    await world.release(worker, token, "src/")
    assert await world.held() == {}


async def test_an_attempt_may_lock_below_what_its_agent_holds(world: Locks) -> None:
    worker = await world.worker()
    await world.acquire(worker, "src/")
    await world.enqueue(locks=["src/a"])
    assert len(await world.claim(worker)) == 1


FREED = [
    ("src/a.py", "src/a.py"),
    ("src/", "src/a.py"),
    ("src/a.py", "src/"),
    ("src/*.py", "src/a.py"),
    ("src/a.py", "**/*.py"),
    ("name:deploy", "name:deploy"),
]


FREEING = ["release", "break", "expire", "deregister", "transaction"]


@pytest.mark.parametrize(
    ("theirs", "wanted", "how"),
    [(*pair, "release") for pair in FREED] + [(*pair, how) for how in FREEING[1:] for pair in FREED[1:3]],
)
async def test_whatever_frees_an_overlapping_lock_wakes_the_job(
    world: Locks, theirs: str, wanted: str, how: str
) -> None:
    worker, holder = await world.worker(), await world.worker("holder", job_types=[])
    token = await world.acquire(holder, theirs, ttl=MINUTE)
    job = await world.enqueue(locks=["other", wanted])
    assert await world.claim(worker) == []
    why = await world.why(job)
    assert 'agent "holder"' in why.sentence
    assert why.until is not None
    match how:
        case "release":
            await world.release(holder, token, theirs)
        case "break":
            await world.run(locks.Break(project="default", resource=theirs, reason="test"))
        case "expire":
            await world.tx.set_clock(2 * MINUTE)
            await world.run(locks.Expire())
        case "deregister":
            await world.run(agents.Deregister(agent=holder.id))
        case "transaction":
            release = {"verb": "lock_release", "resources": [theirs], "agent": str(holder.id), "tokens": [token]}
            await world.run(transactions.Run(project="default", writes=[release]))
    assert await world.status(job) == ["queued"]
    assert (await world.told())[-1] == ("job.enqueued", "default")
    assert len(await world.claim(worker)) == 1


async def test_each_slot_that_is_released_wakes_the_job(world: Locks) -> None:
    worker, one, two = await world.worker(), await world.worker("one"), await world.worker("two")
    tokens = [await world.acquire(agent, "name:gpu", slots=2) for agent in (one, two)]
    job = await world.enqueue(locks=["name:gpu"])
    assert await world.claim(worker) == []
    await world.run(locks.Resize(project="default", resource="name:gpu", slots=3))
    assert await world.claim(worker) == []
    await world.release(one, tokens[0], "name:gpu")
    assert await world.claim(worker) == []
    assert await world.status(job) == ["lock"]
    await world.release(two, tokens[1], "name:gpu")
    assert len(await world.claim(worker)) == 1


async def test_tickets_come_first_and_their_end_wakes_the_job(world: Locks) -> None:
    worker, one, two = await world.worker(), await world.worker("one"), await world.worker("two")
    token = await world.acquire(one, "a")
    waits, _ = await world.run(locks.Acquire(project="default", resources=["a", "b"], agent=two.id, wait=MINUTE))
    job = await world.enqueue(locks=["b"])
    assert await world.claim(worker) == []
    assert 'agent "two" has waited longer' in (await world.why(job)).sentence
    assert waits.ticket
    await world.run(locks.Cancel(project="default", ticket=waits.ticket, agent=two.id))
    assert await world.status(job) == ["queued"]
    await world.release(one, token, "a")


async def test_a_lock_delay_keeps_the_job_waiting(world: Locks) -> None:
    await world.tx.set_clock(0 * SECOND)
    worker, holder = await world.worker(), await world.worker("holder")
    await world.acquire(holder, "a", ttl=10 * SECOND, delay=10 * SECOND)
    job = await world.enqueue(locks=["a"])
    assert await world.claim(worker) == []
    await world.tx.set_clock(15 * SECOND)
    await world.run(locks.Expire())
    assert await world.status(job) == ["lock"]
    await world.tx.set_clock(MINUTE)
    await world.run(jobs.WakeDue())
    assert len(await world.claim(worker)) == 1


async def test_of_many_that_want_the_same_a_release_wakes_the_best(world: Locks) -> None:
    worker, holder = await world.worker(), await world.worker("holder")
    token = await world.acquire(holder, "src/")
    same = [await world.enqueue(locks=["src/a"], priority=priority) for priority in (0, 2, 1)]
    apart = await world.enqueue(locks=["src/b"])
    elsewhere = await world.enqueue(locks=["src/a"], queue="elsewhere")
    assert await world.claim(worker, 100) == []
    assert await world.status(*same, apart, elsewhere) == ["lock"] * 5
    await world.release(holder, token, "src/")
    assert await world.status(*same, apart, elsewhere) == ["lock", "queued", "lock", "queued", "queued"]
    first = await world.claim(worker, 100)
    assert [grant.id for grant in first] == [same[1].id, apart.id]
    assert await world.status(elsewhere) == ["lock"]
    await world.run(jobs.Complete(**held(worker, first[:1])))
    assert await world.status(same[0], same[2], elsewhere) == ["lock", "queued", "queued"]


async def test_a_woken_job_passes_its_turn_on_if_something_else_blocks_it(world: Locks) -> None:
    worker, holder = await world.worker(), await world.worker("holder")
    a, b = await world.acquire(holder, "a"), await world.acquire(holder, "b")
    both, one = await world.enqueue(locks=["a", "b"], priority=1), await world.enqueue(locks=["a"])
    assert await world.claim(worker, 10) == []
    await world.release(holder, a, "a")
    assert await world.status(both, one) == ["queued", "lock"]
    assert [grant.id for grant in await world.claim(worker, 10)] == [one.id]
    assert await world.status(both) == ["lock"]
    await world.release(holder, b, "b")
    assert await world.claim(worker, 10) == []


@pytest.mark.parametrize("end", ["cancel", "expire"])
async def test_a_woken_job_that_ends_passes_its_turn_on(world: Locks, end: str) -> None:
    worker, holder = await world.worker(), await world.worker("holder")
    token = await world.acquire(holder, "src/")
    start_by = (await world.enqueue(type="y")).scheduled_at + MINUTE
    first = await world.enqueue(locks=["src/a"], priority=1, start_by=start_by)
    second = await world.enqueue(locks=["src/a"])
    assert await world.claim(worker, types=["x"]) == []
    await world.release(holder, token, "src/")
    assert await world.status(first, second) == ["queued", "lock"]
    if end == "cancel":
        await world.run(jobs.Cancel(project="default", job=first.id))
    else:
        await world.tx.set_clock(2 * MINUTE)
        await world.run(jobs.Expire())
    assert await world.status(second) == ["queued"]


@pytest.mark.parametrize("end", ["cancel", "expire", "replace"])
async def test_a_job_that_waits_for_a_lock_can_end(world: Locks, end: str) -> None:
    worker, holder = await world.worker(), await world.worker("holder")
    await world.acquire(holder, "a", ttl=HOUR)
    start_by = (await world.enqueue(type="y")).scheduled_at + MINUTE
    job = await world.enqueue(locks=["a"], dedupe_key="k", start_by=start_by)
    assert await world.claim(worker, types=["x"]) == []
    match end:
        case "cancel":
            await world.run(jobs.Cancel(project="default", job=job.id))
        case "expire":
            await world.tx.set_clock(2 * MINUTE)
            await world.run(jobs.Expire())
        case _:
            await world.enqueue(dedupe_key="k", on_duplicate="replace")
    assert (await world.shown(job)).status == ("expired" if end == "expire" else "cancelled")
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_lock_waits") == 0


async def test_a_claim_that_finds_many_jobs_without_their_locks_continues_with_others(world: Locks) -> None:
    worker, holder = await world.worker(), await world.worker("holder")
    token = await world.acquire(holder, "a")
    await world.run(batch_of([{"type": "x", "locks": ["a"], "priority": 1}] * 60))
    free = [await world.enqueue() for _ in range(3)]
    grants = await world.claim(worker, 2)
    assert [grant.id for grant in grants] == [free[0].id, free[1].id]
    assert await world.status(free[2]) == ["queued"]
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_lock_waits") == 60
    await world.release(holder, token, "a")
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_lock_waits") == 59


async def test_a_claim_lets_a_thousand_jobs_wait_and_then_wakes_workers_again(world: Locks) -> None:
    worker, holder = await world.worker(), await world.worker("holder")
    await world.acquire(holder, "a")
    await world.run(batch_of([{"type": "x", "locks": ["a"], "priority": 1}] * 1010))
    free = await world.enqueue()
    assert await world.claim(worker) == []
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_lock_waits") == 1000
    assert (await world.told())[-1] == ("job.enqueued", "default")
    assert [grant.id for grant in await world.claim(worker)] == [free.id]


async def test_a_claim_that_exceeds_its_bytes_gives_the_locks_back(world: Locks) -> None:
    worker = await world.worker()
    large = "x" * 250_000
    made = [await world.enqueue(payload=large, locks=[f"f{n}"]) for n in range(6)]
    first = await world.claim(worker, 6)
    assert [grant.id for grant in first] == [job.id for job in made[:4]]
    assert set(await world.held()) == {"f0", "f1", "f2", "f3"}
    assert len(await world.claim(worker, 6)) == 2


async def test_a_deadlock_through_an_attempt_is_found(world: Locks) -> None:
    worker, other = await world.worker(), await world.worker("other")
    await world.enqueue(locks=["a"])
    (grant,) = await world.claim(worker)
    await world.acquire(other, "b")
    await world.run(locks.Acquire(project="default", resources=["b"], agent=worker.id, owner=grant.owner, wait=MINUTE))
    await refused(world.tx, locks.Acquire(project="default", resources=["a"], agent=other.id, wait=MINUTE), "ZC313")
    await world.run(jobs.Complete(**held(worker, [grant])))
    assert await world.tx.connection.fetchval("select count(*) from coordinator.lock_waits") == 0
    await world.acquire(other, "a")


async def test_a_broken_lock_leaves_the_attempt_running(world: Locks) -> None:
    worker, other = await world.worker(), await world.worker("other")
    await world.enqueue(locks=["a"])
    (grant,) = await world.claim(worker)
    await world.run(locks.Break(project="default", resource="a", reason="test"))
    token = await world.acquire(other, "a")
    await world.run(jobs.Complete(**held(worker, [grant])))
    assert await world.tx.connection.fetchval("select fencing_token from coordinator.locks") == token


async def test_a_retried_job_has_the_same_locks(world: Locks) -> None:
    worker = await world.worker()
    first = await world.enqueue(locks=["a", "src/"], max_attempts=1)
    await world.run(jobs.Fail(**held(worker, await world.claim(worker)), error="no"))
    (again,) = await world.run(job_history.Retry(project="default", job=first.id))
    assert (await world.shown(again.id)).locks == ["a", "src/"]


async def test_jobs_of_a_fair_queue_wait_for_locks_too(world: Locks) -> None:
    await world.run(queues.Set(project="default", queue="q", fair_by="key"))
    worker = await world.worker()
    made = [await world.enqueue(queue="q", key=key, locks=["a"]) for key in ("k", "k", "l")]
    grants = await world.claim(worker, 10)
    assert len(grants) == 1
    done = {grants[0].id}
    for _ in range(2):
        await world.run(jobs.Complete(**held(worker, grants)))
        grants = await world.claim(worker, 10)
        assert len(grants) == 1
        done.add(grants[0].id)
    assert done == {job.id for job in made}


BAD: list[tuple[Any, str, str]] = [
    (["../x"], "ZC103", ".."),
    (["/etc"], "ZC103", "absolute"),
    ([""], "ZC101", ""),
    (["a\\b"], "ZC103", "\\"),
    (["x" * 1025], "ZC102", ""),
    (["/".join("a" * 33)], "ZC102", "33 segments"),
    (["*" + "?" * 17], "ZC102", "wildcards"),
    ([f"f{n}" for n in range(101)], "ZC102", "101 resources"),
    (["a[b"], "ZC103", "unclosed"),
    (["line\nbreak"], "ZC103", ""),
]


@pytest.mark.parametrize(("given", "code", "text"), BAD)
async def test_malformed_locks_are_refused_and_the_job_is_named(world: Locks, given: Any, code: str, text: str) -> None:
    error = await refused(world.tx, jobs.Enqueue(project="default", type="x", locks=given), code)
    assert text in error.message
    many = batch_of([{"type": "x"}, {"type": "x", "locks": given}])
    error = await refused(world.tx, many, code)
    assert error.detail
    assert '"job": 1' in error.detail
    assert await world.tx.connection.fetchval("select count(*) from coordinator.jobs_open") == 0


@pytest.mark.parametrize("given", ["src/", 1, {"a": 1}, [["a"], "b"], [None], ["a\0b"]])
async def test_locks_that_are_not_a_list_of_texts_are_refused(world: Locks, given: Any) -> None:
    with pytest.raises(CoordinatorError) as raised:
        await world.run(batch_of([{"type": "x", "locks": given}]))
    assert raised.value.hint
    assert await world.tx.connection.fetchval("select count(*) from coordinator.jobs_open") == 0


async def test_locks_are_written_once_and_may_overlap(world: Locks) -> None:
    worker = await world.worker()
    job = await world.enqueue(locks=["src/a", "./src/a", "src/", "src/*", "src/a"])
    assert (await world.shown(job)).locks == ["src/", "src/*", "src/a"]
    (grant,) = await world.claim(worker)
    assert grant.tokens
    assert set(grant.tokens) == {"src/", "src/*", "src/a"}
    await world.run(jobs.Complete(**held(worker, [grant])))
    assert await world.held() == {}


async def test_a_hundred_locks_are_all_or_none(world: Locks) -> None:
    worker, holder = await world.worker(), await world.worker("holder")
    token = await world.acquire(holder, "f099")
    await world.enqueue(locks=[f"f{n:03}" for n in range(100)])
    assert await world.claim(worker) == []
    assert set(await world.held()) == {"f099"}
    await world.release(holder, token, "f099")
    (grant,) = await world.claim(worker)
    assert grant.tokens
    assert len(grant.tokens) == len(await world.held()) == 100


async def test_an_empty_list_of_locks_is_none(world: Locks) -> None:
    worker = await world.worker()
    await world.enqueue(locks=[])
    (grant,) = await world.claim(worker)
    assert grant.tokens is None
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_classes where locks") == 0


async def test_a_job_without_locks_ends_what_its_attempt_acquired(world: Locks) -> None:
    worker = await world.worker()
    await world.enqueue()
    (grant,) = await world.claim(worker)
    mine = await world.acquire(worker, "a", owner=grant.owner)
    await world.acquire(worker, "b", owner="job/other")
    await world.run(jobs.Complete(**held(worker, [grant])))
    assert mine
    assert set(await world.held()) == {"b"}


async def test_the_rule_for_paths_applies_to_jobs(world: Locks) -> None:
    await world.run(projects.Set(project="default", paths="caseless"))
    worker, holder = await world.worker(), await world.worker("holder")
    token = await world.acquire(holder, "SRC/A")
    job = await world.enqueue(locks=["Src/a"])
    assert (await world.shown(job)).locks == ["src/a"]
    assert await world.claim(worker) == []
    await world.release(holder, token, "src/A")
    assert len(await world.claim(worker)) == 1


async def test_locks_of_an_ended_attempt_that_were_left_are_swept(world: Locks) -> None:
    worker = await world.worker()
    job = await world.enqueue(locks=["a"])
    await world.claim(worker)
    later = await world.enqueue(locks=["a"])
    assert await world.claim(worker) == []
    await world.run(locks.Expire())
    assert set(await world.held()) == {"a"}
    await world.tx.connection.execute("delete from coordinator.jobs_running where id = $1", job.id)
    await world.run(locks.Expire())
    assert await world.held() == {}
    assert (await world.shown(later.id)).status == "queued"


async def stream(world: Locks) -> tuple[Any, JobReceipt, list[JobGrant]]:
    """Return a worker, a job that has waited 40 seconds for a directory, and the attempts that have parts of it."""
    worker = await world.worker()
    for part in ("src/a", "src/b"):
        await world.enqueue(locks=[part])
    grants = await world.claim(worker, 2)
    large = await world.enqueue(locks=["src/", "name:deploy"], priority=-5)
    assert await world.claim(worker, 5) == []
    await world.tx.set_clock(40 * SECOND)
    await world.tx.connection.execute("select coordinator.job_wake_due()")
    assert await world.claim(worker, 5) == []
    return worker, large, grants


async def test_a_job_does_not_starve_behind_jobs_that_take_parts_of_its_directory(world: Locks) -> None:
    worker, large, grants = await stream(world)
    small = [await world.enqueue(locks=[part]) for part in ("src/c", "src/**/*.py", "src/c/d/")]
    others = [await world.enqueue(locks=[part]) for part in ("docs/", "name:deploy")]
    passing = await world.claim(worker, 9)
    assert {grant.id for grant in passing} == {job.id for job in others}
    assert await world.status(large, *small) == ["lock"] * 4
    assert f"lets job {large.id} go before it" in (await world.why(small[0])).sentence
    for grant in [*grants, *passing]:
        await world.run(jobs.Complete(**held(worker, [grant])))
    (first,) = await world.claim(worker, 9)
    assert first.id == large.id
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_lock_turns") == 0
    await world.run(jobs.Complete(**held(worker, [first])))
    assert (await world.claim(worker, 9))[0].id in {job.id for job in small}


async def test_a_turn_ends_with_its_job_and_lapses_if_nobody_takes_it(world: Locks) -> None:
    worker, large, _ = await stream(world)
    small = await world.enqueue(locks=["src/c"])
    assert await world.claim(worker) == []
    await world.run(jobs.Cancel(project="default", job=large.id))
    assert [grant.id for grant in await world.claim(worker)] == [small.id]


async def test_a_turn_lapses_if_no_worker_looks_at_its_job(world: Locks) -> None:
    worker, _, _ = await stream(world)
    small = await world.enqueue(locks=["src/c"])
    assert await world.claim(worker) == []
    await world.tx.set_clock(102 * SECOND)
    await world.tx.connection.execute("update coordinator.jobs_waiting set due_at = null where id <> $1", small.id)
    await world.tx.connection.execute("select coordinator.job_wake_due()")
    assert [grant.id for grant in await world.claim(worker)] == [small.id]


async def test_a_lock_of_an_agent_gives_no_turn(world: Locks) -> None:
    worker = await world.worker()
    await world.acquire(await world.worker("other"), "src/a", ttl=DAY)
    await world.enqueue(locks=["src/"])
    assert await world.claim(worker) == []
    await world.tx.set_clock(40 * SECOND)
    await world.tx.connection.execute("select coordinator.job_wake_due()")
    small = await world.enqueue(locks=["src/c"])
    assert [grant.id for grant in await world.claim(worker, 5)] == [small.id]


RESOURCES = [
    "src/", "src/a", "src/a/", "src/a/b.py", "src/*.py", "src/**/*.py", "src/a/*", "docs/", "docs/x.md", "**/*.md", "path:src/[a]", "glob:doc*/x.md",
    "name:src", "name:deploy", "**",
]  # fmt: skip


async def test_two_resources_overlap_if_a_lock_on_one_blocks_the_other(world: Locks) -> None:
    found = await world.tx.connection.fetch(
        """select a, b, coordinator.lock_overlaps(coordinator.lock_parse(a), coordinator.lock_parse(b)) as overlap
           from unnest($1::text[]) a cross join unnest($1::text[]) b""",
        RESOURCES,
    )
    overlaps = {(row["a"], row["b"]): row["overlap"] for row in found}
    worker = await world.worker()
    for first in RESOURCES:
        token = await world.acquire(worker, first)
        rows = await world.tx.connection.fetch(
            """select r, exists (select from coordinator.lock_overlapping(p.id, coordinator.lock_parse(r), false)) as overlap
               from unnest($1::text[]) r cross join coordinator.projects p where p.name = 'default'""",
            RESOURCES,
        )
        await world.release(worker, token, first)
        assert {row["r"]: row["overlap"] for row in rows} == {other: overlaps[first, other] for other in RESOURCES}, (
            first
        )
