"""Races of budgets: claims, reports and ends of several workers at the same time."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.model.agent import Agent
from coordinator.model.job import JobCharge, JobGrant, JobOutcome
from coordinator.model.operation import Operation
from coordinator.operations import agents, jobs, limits
from tests.conftest import Open
from tests.sql.test_races import outcomes, while_uncommitted

P = "default"
DAY = timedelta(days=1)


async def worker(connection: asyncpg.Connection, name: str = "w") -> Agent:
    return await call(connection, agents.Register(project=P, name=name, job_types=["x"], ttl=DAY))


async def enqueue(connection: asyncpg.Connection, count: int, **fields: Any) -> None:
    await call(connection, jobs.EnqueueMany(project=P, jobs=[{"type": "x", **fields}] * count))


def two(agent: Agent) -> Any:
    return jobs.Claim(project=P, agent=agent.id, limit=2)


async def told(connection: asyncpg.Connection, type: str) -> int:
    return int(await connection.fetchval("select count(*) from coordinator.events where type = $1", type))


async def test_of_many_claims_at_once_no_more_start_than_the_budget_pays(session: Open) -> None:
    admin = await session()
    await call(admin, limits.Set(project=P, name="b", budget=100, type="x", reserve=9))
    await enqueue(admin, 40)
    workers = [await worker(admin, f"w{number}") for number in range(6)]
    claims: list[Operation[list[JobGrant]]] = [jobs.Claim(project=P, agent=agent.id, limit=5) for agent in workers]
    grants = [grant for answer in await outcomes(session, claims) for grant in answer]  # type: ignore[union-attr]
    assert len(grants) == 11
    assert (await call(admin, limits.Show(project=P, name="b"))).used == 99


async def test_a_claim_waits_for_another_one_and_sees_what_it_reserved(session: Open) -> None:
    admin = await session()
    await call(admin, limits.Set(project=P, name="b", budget=10, type="x", reserve=6))
    await enqueue(admin, 2)
    first, second = [two(await worker(admin, name)) for name in ("a", "b")]
    got, then = await while_uncommitted(session, first, second)
    assert isinstance(got, list)
    assert (len(got), then) == (1, [])


async def test_a_claim_that_is_rolled_back_reserved_nothing(session: Open) -> None:
    admin = await session()
    await call(admin, limits.Set(project=P, name="b", budget=10, type="x", reserve=6))
    await enqueue(admin, 2)
    first, second = [two(await worker(admin, name)) for name in ("a", "b")]
    _, then = await while_uncommitted(session, first, second, commit=False)
    assert isinstance(then, list)
    assert len(then) == 1


async def test_of_many_reports_at_once_one_says_that_the_budget_is_exhausted(session: Open) -> None:
    admin = await session()
    await call(admin, limits.Set(project=P, name="b", budget=60, type="x", on_exhausted="cancel"))
    await enqueue(admin, 8)
    agent = await worker(admin)
    grants = await call(admin, jobs.Claim(project=P, agent=agent.id, limit=8))
    reports: list[Operation[JobCharge]] = [
        jobs.Spend(project=P, job=grant.id, agent=agent.id, fence=grant.fence, budget="b", amount=10)
        for grant in grants
    ]
    assert not [report for report in await outcomes(session, reports) if isinstance(report, CoordinatorError)]
    assert await told(admin, "limit.exhausted") == 1
    assert (await call(admin, limits.Show(project=P, name="b"))).used == 80
    await enqueue(admin, 1)
    assert await call(admin, jobs.Claim(project=P, agent=agent.id)) == []
    assert await admin.fetchval("select count(*) from coordinator.jobs_running where cancel_at is null") == 0


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_snapshot_shows_more_reserved_than_claims_may_and_nothing_deadlocks(session: Open, seed: int) -> None:
    """Workers claim, report, complete, fail and release in any order, over two budgets that they need in any order."""
    admin = await session()
    await call(admin, limits.Set(project=P, name="b", budget=50, type="x", reserve=7))
    await call(admin, limits.Set(project=P, name="c", budget=30))
    await enqueue(admin, 60, limits={"c": 4}, backoff=0)
    await enqueue(admin, 60, backoff=0)
    over: list[asyncpg.Record] = []
    stopped = asyncio.Event()

    async def work(name: str) -> None:
        connection, rng = await session(), random.Random(f"{seed} {name}")
        agent = await worker(connection, name)
        held: list[JobGrant] = []
        for _ in range(40):
            done, held = held[: rng.randint(0, len(held))], held[:]
            held = held[len(done) :]
            for grant in held:
                fields: dict[str, Any] = {"project": P, "job": grant.id, "agent": agent.id, "fence": grant.fence}
                if rng.random() < 0.3:
                    await call(connection, jobs.Spend(**fields, budget="b", amount=rng.randint(0, 2)))
            for grant in done[: len(done) // 2]:
                fields = {"project": P, "job": grant.id, "agent": agent.id, "fence": grant.fence}
                end: Operation[JobOutcome] = (
                    jobs.Release(**fields) if rng.random() < 0.5 else jobs.Fail(**fields, error="e")
                )
                await call(connection, end)
            finished = done[len(done) // 2 :]
            held += [
                grant
                for grant in await call(
                    connection,
                    jobs.Claim(
                        project=P,
                        agent=agent.id,
                        limit=rng.randint(1, 4),
                        finished=[grant.id for grant in finished],
                        fences=[grant.fence for grant in finished],
                        results=[None] * len(finished),
                    ),
                )
                if not grant.stale
            ]
            if rng.random() < 0.2:  # room for what follows
                await call(connection, limits.Refill())

    async def watch() -> None:
        connection = await session()
        while not stopped.is_set():
            over.extend(
                await connection.fetch(
                    "select l.name, sum(greatest(c.reserved, c.spent)) from coordinator.job_charges c"
                    " join coordinator.job_limits l on l.id = c.limit_id group by l.name, l.budget"
                    " having sum(greatest(c.reserved, c.spent)) > l.budget"
                )
            )

    async def renew() -> None:
        """Forget what was settled, as a new period does."""
        connection = await session()
        while not stopped.is_set():
            await connection.execute("delete from coordinator.job_charges where job_id is null")
            await asyncio.sleep(0.01)

    beside = [asyncio.create_task(one) for one in (watch(), renew())]
    await asyncio.gather(*(work(f"w{number}") for number in range(4)))
    stopped.set()
    await asyncio.gather(*beside)
    assert over == []
    assert (
        await admin.fetchval(
            "select count(*) from coordinator.job_charges c"
            " where c.job_id is not null and not exists (select from coordinator.jobs_running r where r.id = c.job_id)"
        )
        == 0
    )
