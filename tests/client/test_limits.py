from __future__ import annotations

from datetime import timedelta

import pytest

import coordinator
from coordinator.errors import Conflict, InvalidArgument, NotFound


async def test_a_limit_is_set_shown_held_released_listed_and_deleted(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="boss") as client:
        made = await client.limits.set("openai", rate=500, per=60, burst=50)
        assert (made.kind, made.rate, made.per, made.burst) == ("rate", 500, timedelta(minutes=1), 50)
        assert (made.actor, made.free, made.held_until) == ("boss", 50, None)
        changed = await client.limits.set("openai", burst=20)
        assert (changed.rate, changed.burst) == (500, 20)
        held = await client.limits.hold("openai", ttl=30, reason="429")
        assert (held.held_by, held.hold_reason) == ("boss", "429")
        assert held.held_until is not None
        assert (await client.limits.show("openai")).held_until == held.held_until
        released = await client.limits.release("openai")
        assert (released.held_until, released.hold_reason) == (None, None)
        await client.limits.set("builds", slots=2, queue="builds", per_key=True)
        assert [limit.name async for limit in client.limits.list()] == ["builds", "openai"]
        with pytest.raises(Conflict):
            await client.limits.set("builds", budget=5)
        assert await client.limits.delete("openai")
        assert not await client.limits.delete("openai")
        with pytest.raises(NotFound):
            await client.limits.show("openai")


async def test_each_key_has_a_rate_and_a_budget(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="coder", job_types=["x"]) as client:
        await client.limits.set("calls", rate=1, per=3600, burst=2, type="x", per_key=True)
        await client.limits.set("dollars", budget=10, reserve=2, type="x", per_key=True)
        await client.jobs.enqueue_many([{"type": "x", "key": key} for key in "aab"])
        grants = await client.jobs.claim(5)
        charge = await client.jobs.spend(next(grant for grant in grants if grant.key == "b"), "dollars", 7)
        assert (charge.spent, charge.free) == (7, 3)
        assert (await client.limits.show("calls")).keys == [{"key": "a", "free": 0}, {"key": "b", "free": 1}]
        dollars = await client.limits.show("dollars")
        assert (dollars.free, dollars.keys) == (None, [{"key": "b", "free": 3}, {"key": "a", "free": 6}])


async def test_a_tree_has_a_limit(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="coder", job_types=["x"]) as client:
        root = await client.jobs.enqueue("root")
        await client.jobs.enqueue_many([{"type": "x", "parent": root.id}] * 3)
        made = await client.limits.set("review", slots=1, tree=root.id)
        assert (made.tree, made.free) == (root.id, 1)
        (grant,) = await client.jobs.claim(5)
        assert [job.waiting_for async for job in client.jobs.list(status=["waiting"])] == ["limit", "limit"]
        assert (await client.limits.show("review")).waiting_count == 2
        with pytest.raises(InvalidArgument):
            await client.limits.set("other", slots=1, tree=grant.id)


async def test_a_tree_has_a_budget_and_a_rate(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="coder", job_types=["x"]) as client:
        root = await client.jobs.enqueue("root")
        await client.jobs.enqueue_many([{"type": "x", "parent": root.id}] * 4)
        await client.limits.set("dollars", budget=10, reserve=5, tree=root.id)
        made = await client.limits.set("calls", rate=3, per=3600, tree=root.id)
        assert (made.tree, made.kind, made.free) == (root.id, "rate", 3)
        first, _ = await client.jobs.claim(5)
        charge = await client.jobs.spend(first, "dollars", 1)
        assert (charge.spent, charge.free) == (1, 0)
        await client.jobs.complete(first)
        assert (await client.limits.show("dollars")).free == 4
        waiting = [job.id async for job in client.jobs.list(status=["waiting"])]
        assert "dollars" in (await client.jobs.why(waiting[0])).sentence


async def test_a_job_says_what_it_costs_and_its_worker_what_it_spent(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="coder", job_types=["x"]) as client:
        await client.limits.set("dollars", budget=100, period="day", reserve=10, on_exhausted="cancel")
        await client.limits.set("calls", slots=5)
        await client.jobs.enqueue("x", limits={"dollars": 60})
        await client.jobs.enqueue_many([{"type": "x", "limits": ["dollars", "calls"]}])
        first, second = await client.jobs.claim(5)
        dollars = await client.limits.show("dollars")
        assert (dollars.used, dollars.free) == (70, 30), "the second does not say its cost, and reserves 10"
        assert dollars.users == [{"type": "x", "key": None, "used": 70}]
        charge = await client.jobs.spend(first, "dollars", 20)
        assert (charge.spent, charge.reserved, charge.free, charge.cancel_at) == (20, 60, 30, None)
        await client.jobs.complete(first)
        assert (await client.limits.show("dollars")).used == 30
        charge = await client.jobs.spend(second, "dollars", 200)
        assert (charge.spent, charge.free) == (200, 0)
        assert charge.cancel_at is not None
        with pytest.raises(InvalidArgument):
            await client.jobs.spend(second, "calls", 1)
        with pytest.raises(NotFound):
            await client.jobs.enqueue("x", limits=["dolars"])
        with pytest.raises(InvalidArgument):
            await client.jobs.enqueue("x", limits={"dollars": 101})
