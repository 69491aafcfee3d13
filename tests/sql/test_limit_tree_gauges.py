"""Rates and budgets of trees: how many jobs of one tree start in an interval, and what they cost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from coordinator.operations import jobs, limits
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_limit_trees import Trees

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


class Gauged(Trees):
    root: UUID

    async def grow(self, children: int, **limit: Any) -> UUID:
        self.root = await self.tree(children, slots=None)
        await self.limit("t", tree=self.root, **limit)
        return self.root

    async def left(self, name: str = "t") -> int | None:
        (row,) = await self.fetch("select free from coordinator.limit_show('default', $1)", name)
        free: int | None = row["free"]
        return free

    async def spend(self, grant: asyncpg.Record, amount: int, budget: str = "t") -> asyncpg.Record:
        (row,) = await self.fetch(
            "select * from coordinator.job_spend('default', $1, $2, $3, $4, $5)",
            grant["id"], await self.worker("w"), grant["fence"], budget, amount,
        )  # fmt: skip
        return row

    async def waiting(self) -> list[UUID]:
        return [row["id"] for row in await self.fetch("select id from coordinator.jobs_waiting order by id")]

    async def said(self, type: str) -> list[dict[str, Any]]:
        return [event["data"] for event in await self.tx.events() if event["type"] == type]


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(tx: Transaction) -> Gauged:
    await tx.set_clock(timedelta(0))  # no token comes in meanwhile
    return Gauged(tx)


async def test_no_more_jobs_of_a_tree_start_than_its_rate_has_tokens_and_others_pass_them(fleet: Gauged) -> None:
    await fleet.grow(5, rate=1.0, burst=2)
    await fleet.enqueue(2)
    assert len(await fleet.claim(10)) == 4
    assert await fleet.status() == {"running": 2, "limit": 3}
    assert await fleet.left() == 0
    assert await fleet.claim(10) == []


async def test_tokens_that_come_in_wake_jobs_at_the_next_claim_or_by_the_loop(fleet: Gauged) -> None:
    await fleet.grow(6, rate=1.0, burst=2)
    await fleet.claim(10)
    await fleet.tx.set_clock(SECOND)
    assert len(await fleet.claim(10)) == 1, "the claim looks for tokens itself"
    await fleet.tx.set_clock(3 * SECOND)
    assert "limit_refill" in await fleet.tx.connection.fetchval("select coordinator.work_due()")
    assert (await fleet.refill(), await fleet.refill()) == (2, 0)
    assert await fleet.status() == {"running": 3, "limit": 1, "queued": 2}
    assert len(await fleet.claim(10)) == 2
    assert "limit_refill" not in await fleet.tx.connection.fetchval("select coordinator.work_due()")


async def test_a_job_that_comes_later_does_not_overtake_one_that_waits_for_the_rate(fleet: Gauged) -> None:
    root = await fleet.grow(2, rate=1.0, burst=1)
    await fleet.claim(10)
    (first,) = await fleet.waiting()
    # As if another transaction had it.
    await fleet.fetch(
        "create or replace function coordinator.limit_wake_rates(p_project_id bigint, p_now timestamptz) returns void language sql volatile return null"
    )
    await fleet.tx.set_clock(SECOND / 2)
    await fleet.enqueue(1, parent=str(root))
    (best,) = await fleet.enqueue(1, parent=str(root), priority=1)
    await fleet.tx.set_clock(HOUR)
    assert [grant["id"] for grant in await fleet.claim(10)] == [best], "one of a higher priority goes first"
    await fleet.tx.set_clock(2 * HOUR)
    assert await fleet.claim(10) == [], "the other one waits behind the first"
    assert await fleet.refill() == 1
    assert [grant["id"] for grant in await fleet.claim(10)] == [first]


async def test_claims_reserve_of_the_budget_of_a_tree_and_an_end_frees_what_was_not_spent(fleet: Gauged) -> None:
    await fleet.grow(4, budget=100, reserve=40)
    first, second = await fleet.claim(10)
    assert await fleet.left() == 20
    assert await fleet.status() == {"running": 2, "limit": 2}
    charge = await fleet.spend(first, 5)
    assert (charge["spent"], charge["reserved"], charge["free"]) == (5, 40, 20)
    await fleet.verb("complete", first)
    assert await fleet.left() == 55
    assert await fleet.status() == {"completed": 1, "running": 1, "queued": 1, "limit": 1}, (
        "the end wakes as many as fit"
    )
    (third,) = await fleet.claim(10)
    assert await fleet.claim(10) == []
    await fleet.verb("complete", second)
    await fleet.verb("release", third)
    assert await fleet.left() == 55
    assert len(await fleet.claim(10)) == 1


async def test_the_root_and_jobs_of_every_queue_and_type_share_the_budget(fleet: Gauged) -> None:
    (root,) = await fleet.enqueue(1, priority=1)
    await fleet.enqueue(1, parent=str(root), queue="q", key="k")
    await fleet.enqueue(2, parent=str(root), type="y")
    await fleet.limit("t", tree=root, budget=3, reserve=1)
    assert sorted(grant["type"] for grant in await fleet.claim(10)) == ["x", "x", "y"]
    assert await fleet.left() == 0


async def test_an_exhausted_budget_stops_the_tree_and_asks_what_runs_to_stop(fleet: Gauged) -> None:
    await fleet.grow(3, budget=10, on_exhausted="cancel")
    first, second = await fleet.claim(2)
    assert (await fleet.spend(first, 12))["cancel_at"] is not None
    (asked,) = await fleet.said("job.cancel_requested")
    assert sorted(asked["ids"]) == sorted(str(grant["id"]) for grant in (first, second))
    assert await fleet.claim(10) == []
    assert await fleet.status() == {"running": 2, "limit": 1}
    (exhausted,) = await fleet.said("limit.exhausted")
    assert (exhausted["spent"], exhausted["budget"]) == (12, 10)
    await fleet.limit("t", budget=20)
    assert len(await fleet.claim(10)) == 1, "a larger budget wakes them"


async def test_a_new_period_wakes_the_tree(fleet: Gauged) -> None:
    await fleet.grow(2, budget=1, reserve=1, period="hour")
    await fleet.claim(10)
    assert await fleet.refill() == 0
    await fleet.tx.set_clock(HOUR)
    assert await fleet.refill() == 1
    assert len(await fleet.claim(10)) == 1


async def test_a_tree_has_slots_a_rate_and_a_budget_and_a_job_takes_all_of_them_or_none(fleet: Gauged) -> None:
    root = await fleet.grow(6, rate=1.0, burst=4)
    await fleet.limit("slots", tree=root, slots=3)
    await fleet.limit("budget", tree=root, budget=2, reserve=1)
    first, second = await fleet.claim(10)
    assert (await fleet.left(), await fleet.left("slots"), await fleet.left("budget")) == (2, 1, 0)
    await fleet.limit("budget", budget=10)
    assert len(await fleet.claim(10)) == 1
    assert (await fleet.left(), await fleet.left("slots"), await fleet.left("budget")) == (1, 0, 7)
    await fleet.verb("complete", first)
    await fleet.verb("complete", second)
    assert len(await fleet.claim(10)) == 1
    assert (await fleet.left(), await fleet.left("slots"), await fleet.left("budget")) == (0, 1, 6)


async def test_jobs_without_their_locks_give_tokens_and_reservations_back(fleet: Gauged) -> None:
    root = await fleet.grow(0, rate=1.0, burst=2)
    await fleet.limit("budget", tree=root, budget=2, reserve=1)
    await fleet.fetch("select coordinator.agent_register('default', 'holder', p_ttl => '1 day')")
    await fleet.fetch(
        "select coordinator.lock_acquire('default', '{src/}', coordinator.agent_find('default', 'holder'), p_ttl => '1 day')"
    )
    await fleet.enqueue(2, parent=str(root), priority=9, locks=["src/a"])
    free = await fleet.enqueue(2, parent=str(root))
    while len(started := await fleet.fetch("select id from coordinator.jobs_running order by id")) < 2:
        before = len(started)
        await fleet.claim(10)
        await fleet.refill()
        assert before < 2
    assert [row["id"] for row in started] == free
    assert (await fleet.left(), await fleet.left("budget")) == (0, 0)
    assert await fleet.status() == {"lock": 2, "running": 2}


async def test_a_held_rate_stops_its_tree_until_it_is_released(fleet: Gauged) -> None:
    await fleet.grow(2, rate=5.0)
    await fleet.fetch("select coordinator.limit_hold('default', 't', '1 hour', '429', 'boss')")
    assert await fleet.claim(10) == []
    (job, _) = await fleet.waiting()
    assert (await fleet.why(job))["sentence"].startswith('Limit "t" of its tree is held by "boss" until ')
    await fleet.fetch("select coordinator.limit_release('default', 't')")
    assert len(await fleet.claim(10)) == 2


async def test_why_names_what_is_left_of_the_tree(fleet: Gauged) -> None:
    root = await fleet.grow(2, budget=5, reserve=5)
    await fleet.claim(10)
    (job,) = await fleet.waiting()
    why = await fleet.why(job)
    assert (why["status"], why["cause"]) == ("waiting", "limit")
    assert why["sentence"] == 'Budget "t" of its tree has 0 of 5 left; the largest user is type "x" (5).'
    await fleet.limit("t", budget=50)
    await fleet.limit("r", tree=root, rate=2.0, per=HOUR, burst=1)
    assert len(await fleet.claim(10)) == 1
    await fleet.enqueue(1, parent=str(root))
    assert await fleet.claim(10) == []
    (job,) = await fleet.waiting()
    assert (await fleet.why(job))["sentence"] == 'Limit "r" of its tree lets 2 start in 1h, and has 0 left now.'


async def test_the_jobs_of_a_tree_start_when_its_rate_is_deleted_and_a_budget_ends_with_the_tree(fleet: Gauged) -> None:
    root = await fleet.grow(2, rate=1.0, burst=1)
    await fleet.limit("b", tree=root, budget=5, reserve=1)
    (first,) = await fleet.claim(10)
    await fleet.fetch("select coordinator.limit_delete('default', 't')")
    assert await fleet.wake_due() == 1
    (second,) = await fleet.claim(10)
    for grant in (first, second):
        await fleet.verb("complete", grant)
    await fleet.fetch("select coordinator.job_cancel('default', $1)", root)
    assert await fleet.tx.connection.fetchval("select coordinator.limit_prune()") == 1
    for table in ("job_limits", "job_buckets", "job_budgets", "job_charges", "job_tree_waits"):
        assert await fleet.fetch(f"select from coordinator.{table}") == [], table


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"rate": 5.0, "queue": "q"}, "ZC105", "a tree is given together with a queue"),
        ({"budget": 5, "per_key": True}, "ZC105", "a tree is given together with"),
        ({"budget": 5, "slots": 5}, "ZC105", "more than one of slots, rate and budget is given"),
        ({"budget": 5, "reserve": 6}, "ZC104", "a reserve of 6 is out of range"),
        ({"rate": float("nan")}, "ZC104", "a rate of NaN is out of range"),
        ({"rate": -1.0}, "ZC104", "a rate of -1 is out of range"),
        ({"budget": 7}, "ZC325", 'has the limit "t" of a budget'),
    ],
)
async def test_what_cannot_be_limited_is_refused(fleet: Gauged, fields: dict[str, Any], code: str, says: str) -> None:
    root = await fleet.grow(1, budget=5)
    error = await refused(fleet.tx, limits.Set(project="default", name="n", tree=root, **fields), code)
    assert says in error.message


async def test_a_job_of_another_tree_cannot_spend_the_budget_or_ask_for_it(fleet: Gauged) -> None:
    root = await fleet.grow(0, budget=5)
    await fleet.enqueue()
    (grant,) = await fleet.claim()
    spend = jobs.Spend(
        project="default", job=grant["id"], agent=await fleet.worker("w"), fence=grant["fence"], budget="t", amount=1
    )
    error = await refused(fleet.tx, spend, "ZC105")
    assert error.hint is not None
    assert str(root) in error.hint
    await refused(fleet.tx, jobs.Enqueue(project="default", type="x", parent=root, limits={"t": 1}), "ZC105")
