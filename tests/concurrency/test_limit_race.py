"""Limits under races: in no snapshot do more jobs run than a limit allows, and in none is a slot missing or double."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import pytest

from tests.conftest import Open
from tests.waiting import DEADLINE_S, until_blocked

SNAPSHOT = """
select l.name, l.slots, l.surplus, (select count(*) from coordinator.job_slots s where s.limit_id = l.id) as free,
       (select count(*) from coordinator.jobs_running r where l.id = any (r.slots)) as used,
       (select count(*) from coordinator.jobs_running r join coordinator.job_classes c on c.id = r.class_id
        where l.id = any (c.limit_ids))
       + (select count(*) from coordinator.jobs_running r join coordinator.jobs_open j on j.id = r.id where j.root_id = l.tree or j.id = l.tree) as running
from coordinator.job_limits l where not l.per_key order by l.name"""
SETTLED = "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
KEYS = """
select j.queue, j.key, count(*) as running from coordinator.jobs_running r join coordinator.jobs_open j on j.id = r.id
where j.key is not null group by 1, 2"""

LIMITS = {
    "of_queue": {"queue": "a", "slots": 4},
    "of_type": {"type": "y", "slots": 3},
    "named": {"slots": 2},
    "of_keys": {"queue": "keyed", "per_key": True, "slots": 2},
    "of_fair_keys": {"queue": "fair", "per_key": True, "slots": 1},
}


async def limit(connection: asyncpg.Connection, name: str, **fields: Any) -> None:
    given = "".join(f", p_{field} => ${place}" for place, field in enumerate(fields, 2))
    await connection.execute(f"select coordinator.limit_set('default', $1{given})", name, *fields.values())


class Worker:
    def __init__(self, connection: asyncpg.Connection, name: str, rng: random.Random) -> None:
        self.connection = connection
        self.name = name
        self.rng = rng
        self.agent: UUID | None = None
        self.held: dict[UUID, int] = {}

    async def register(self) -> None:
        self.agent = await self.connection.fetchval(
            "select id from coordinator.agent_register('default', $1, p_job_types => '{x,y}', p_ttl => '1 day')",
            self.name,
        )
        self.held = {}

    async def claim(self) -> None:
        finished = self.rng.sample(sorted(self.held), self.rng.randint(0, len(self.held)))
        grants = await self.connection.fetch(
            "select id, fence, stale from coordinator.job_claim('default', $1, $2, p_finished => $3, p_fences => $4, p_results => $5)",
            self.agent, self.rng.randint(1, 6), finished, [self.held[job] for job in finished], [1] * len(finished),
        )  # fmt: skip
        for job in finished:
            del self.held[job]
        self.held.update({grant["id"]: grant["fence"] for grant in grants if not grant["stale"]})

    async def end(self) -> None:
        if not self.held:
            return
        job = self.rng.choice(sorted(self.held))
        fence = self.held.pop(job)
        verb, more = self.rng.choice(
            [
                ("complete", ()),
                ("fail", ("boom",)),
                ("release", ()),
                ("fail", ("boom", True)),
                ("snooze", (timedelta(seconds=1),)),
            ]
        )
        places = "".join(f", ${place}" for place in range(4, 4 + len(more)))
        await self.connection.execute(
            f"select coordinator.job_{verb}('default', $1, $2, $3{places})", job, self.agent, fence, *more
        )

    async def step(self) -> None:
        """Do something, and now and then commit it late, or not at all."""
        before = dict(self.held)
        late = self.rng.random()
        transaction = self.connection.transaction() if late < 0.4 else None
        if transaction:
            await transaction.start()
        draw = self.rng.random()
        if draw < 0.55:
            await self.claim()
        elif draw < 0.9:
            await self.end()
        elif draw < 0.95:
            await self.connection.execute("select coordinator.job_reconcile('default', $1, '{}', '0')", self.agent)
            if transaction is None or late >= 0.1:
                self.held = {}
        elif transaction is None:
            await self.connection.execute("select coordinator.agent_deregister($1)", self.agent)
            await self.register()
        if transaction:
            await anyio.sleep(self.rng.random() * 0.01)
            if late < 0.1:
                await transaction.rollback()
                self.held = before
            else:
                await transaction.commit()


LOOKS = 10  # at least, however slow the machine is


async def watched(
    connection: asyncpg.Connection, done: asyncio.Event, enough: asyncio.Event, asked: dict[str, list[int]]
) -> None:
    """Look at snapshots, until the work is done; `asked` has the slots that were set since the last look."""
    looks = 0
    before: dict[str, int] = {}  # the greater of used and allowed
    while not done.is_set():
        earlier = {name: max(slots) for name, slots in asked.items()}
        for row in await connection.fetch(SNAPSHOT):
            assert row["free"] + row["used"] == row["slots"] + row["surplus"], (
                dict(row),
                "a slot is missing or double",
            )
            assert row["used"] == row["running"], (dict(row), "an attempt runs without its slot")
            name = row["name"]
            most = max(row["slots"], before.get(name, 0), earlier[name], *asked[name])
            assert row["used"] <= most, (dict(row), "a job started above the limit")
            before[name] = max(row["used"], row["slots"])
            asked[name][:] = asked[name][-1:]
        for row in await connection.fetch(KEYS):
            slots = {"keyed": 2, "fair": 1}.get(row["queue"])
            assert slots is None or row["running"] <= slots, dict(row)
        looks += 1
        if looks > LOOKS:
            enough.set()


async def enqueued(connection: asyncpg.Connection, jobs: int, rng: random.Random, root: str) -> None:
    while jobs > 0:
        count = min(jobs, rng.randint(1, 5))
        orders = [
            {
                "type": rng.choice("xy"),
                "queue": rng.choice(["a", "b", "keyed", "fair"]),
                "key": rng.choice([None, "k1", "k2", "k3"]),
                "backoff": 0,
                "max_attempts": 50,
                "limits": rng.choice([[], [], ["named"]]),
                "priority": rng.randint(0, 2),
                **({"parent": root} if rng.random() < 0.3 else {}),
            }
            for _ in range(count)
        ]
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("select coordinator.job_enqueue_many('default', $1)", orders)
        await anyio.sleep(rng.random() * 0.02)
        if rng.random() < 0.1:
            await transaction.rollback()
        else:
            await transaction.commit()
            jobs -= count


async def resized(
    connection: asyncpg.Connection, done: asyncio.Event, rng: random.Random, asked: dict[str, list[int]]
) -> None:
    while not done.is_set():
        name, slots = rng.choice(sorted(asked)), rng.randint(1, 6)
        asked[name].append(slots)
        await limit(connection, name, slots=slots)
        await anyio.sleep(rng.random() * 0.03)


@pytest.mark.parametrize("jobs", [120, pytest.param(3000, marks=pytest.mark.long)])
async def test_no_snapshot_has_more_running_jobs_than_a_limit_allows_and_no_job_is_left(
    session: Open, seed: int, jobs: int
) -> None:
    rng = random.Random(seed)
    admin, watcher, resizer, promoter, *enqueuers = [await session() for _ in range(6)]
    await admin.execute("select coordinator.queue_set('default', 'fair', p_fair_by => 'key')")
    await admin.execute(SETTLED)
    for name, fields in LIMITS.items():
        await limit(admin, name, **fields)
    root = await admin.fetchval("select id from coordinator.job_enqueue('default', 'z')")
    await limit(admin, "of_tree", tree=root, slots=2)
    workers = [Worker(await session(), f"w{number}", random.Random(rng.random())) for number in range(5)]
    for worker in workers:
        await worker.register()
    done, enough = asyncio.Event(), asyncio.Event()
    asked = {name: [int(fields["slots"])] for name, fields in LIMITS.items() if "per_key" not in fields} | {
        "of_tree": [2]
    }

    async def work(worker: Worker) -> None:
        while not done.is_set():
            await worker.step()

    async def promote() -> None:
        while not done.is_set():
            for loop in ("job_promote", "job_rescue", "limit_refill", "job_wake_due"):
                await promoter.execute(f"select coordinator.{loop}()")
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched, watcher, done, enough, asked)
        tasks.start_soon(resized, resizer, done, random.Random(rng.random()), asked)
        tasks.start_soon(promote)
        for worker in workers:
            tasks.start_soon(work, worker)
        async with anyio.create_task_group() as feeding:
            for connection in enqueuers:
                feeding.start_soon(enqueued, connection, jobs // len(enqueuers), random.Random(rng.random()), str(root))
        await asyncio.wait_for(enough.wait(), DEADLINE_S)
        done.set()
    await drained(admin, workers)


LEFT = """
select j.id, w.cause, w.sentence from coordinator.jobs_open j cross join lateral coordinator.job_why('default', j.id) w
where j.type <> 'z'"""


async def drained(admin: asyncpg.Connection, workers: list[Worker]) -> None:
    for worker in workers:
        await worker.connection.execute("select coordinator.job_reconcile('default', $1, '{}', '0')", worker.agent)
        worker.held = {}
    left = await admin.fetchval("select count(*) from coordinator.jobs_open where type <> 'z'")
    # What an agent's end left because a claim shared it.
    while await admin.fetchval("select coordinator.job_rescue()"):
        pass
    await admin.execute("update coordinator.jobs_later set due_at = now() - interval '1 s'")
    # A job that waits for a slot of its tree goes by this when it is woken.
    await admin.execute("update coordinator.jobs_open set scheduled_at = now() where scheduled_at > now()")
    while await admin.fetchval("select coordinator.job_promote()"):
        pass
    while left:
        await admin.execute("update coordinator.job_limit_waits set due_at = now() where due_at > now()")
        for loop in ("limit_refill", "job_wake_due"):
            await admin.execute(f"select coordinator.{loop}()")
        for worker in workers:
            await worker.claim()
        for worker in workers:
            finished = sorted(worker.held)
            await worker.connection.fetch(
                "select coordinator.job_claim('default', $1, 0, p_finished => $2, p_fences => $3, p_results => $4)",
                worker.agent, finished, [worker.held[job] for job in finished], [1] * len(finished),
            )  # fmt: skip
            worker.held = {}
        rest = await admin.fetchval("select count(*) from coordinator.jobs_open where type <> 'z'")
        assert rest < left, f"no claim gets one of {[tuple(row) for row in await admin.fetch(LEFT)]}"
        left = rest
    for row in await admin.fetch(SNAPSHOT):
        assert (row["used"], row["free"] - row["surplus"]) == (0, row["slots"])


class Two:
    """Sessions of two workers, and of somebody who looks."""

    def __init__(self, first: Worker, second: Worker, admin: asyncpg.Connection) -> None:
        self.first = first
        self.second = second
        self.admin = admin

    async def enqueue(self, jobs: int = 1, connection: asyncpg.Connection | None = None, **fields: Any) -> None:
        orders = [{"type": "x", "queue": "q", **fields}] * jobs
        await (connection or self.admin).execute("select coordinator.job_enqueue_many('default', $1)", orders)

    async def claim(self, worker: Worker, limit: int = 10) -> list[asyncpg.Record]:
        query = "select id, fence from coordinator.job_claim('default', $1, $2)"
        return await worker.connection.fetch(query, worker.agent, limit)

    async def complete(self, worker: Worker, grant: asyncpg.Record) -> None:
        await worker.connection.execute(
            "select coordinator.job_complete('default', $1, $2, $3)", grant["id"], worker.agent, grant["fence"]
        )

    async def free(self) -> tuple[int, int]:
        (row,) = await self.admin.fetch(SNAPSHOT)
        assert row["free"] + row["used"] == row["slots"] + row["surplus"]
        return row["free"], row["used"]


@pytest.fixture
async def two(session: Open) -> Two:
    workers = [Worker(await session(), name, random.Random(1)) for name in ("first", "second")]
    for worker in workers:
        await worker.register()
    return Two(*workers, await session())


@asynccontextmanager
async def uncommitted(worker: Worker, *, commit: bool = True) -> AsyncIterator[None]:
    transaction = worker.connection.transaction()
    await transaction.start()
    yield
    await (transaction.commit() if commit else transaction.rollback())


async def test_claims_share_permits_without_waiting_and_a_rollback_gives_them_back(two: Two) -> None:
    await limit(two.admin, "l", slots=3, queue="q")
    await two.enqueue(2)
    async with uncommitted(two.first, commit=False):
        assert len(await two.claim(two.first)) == 2
        await two.enqueue(5)
        assert len(await two.claim(two.second)) == 1
        assert await two.free() == (2, 1)
    assert await two.free() == (2, 1)
    assert len(await two.claim(two.second)) == 2


@pytest.mark.parametrize("slots", [1, 4])
async def test_slots_change_only_between_claims(two: Two, slots: int) -> None:
    await limit(two.admin, "l", slots=3, queue="q")
    await two.enqueue(9)
    async with uncommitted(two.first):
        assert len(await two.claim(two.first, 2)) == 2
        change = asyncio.create_task(limit(two.second.connection, "l", slots=slots))
        await until_blocked(two.admin, two.second.connection)
    await change
    assert len(await two.claim(two.first)) == max(0, slots - 2)


async def test_a_limit_that_is_set_while_an_attempt_ends_does_not_count_it(two: Two) -> None:
    await two.enqueue(3)
    (grant,) = await two.claim(two.first, 1)
    async with uncommitted(two.first):
        await two.complete(two.first, grant)
        change = asyncio.create_task(limit(two.second.connection, "l", slots=2, queue="q"))
        await until_blocked(two.admin, two.second.connection)
    await change
    assert await two.free() == (2, 0)
    assert len(await two.claim(two.first)) == 2


async def test_a_class_that_is_made_while_a_limit_is_set_knows_it(two: Two) -> None:
    async with uncommitted(two.first):
        await two.enqueue(3, two.first.connection)
        change = asyncio.create_task(limit(two.second.connection, "l", slots=1, type="x"))
        await until_blocked(two.admin, two.second.connection)
    await change
    assert len(await two.claim(two.first)) == 1


async def test_a_lane_that_appears_while_the_attempt_ends_that_fills_its_key_does_not_sleep(two: Two) -> None:
    await limit(two.admin, "k", slots=1, queue="q", per_key=True)
    await two.enqueue(key="a")
    (grant,) = await two.claim(two.first)
    async with uncommitted(two.first):
        await two.complete(two.first, grant)  # it has looked for lanes, and there is none
        await two.enqueue(key="a")
        assert await two.claim(two.second) == []
    assert len(await two.claim(two.second)) == 1


async def test_an_end_waits_for_the_claim_that_finds_its_key_full_and_then_finds_the_lane(two: Two) -> None:
    await limit(two.admin, "k", slots=2, queue="q", per_key=True)
    await two.enqueue(3, key="a")
    (grant,) = await two.claim(two.first, 1)
    async with uncommitted(two.second):
        assert len(await two.claim(two.second)) == 1
        end = asyncio.create_task(two.complete(two.first, grant))
        await until_blocked(two.admin, two.first.connection)
    await end
    assert len(await two.claim(two.first)) == 1


async def test_of_two_claims_of_one_key_one_goes_first_and_the_lane_stays_in_the_line(two: Two) -> None:
    await limit(two.admin, "k", slots=2, queue="q", per_key=True)
    for kind in "xy":
        await two.enqueue(2, key="a", type=kind)
    async with uncommitted(two.first):
        assert len(await two.claim(two.first, 1)) == 1
        assert await two.claim(two.second) == []
    assert len(await two.claim(two.second)) == 1
    assert await two.claim(two.first) == []


async def test_an_idle_worker_that_met_a_claim_of_the_same_keys_is_woken_at_the_next_look_of_the_loop(two: Two) -> None:
    await limit(two.admin, "k", slots=2, queue="q", per_key=True)
    await two.enqueue(2, key="a")
    refill = "select coordinator.limit_refill()"
    async with uncommitted(two.first):
        assert len(await two.claim(two.first, 1)) == 1
        assert await two.claim(two.second) == []
    assert (await two.admin.fetchval(refill), await two.admin.fetchval(refill)) == (1, 0)
    freed = "select count(*) from coordinator.events where type = 'limit.freed' and key = 'k'"
    assert await two.admin.fetchval(freed) == 1
    assert len(await two.claim(two.second)) == 1


async def test_a_lane_whose_claim_is_rolled_back_stays_in_the_line(two: Two) -> None:
    await limit(two.admin, "k", slots=1, queue="q", per_key=True)
    await two.enqueue(2, key="a")
    async with uncommitted(two.first, commit=False):
        assert len(await two.claim(two.first)) == 1
        assert await two.claim(two.second) == []
    assert len(await two.claim(two.second)) == 1


async def test_a_job_that_finds_its_tree_full_while_an_attempt_ends_is_woken_by_the_loop(two: Two) -> None:
    root = await two.admin.fetchval("select id from coordinator.job_enqueue('default', 'z')")
    await limit(two.admin, "t", tree=root, slots=1)
    await two.enqueue(parent=str(root))
    (grant,) = await two.claim(two.first)
    await two.enqueue(2, parent=str(root))
    async with uncommitted(two.first):
        await two.complete(two.first, grant)  # nobody waits yet
        assert await two.claim(two.second) == []  # nor is the permit free
    assert await two.free() == (1, 0)
    assert await two.admin.fetchval("select coordinator.limit_refill()") == 1
    assert len(await two.claim(two.second)) == 1


@pytest.mark.parametrize(
    "gauge", [{"budget": 3, "reserve": 1}, {"rate": 3.0, "per": timedelta(days=1)}], ids=["budget", "rate"]
)
async def test_claims_of_one_rate_or_budget_of_a_tree_take_turns(two: Two, gauge: dict[str, Any]) -> None:
    root = await two.admin.fetchval("select id from coordinator.job_enqueue('default', 'z')")
    await limit(two.admin, "t", tree=root, **gauge)
    await two.enqueue(2, parent=str(root))
    async with uncommitted(two.first):
        assert len(await two.claim(two.first)) == 2
        await two.enqueue(2, parent=str(root))
        claim = asyncio.create_task(two.claim(two.second))
        await until_blocked(two.admin, two.second.connection)
    assert len(await claim) == 1
    shown = await two.admin.fetchrow("select free, waiting_count from coordinator.limit_show('default', 't')")
    assert shown is not None
    assert (shown["free"], shown["waiting_count"]) == (0, 1)


async def test_a_claim_that_has_rates_of_trees_waits_for_no_other(two: Two) -> None:
    """Two claims that look twice, each for the tree that the other one has, would wait for each other."""
    trees = [await two.admin.fetchval("select id from coordinator.job_enqueue('default', 'z')") for _ in range(2)]
    for number, root in enumerate(trees):
        await limit(two.admin, f"t{number}", tree=root, rate=1.0, per=timedelta(days=1), burst=1)
    await two.enqueue(parent=str(trees[0]))
    assert len(await two.claim(two.first)) == 1
    await two.enqueue(parent=str(trees[0]), priority=1)  # its tree has no token left: the claim looks again
    for kind in "xy":
        await two.enqueue(parent=str(trees[1]), type=kind)
    async with uncommitted(two.first):
        query = "select from coordinator.job_claim('default', $1, 1, p_types => '{y}')"
        assert len(await two.first.connection.fetch(query, two.first.agent)) == 1
        assert await two.claim(two.second, 1) == []
    causes = await two.admin.fetch(
        "select cause from coordinator.jobs_waiting union all select 'ready' from coordinator.jobs_ready"
    )
    assert sorted(row["cause"] for row in causes) == ["limit", "ready", "ready", "ready"]  # with both roots


async def test_an_end_wakes_jobs_that_wait_for_the_budget_of_its_tree(two: Two) -> None:
    root = await two.admin.fetchval("select id from coordinator.job_enqueue('default', 'z')")
    await limit(two.admin, "t", tree=root, budget=1, reserve=1)
    await two.enqueue(parent=str(root))
    (grant,) = await two.claim(two.first)
    await two.enqueue(parent=str(root))
    async with uncommitted(two.second):
        assert await two.claim(two.second) == []  # the job begins to wait
        await two.first.connection.execute(
            "select coordinator.job_release('default', $1, $2, $3)", grant["id"], two.first.agent, grant["fence"]
        )  # nobody waits yet
    assert await two.admin.fetchval("select coordinator.limit_refill()") == 1
    assert len(await two.claim(two.second)) == 1


async def test_claims_share_the_permits_of_a_tree_without_waiting(two: Two) -> None:
    root = await two.admin.fetchval("select id from coordinator.job_enqueue('default', 'z')")
    await limit(two.admin, "t", tree=root, slots=3)
    await two.enqueue(2, parent=str(root))
    async with uncommitted(two.first, commit=False):
        assert len(await two.claim(two.first)) == 2
        await two.enqueue(5, parent=str(root))
        assert len(await two.claim(two.second)) == 1
    assert await two.free() == (2, 1)
    assert len(await two.claim(two.second)) == 2


async def test_a_limit_that_is_set_while_a_claim_runs_counts_its_jobs(two: Two) -> None:
    root = await two.admin.fetchval("select id from coordinator.job_enqueue('default', 'z')")
    await two.enqueue(4, parent=str(root))
    async with uncommitted(two.first):
        assert len(await two.claim(two.first, 2)) == 2
        change = asyncio.create_task(limit(two.second.connection, "t", tree=root, slots=3))
        await until_blocked(two.admin, two.second.connection)
    await change
    assert await two.free() == (1, 2)
    assert len(await two.claim(two.first)) == 1
