"""Rates and budgets per key under races: no key gets more than its own, and none sleeps while it has some."""

from __future__ import annotations

import random
import time
from uuid import UUID

import anyio
import asyncpg

from tests.concurrency.test_limit_race import Worker, limit
from tests.conftest import Open
from tests.waiting import until_blocked

KEYS = ["a", "b", "c"]
CHARGED = """
select max(t.used) from (select sum(greatest(c.reserved, c.spent)) as used from coordinator.job_charges c group by c.hash) t"""


async def fleet(session: Open, seed: int, jobs: int, **fields: object) -> tuple[asyncpg.Connection, list[Worker]]:
    admin = await session()
    await limit(admin, "k", queue="q", per_key=True, **fields)
    orders = [{"type": kind, "queue": "q", "key": key} for kind in "xy" for key in KEYS] * (jobs // 2)
    await admin.execute("select coordinator.job_enqueue_many('default', $1)", orders)
    workers = [Worker(await session(), f"w{place}", random.Random(seed + place)) for place in range(4)]
    for worker in workers:
        await worker.register()
    return admin, workers


async def paused(admin: asyncpg.Connection, function: str, statement: str) -> None:
    """Let this function wait for the advisory lock 42 before a statement."""
    text = await admin.fetchval("select pg_get_functiondef(('coordinator.' || $1)::regproc)", function)
    assert text.count(statement) == 1
    await admin.execute(text.replace(statement, f"  perform pg_advisory_xact_lock_shared(42);\n{statement}"))


async def test_no_key_gets_more_tokens_than_came_in_and_none_sleeps(session: Open, seed: int) -> None:
    rate, burst, jobs = 25.0, 2, 16
    began = time.monotonic()
    admin, workers = await fleet(session, seed, jobs, rate=rate, burst=burst)

    async def work(worker: Worker) -> None:
        while await admin_left():  # claims alone, without the loop that wakes them
            await worker.claim()
            await anyio.sleep(0.01)

    async def admin_left() -> bool:
        async with lock:
            return bool(await admin.fetchval("select exists (select from coordinator.jobs_open)"))

    lock = anyio.Lock()
    async with anyio.create_task_group() as tasks:
        for worker in workers:
            tasks.start_soon(work, worker)
    ended = time.monotonic() - began
    starts = await admin.fetch(
        "select key, count(*) as jobs, extract(epoch from max(started_at) - min(started_at)) as s from coordinator.jobs group by key"
    )
    assert {row["key"]: row["jobs"] for row in starts} == dict.fromkeys(KEYS, jobs)
    assert jobs <= burst + rate * ended


async def test_of_no_key_more_is_reserved_and_spent_than_its_budget_and_none_sleeps(session: Open, seed: int) -> None:
    admin, workers = await fleet(session, seed, 20, budget=10, reserve=3)
    seen: list[int] = []
    ended: dict[UUID, bool] = {}

    async def work(worker: Worker) -> None:
        while len(ended) < 8 * len(KEYS):  # each costs 1, and the ninth finds 2 left
            before = dict(worker.held)
            for job, fence in before.items():
                await worker.connection.execute(
                    "select coordinator.job_spend('default', $1, $2, $3, 'k', 1)", job, worker.agent, fence
                )
            transaction = worker.connection.transaction()
            await transaction.start()
            for job, fence in before.items():
                await worker.connection.execute(
                    "select coordinator.job_complete('default', $1, $2, $3)", job, worker.agent, fence
                )
            await anyio.sleep(worker.rng.random() * 0.005)
            await transaction.commit()
            ended.update(dict.fromkeys(before, True))
            worker.held = {}
            grants = await worker.connection.fetch(
                "select id, fence from coordinator.job_claim('default', $1, $2)", worker.agent, worker.rng.randint(1, 5)
            )
            worker.held = {grant["id"]: grant["fence"] for grant in grants}

    async def watch() -> None:
        while len(ended) < 8 * len(KEYS):
            seen.append(await admin.fetchval(CHARGED) or 0)
            await anyio.sleep(0.005)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for worker in workers:
            tasks.start_soon(work, worker)
    assert max(seen) <= 10
    counts = await admin.fetch(
        "select key, count(*) as jobs from coordinator.jobs where status = 'completed' group by key"
    )
    assert {row["key"]: row["jobs"] for row in counts} == dict.fromkeys(KEYS, 8)
    assert await admin.fetchval("select count(*) from coordinator.jobs_running") == 0


async def test_a_lane_returns_to_the_line_although_a_claim_counted_the_attempt_that_ended(
    session: Open, seed: int
) -> None:
    """The attempt ends after the claim has counted it, and before the claim can lock it."""
    admin, holding, ending, claiming = [await session() for _ in range(4)]
    await limit(admin, "k", queue="q", per_key=True, slots=1)
    orders = [
        {"type": kind, "queue": "q", "key": "a"} for kind in "xy"
    ]  # two lanes: the first claim takes one out of the line
    await admin.execute("select coordinator.job_enqueue_many('default', $1)", orders)
    worker = Worker(claiming, "w", random.Random(seed))
    await worker.register()
    claim = "select id, fence from coordinator.job_claim('default', $1, 1)"
    (grant,) = await claiming.fetch(claim, worker.agent)
    await paused(admin, "limit_hold_full", "  if v_hashes is null then")
    await holding.execute("select pg_advisory_lock(42)")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(claiming.fetch, claim, worker.agent)
        await until_blocked(admin, claiming)
        await ending.execute(
            "select coordinator.job_complete('default', $1, $2, $3)", grant["id"], worker.agent, grant["fence"]
        )
        await holding.execute("select pg_advisory_unlock(42)")
    assert len(await claiming.fetch(claim, worker.agent)) == 1


async def test_a_claim_that_finds_all_keys_full_while_an_attempt_ends_is_woken_by_the_loop(
    session: Open, seed: int
) -> None:
    """Neither sees the other: the claim does not see the lane that the end brings back, nor the end that a claim lacked it."""
    admin, ending, claiming = [await session() for _ in range(3)]
    await limit(admin, "k", queue="q", per_key=True, slots=1)
    await admin.execute(
        "select coordinator.job_enqueue_many('default', $1)", [{"type": "x", "queue": "q", "key": "a"}] * 2
    )
    worker = Worker(claiming, "w", random.Random(seed))
    await worker.register()
    claim = "select id, fence from coordinator.job_claim('default', $1, 1)"
    (grant,) = await claiming.fetch(claim, worker.agent)
    transaction = ending.transaction()
    await transaction.start()
    await ending.execute(
        "select coordinator.job_complete('default', $1, $2, $3)", grant["id"], worker.agent, grant["fence"]
    )
    assert await claiming.fetch(claim, worker.agent) == []
    assert await admin.fetchval("select coordinator.limit_refill()") == 0, "all is as it was"
    await transaction.commit()
    assert "limit_refill" in await admin.fetchval("select coordinator.work_due()")
    assert await admin.fetchval("select coordinator.limit_refill()") == 1
    freed = await admin.fetchval("select count(*) from coordinator.events where type = 'limit.freed' and key = 'k'")
    assert freed == 1
    assert len(await claiming.fetch(claim, worker.agent)) == 1
    assert await claiming.fetch(claim, worker.agent) == []
    assert await admin.fetchval("select coordinator.limit_refill()") == 0, "nobody is woken in a loop"


CLAIM = "select id, fence, key from coordinator.job_claim('default', $1, $2, p_types => $3)"
COMPLETE = "select coordinator.job_complete('default', $1, $2, $3)"


async def test_a_key_that_a_claim_fills_in_its_second_round_is_not_forgotten_if_an_attempt_ends_meanwhile(
    session: Open, seed: int
) -> None:
    """The end finds three slots free, so the lane is in the line; the claim, which does not see the end, finds the key full."""
    admin, ending, claiming = [await session() for _ in range(3)]
    await limit(admin, "k", queue="q", per_key=True, slots=4)
    orders = [{"type": "x", "queue": "q", "key": "a"}] * 6
    await admin.execute("select coordinator.job_enqueue_many('default', $1)", orders)
    worker = Worker(claiming, "w", random.Random(seed))
    await worker.register()
    (grant,) = await claiming.fetch(CLAIM, worker.agent, 1, ["x"])
    transaction = ending.transaction()
    await transaction.start()
    await ending.execute(COMPLETE, grant["id"], worker.agent, grant["fence"])
    assert len(await claiming.fetch(CLAIM, worker.agent, 10, ["x"])) == 3
    await transaction.commit()
    assert len(await claiming.fetch(CLAIM, worker.agent, 10, ["x"])) == 1


async def test_a_permit_of_a_lane_that_was_deleted_meanwhile_is_in_nobodys_way(session: Open, seed: int) -> None:
    """The end of an attempt returns a lane to the line. Before it commits, a claim finds the lane empty, and deletes it."""
    admin, ending, claiming = [await session() for _ in range(3)]
    await limit(admin, "k", queue="q", per_key=True, slots=1)
    orders = [{"type": kind, "queue": "q", "key": "a"} for kind in "xy"]
    await admin.execute("select coordinator.job_enqueue_many('default', $1)", orders)
    worker = Worker(claiming, "w", random.Random(seed))
    await worker.register()
    (grant,) = await claiming.fetch(CLAIM, worker.agent, 1, ["x"])
    await admin.execute("select coordinator.job_cancel('default', id) from coordinator.jobs_open where type = 'y'")
    transaction = ending.transaction()
    await transaction.start()
    await ending.execute(COMPLETE, grant["id"], worker.agent, grant["fence"])
    assert await claiming.fetch(CLAIM, worker.agent, 1, ["y"]) == []
    await transaction.commit()
    lanes = "select (select count(*) from coordinator.job_lanes), (select count(*) from coordinator.job_permits)"
    assert [*await admin.fetchrow(lanes)] == [0, 1]
    await admin.execute(
        "select coordinator.job_enqueue_many('default', $1)", [{"type": "y", "queue": "q", "key": key} for key in "ab"]
    )
    assert [row["key"] for row in await claiming.fetch(CLAIM, worker.agent, 1, ["y"])] == ["a"]
    assert [row["key"] for row in await claiming.fetch(CLAIM, worker.agent, 1, ["y"])] == ["b"]
    assert [*await admin.fetchrow(lanes)] == [0, 0]
