"""Races of jobs with locks: no wake-up is lost, and neither claims nor ends wait for strangers."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.operations import agents, jobs, locks, queues
from tests.concurrency.test_job_race import claim, enqueue, held, places, worker
from tests.conftest import Open
from tests.waiting import DEADLINE_S, until_blocked

MINUTE = timedelta(minutes=1)
SETTLED = "create or replace function coordinator.server_settled() returns boolean language sql stable return true"


async def acquire(connection: asyncpg.Connection, agent: Any, *resources: str, **fields: Any) -> int:
    request = locks.Acquire(
        project="default", resources=list(resources), agent=agent.id, **{"ttl": timedelta(days=1), **fields}
    )
    token = (await call(connection, request))[0].fencing_token
    assert token
    return token


def release(agent: Any, token: int, *resources: str) -> locks.Release:
    return locks.Release(project="default", resources=list(resources), agent=agent.id, tokens=[token])


async def look(connection: asyncpg.Connection, after: timedelta) -> None:
    """Do what the loops do, this long from now."""
    async with connection.transaction():
        await connection.execute(
            "select set_config('coordinator.fake_now', (clock_timestamp() + $1)::text, true)", after
        )
        await call(connection, locks.Expire())
        await call(connection, jobs.WakeDue())
        await call(connection, jobs.Promote())


FREEING = ["release", "break", "deregister", "expire", "complete", "rescue"]


async def freeing(connection: asyncpg.Connection, how: str) -> tuple[Any, Any]:
    """Let somebody hold src/; return the call that frees it, and the worker for others."""
    holder, other = await worker(connection, "holder"), await worker(connection, "other")
    if how in ("complete", "rescue"):
        await connection.execute(SETTLED)
        await call(connection, enqueue(locks=["src/"]))
        grants = await call(connection, claim(holder))
        if how == "complete":
            return jobs.Complete(**held(holder, grants)), other
        await connection.execute("update coordinator.jobs_running set deadline_at = now()")
        return jobs.Rescue(), other
    token = await acquire(connection, holder, "src/")
    return {
        "release": release(holder, token, "src/"),
        "break": locks.Break(project="default", resource="src/", reason="test"),
        "deregister": agents.Deregister(agent=holder.id),
        "expire": locks.Expire(),
    }[how], other


async def free(connection: asyncpg.Connection, how: str, operation: Any) -> None:
    if how == "expire":
        await connection.execute("select set_config('coordinator.fake_now', (now() + interval '2 days')::text, false)")
    await call(connection, operation)
    await connection.execute("reset coordinator.fake_now")


@pytest.mark.parametrize("how", FREEING)
async def test_what_frees_a_lock_while_a_job_begins_to_wait_for_it_wakes_the_job(session: Open, how: str) -> None:
    one, two, watcher = await session(), await session(), await session()
    operation, other = await freeing(one, how)
    job = await call(one, enqueue(locks=["src/a"]))
    async with one.transaction():
        grants = await call(one, claim(other, 10))
        assert [grant.id for grant in grants if grant.id == job.id] == []
        task = asyncio.create_task(free(two, how, operation))
        if how in ("release", "break"):
            await until_blocked(watcher, two)  # it looks for who waits under the same key
        else:
            await asyncio.wait_for(task, DEADLINE_S)
    await task
    if how not in ("release", "break"):
        await free(one, "expire", locks.Expire())  # what was kept is handed on by the loop
    assert await places(one, job.id) == ["jobs_ready"]


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("how", FREEING)
async def test_a_claim_while_the_lock_is_being_freed_does_not_wait_and_tries_again(
    session: Open, how: str, commit: bool
) -> None:
    one, two = await session(), await session()
    operation, other = await freeing(one, how)
    job, plain = await call(one, enqueue(locks=["src/a"])), await call(one, enqueue())
    transaction = one.transaction()
    await transaction.start()
    await free(one, how, operation)
    grants = await asyncio.wait_for(call(two, claim(other, 10)), DEADLINE_S)
    assert plain.id in [grant.id for grant in grants]
    assert await places(two, job.id) == ["jobs_waiting"]
    due = await two.fetchval("select due_at - clock_timestamp() from coordinator.jobs_waiting where id = $1", job.id)
    assert due <= timedelta(seconds=1)
    await (transaction.commit() if commit else transaction.rollback())
    await look(two, timedelta(seconds=1))
    grants = await call(two, claim(other, 10))
    assert (job.id in [grant.id for grant in grants]) == commit
    if not commit:
        assert await places(two, job.id) == ["jobs_waiting"]
        await free(two, how, operation)
        assert await places(two, job.id) == ["jobs_ready"]


async def test_a_claim_waits_for_no_transaction_that_holds_the_key(session: Open) -> None:
    one, two = await session(), await session()
    agent, other = await worker(one), await worker(one, "other")
    job, plain = await call(one, enqueue(locks=["src/", "b"])), await call(one, enqueue())
    async with one.transaction():
        token = await acquire(one, other, "src/a")
        grants = await asyncio.wait_for(call(two, claim(agent, 2)), DEADLINE_S)
        assert [grant.id for grant in grants] == [plain.id]
        assert await places(two, job.id) == ["jobs_waiting"]
        assert await two.fetchval("select count(*) from coordinator.locks") == 0
    await look(two, timedelta(seconds=1))
    assert await call(two, claim(agent, 2)) == []
    await call(two, release(other, token, "src/a"))
    assert len(await call(two, claim(agent, 2))) == 1


async def test_of_two_claims_for_the_same_locks_one_gets_them_and_the_other_continues(session: Open) -> None:
    one, two = await session(), await session()
    first, second = await worker(one, "first"), await worker(one, "second")
    made = [await call(one, enqueue(locks=["name:deploy"])) for _ in range(2)]
    plain = await call(one, enqueue())
    async with one.transaction():
        mine = await call(one, claim(first))
        theirs = await asyncio.wait_for(call(two, claim(second, 2)), DEADLINE_S)
    assert [grant.id for grant in [*mine, *theirs]] == [made[0].id, plain.id]
    assert await places(one, made[1].id) == ["jobs_waiting"]
    await call(one, jobs.Complete(**held(first, mine)))
    assert [grant.id for grant in await call(two, claim(second))] == [made[1].id]


async def test_the_end_of_an_attempt_waits_for_no_transaction_that_holds_the_key(session: Open) -> None:
    one, two = await session(), await session()
    agent, other = await worker(one), await worker(one, "other")
    await call(one, enqueue(locks=["src/"]))
    (grant,) = await call(one, claim(agent))
    assert grant.tokens
    later = await call(one, enqueue(locks=["src/"]))
    assert await call(one, claim(other)) == []
    async with two.transaction():
        waits = locks.Acquire(project="default", resources=["docs/", "src"], agent=other.id, wait=MINUTE)
        assert not (await call(two, waits))[0].granted
        await asyncio.wait_for(call(one, jobs.Complete(**held(agent, [grant]))), DEADLINE_S)
        with pytest.raises(CoordinatorError):
            await call(one, locks.Assert(project="default", resource="src/", token=grant.tokens["src/"]))
    assert await places(one, later.id) == ["jobs_waiting"]
    await look(one, timedelta(0))  # the ticket comes first
    assert await one.fetchval("select owner from coordinator.locks where resource = 'src'") == ""


async def test_nobody_gets_the_lock_while_a_guarded_transaction_of_the_ended_attempt_is_open(session: Open) -> None:
    one, two = await session(), await session()
    agent, other = await worker(one), await worker(one, "other")
    await call(one, enqueue(locks=["a"]))
    (grant,) = await call(one, claim(agent))
    assert grant.tokens
    job = await call(one, enqueue(locks=["a"]))
    async with two.transaction():
        await call(two, locks.Assert(project="default", resource="a", token=grant.tokens["a"]))
        await asyncio.wait_for(call(one, jobs.Release(**held(agent, [grant]))), DEADLINE_S)
        assert await asyncio.wait_for(call(one, claim(other, 10)), DEADLINE_S) == []
        await look(one, timedelta(seconds=1))
        assert await call(one, claim(other, 10)) == []
    await look(one, timedelta(seconds=2))
    assert len(await call(one, claim(other, 10))) == 1
    assert await places(one, job.id) == ["jobs_waiting"]


async def test_a_guarded_attempt_keeps_its_locks_when_its_agent_ends(session: Open) -> None:
    one, two = await session(), await session()
    await one.execute(SETTLED)
    agent, other = await worker(one), await worker(one, "other")
    first = await call(one, enqueue(locks=["a"]))
    (grant,) = await call(one, claim(agent))
    later = await call(one, enqueue(locks=["a"]))
    async with two.transaction():
        await call(two, jobs.Assert(project="default", job=first.id, fence=grant.fence))
        await call(one, agents.Deregister(agent=agent.id))
        await look(one, timedelta(0))
        assert await call(one, claim(other, 10)) == []
        assert await places(one, first.id) == ["jobs_running"]
    await call(one, jobs.Rescue())
    assert await places(one, later.id) == ["jobs_ready"]
    assert len(await call(one, claim(other, 10))) == 1


async def test_a_wake_up_waits_for_no_lane_and_is_done_by_the_loop(session: Open) -> None:
    one, two = await session(), await session()
    await call(one, queues.Set(project="default", queue="q", fair_by="key"))
    agent, other = await worker(one), await worker(one, "other")
    token = await acquire(one, other, "a")
    job = await call(one, enqueue(queue="q", key="k", locks=["a"]))
    assert await call(one, claim(agent)) == []
    async with two.transaction():
        await call(two, enqueue(queue="q", key="k", locks=["b"]))  # another class of its own, or the same lane
        await asyncio.wait_for(call(one, release(other, token, "a")), DEADLINE_S)
    await look(one, timedelta(seconds=1))
    assert await places(one, job.id) == ["jobs_ready"]


SETS = [["src/"], ["src/a"], ["src/b", "name:x"], ["src/*"], ["name:x"], ["lib/c", "src/a"], ["**/c"]]
CONFLICTS = """
    select count(*) from coordinator.locks l join coordinator.locks m on m.fencing_token > l.fencing_token
    where l.free_at > clock_timestamp() and m.free_at > clock_timestamp() and l.ended_at is null and m.ended_at is null
      and exists (select from coordinator.lock_overlapping(l.project_id, coordinator.lock_parse(l.resource), false) o
                  where o.resource = m.resource and o.fencing_token = m.fencing_token)"""


class Scramble:
    """Workers, holders and loops at random, until all jobs are done."""

    def __init__(self, session: Open, seed: int, jobs: int) -> None:
        self.session, self.seed, self.left = session, seed, jobs

    async def work(self, number: int) -> None:
        chance = random.Random(self.seed * 100 + number)
        connection = await self.session()
        agent = await worker(connection, f"w{number}")
        while self.left > 0:
            grants = await call(connection, claim(agent, chance.choice([1, 1, 3])))
            if not grants:
                await asyncio.sleep(0.005)
            for grant in grants:
                assert grant.tokens
                if chance.random() < 0.2:
                    await call(connection, jobs.Release(**held(agent, [grant])))
                else:
                    await call(connection, jobs.Complete(**held(agent, [grant])))
                    self.left -= 1

    async def hold(self, number: int) -> None:
        chance = random.Random(self.seed * 100 + number)
        connection = await self.session()
        agent = await worker(connection, f"h{number}")
        while self.left > 0:
            wanted = chance.choice(SETS)
            try:
                token = await acquire(connection, agent, *wanted)
            except CoordinatorError as error:
                assert error.code == "ZC310", error
                await asyncio.sleep(0.002)
                continue
            await asyncio.sleep(chance.random() * 0.01)
            if chance.random() < 0.2:
                await call(connection, agents.Deregister(agent=agent.id))
                agent = await worker(connection, f"h{number}")
            else:
                await call(connection, release(agent, token, *wanted))
            await asyncio.sleep(chance.random() * 0.02)

    async def loop(self) -> None:
        """Do what the loops do, and look for two that hold what overlaps."""
        connection = await self.session()
        while self.left > 0:
            await call(connection, locks.Expire())
            await call(connection, jobs.WakeDue())
            await call(connection, jobs.Promote())
            assert await connection.fetchval(CONFLICTS) == 0
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.long)])
async def test_at_random_no_two_hold_what_overlaps_and_no_job_stays_asleep(
    session: Open, seed: int, count: int
) -> None:
    first = await session()
    await first.execute(SETTLED)
    chance = random.Random(seed)
    for _ in range(count):
        await call(first, enqueue(locks=chance.choice(SETS), max_attempts=1000))
    scramble = Scramble(session, seed, count)
    async with asyncio.timeout(DEADLINE_S * max(1, count / 100)):
        await asyncio.gather(
            *(scramble.work(n) for n in range(3)), *(scramble.hold(n) for n in range(10, 12)), scramble.loop()
        )
    assert await first.fetchval("select count(*) from coordinator.jobs_ended where status = 'completed'") == count
    assert await first.fetchval("select count(*) from coordinator.locks where free_at = 'infinity'") == 0
    assert await first.fetchval("select count(*) from coordinator.job_lock_waits") == 0
