"""Rates and budgets per key: each key has its own; an empty one delays no other key, and continues when it can pay."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from coordinator.operations import jobs
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_limit_keys import BOTH, line
from tests.sql.test_limit_slots import Fleet


class Keys(Fleet):
    async def keyed(self, *, fair: bool = False, **fields: Any) -> None:
        await self.limit("k", **({"queue": "q", "per_key": True} | fields))
        if fair:
            await self.fetch("select coordinator.queue_set('default', 'q', p_fair_by => 'key')")

    async def each(self, jobs: int, keys: str = "ab", **fields: Any) -> None:
        for key in keys:
            await self.enqueue(jobs, queue="q", key=key, **fields)

    async def started(self, limit: int = 100, **fields: Any) -> dict[str | None, int]:
        return dict(Counter(grant["key"] for grant in await self.claim(limit, **fields)))

    async def value(self, sql: str) -> Any:
        return await self.tx.connection.fetchval(sql)

    async def at(self, seconds: float) -> None:
        await self.tx.set_clock(timedelta(seconds=seconds))

    async def refill(self) -> int:
        return int(await self.value("select coordinator.limit_refill()"))

    async def spend(self, grant: asyncpg.Record, amount: int) -> asyncpg.Record:
        (charge,) = await self.fetch(
            "select * from coordinator.job_spend('default', $1, $2, $3, 'k', $4)",
            grant["id"], self.workers["w"], grant["fence"], amount,
        )  # fmt: skip
        return charge

    async def show(self) -> asyncpg.Record:
        (row,) = await self.fetch("select * from coordinator.limit_show('default', 'k')")
        return row

    async def why(self) -> str:
        (row,) = await self.fetch(
            "select w.* from coordinator.jobs_ready r cross join lateral coordinator.job_why('default', r.id) w order by r.id limit 1"
        )
        return f"{row['cause']}: {row['sentence']}"


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(tx: Transaction) -> Keys:
    await tx.set_clock(timedelta())
    return Keys(tx)


@BOTH
async def test_each_key_has_a_bucket_of_its_own_and_an_empty_one_leaves_the_line(fleet: Keys, fair: bool) -> None:
    await fleet.keyed(fair=fair, rate=1.0, burst=2)
    await fleet.each(4)
    await fleet.each(1, "c")
    await fleet.enqueue(3, queue="q")
    assert await fleet.started() == {"a": 2, "b": 2, "c": 1, None: 3}
    assert await line(fleet) == []
    assert await fleet.started() == {}
    await fleet.at(1.5)
    assert await fleet.started() == {"a": 1, "b": 1}
    await fleet.at(10)
    assert await fleet.started() == {"a": 1, "b": 1}
    assert await fleet.value("select count(*) from coordinator.jobs_ready") == 0


@BOTH
async def test_small_claims_take_turns_and_never_more_tokens_than_came_in(fleet: Keys, fair: bool) -> None:
    await fleet.keyed(fair=fair, rate=2.0, burst=3)
    await fleet.each(40, "abc")
    total: Counter[str | None] = Counter()
    for tick in range(12):
        await fleet.at(tick * 0.3)
        for limit in (1, 2, 5, 1):
            total.update(await fleet.started(limit))
        assert all(count <= 3 + tick * 0.6 for count in total.values()), (tick, total)
    assert all(count >= 3 + 11 * 0.6 - 1 for count in total.values()), total


async def test_the_loop_wakes_workers_for_keys_that_no_claim_has_visited(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=1)
    await fleet.each(3)
    await fleet.started()
    assert await fleet.refill() == 0
    await fleet.at(1.5)
    assert "limit_refill" in await fleet.value("select coordinator.work_due()")
    assert (await fleet.refill(), await fleet.refill()) == (2, 0)
    assert await fleet.freed() == ["k"]
    assert sorted(await line(fleet)) == ["a", "b"]
    assert await fleet.started() == {"a": 1, "b": 1}
    await fleet.at(3)
    assert await fleet.started() == {"a": 1, "b": 1}
    assert await fleet.refill() == 0
    assert await fleet.freed() == ["k"]


async def test_a_claim_that_cannot_run_the_jobs_of_a_key_leaves_the_wake_up_to_the_loop(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=1)
    await fleet.each(2, "a")
    await fleet.started()
    await fleet.at(2)
    assert await fleet.claim(5, types=["y"]) == []
    assert await line(fleet) == ["a"]
    assert await fleet.refill() == 1


async def test_jobs_say_what_they_cost_of_the_bucket_of_their_key(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=5)
    for place, cost in enumerate((3, 3, 1)):
        await fleet.each(1, limits={"k": cost}, priority=-place)
    assert await fleet.started() == {"a": 1, "b": 1}
    await fleet.at(0.5)
    assert await fleet.started() == {}
    await fleet.at(1.1)
    assert await fleet.started() == {"a": 1, "b": 1}
    await fleet.at(2.2)
    assert await fleet.started() == {"a": 1, "b": 1}


async def test_the_queues_of_a_type_share_the_bucket_of_a_key_also_in_one_claim(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=3, queue=None, type="x")
    for queue in ("q", "r", "s"):
        await fleet.enqueue(2, queue=queue, key="a")
    assert await fleet.started() == {"a": 3}
    assert await fleet.started() == {}


async def test_a_key_needs_slots_and_tokens(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=3)
    await fleet.limit("s", slots=2, per_key=True, queue="q")
    await fleet.limit("l", slots=5, queue="q")
    await fleet.each(5, "abc")
    grants = await fleet.claim(100)
    assert (len(grants), await fleet.places()) == (5, (0, 5, 0))
    for grant in grants:
        await fleet.verb("complete", grant)
    assert sum((await fleet.started()).values()) == 9 - 5  # tokens of three keys


@pytest.mark.parametrize("per_key", [False, True], ids=["of the queue", "per key"])
async def test_what_does_not_start_gives_its_tokens_back(fleet: Keys, per_key: bool) -> None:
    await fleet.keyed(rate=0.001, burst=2, per_key=per_key)
    await fleet.fetch("select coordinator.agent_register('default', 'holder', p_ttl => '1 day')")
    await fleet.fetch(
        "select coordinator.lock_acquire('default', '{src/}', coordinator.agent_find('default', 'holder'), p_ttl => '1 day')"
    )
    await fleet.each(2, "a", priority=5, locks=["src/a"])
    for part in ("docs/a", "docs/b"):
        await fleet.each(1, "a", locks=[part])
    assert await fleet.started() == {"a": 2}
    assert await fleet.value("select count(*) from coordinator.jobs_waiting") == 2


async def test_rows_of_keys_are_removed_when_their_buckets_are_full(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=2)
    await fleet.each(2)
    await fleet.started()
    prune = "select coordinator.limit_prune_keys()"
    await fleet.at(1)
    assert await fleet.value(prune) == 0
    await fleet.at(3)
    assert await fleet.value(prune) == 2
    await fleet.each(1)
    assert await fleet.started() == {"a": 1, "b": 1}


async def test_jobs_start_when_their_limit_is_raised_or_deleted(fleet: Keys) -> None:
    await fleet.keyed(rate=0.001, burst=1)
    await fleet.each(4)
    assert await fleet.started() == {"a": 1, "b": 1}
    await fleet.limit("k", rate=1.0, burst=2)
    await fleet.at(1.2)
    assert await fleet.started() == {"a": 1, "b": 1}
    await fleet.fetch("select coordinator.limit_delete('default', 'k')")
    assert await fleet.started() == {"a": 2, "b": 2}


async def test_a_limit_that_is_set_later_places_what_waits(fleet: Keys) -> None:
    await fleet.each(4)
    await fleet.keyed(rate=1.0, burst=1)
    assert await fleet.started() == {"a": 1, "b": 1}


async def test_show_lists_the_emptiest_keys_and_why_names_the_key(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=9)
    for place, key in enumerate("abcdefg", 3):
        await fleet.each(place, key)
    await fleet.started()
    shown = await fleet.show()
    assert shown["free"] is None
    assert shown["keys"] == [{"key": key, "free": free} for key, free in zip("gfedc", (0, 1, 2, 3, 4), strict=True)]
    await fleet.each(1, "g")
    assert await fleet.why() == 'rate: Limit "k" lets 1 start in 1s for key "g", and has 0 left now.'


async def test_a_held_limit_stops_all_keys(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=2)
    await fleet.each(2)
    await fleet.fetch("select coordinator.limit_hold('default', 'k', '1 minute')")
    assert await fleet.started() == {}
    await fleet.fetch("select coordinator.limit_release('default', 'k')")
    assert await fleet.started() == {"a": 2, "b": 2}


@BOTH
async def test_each_key_has_a_budget_of_its_own_and_an_end_that_frees_some_brings_it_back(
    fleet: Keys, fair: bool
) -> None:
    await fleet.keyed(fair=fair, budget=10, reserve=4)
    await fleet.each(4)
    grants = await fleet.claim(100)
    assert Counter(grant["key"] for grant in grants) == {"a": 2, "b": 2}
    assert await line(fleet) == []
    assert await fleet.started() == {}
    first = next(grant for grant in grants if grant["key"] == "a")
    assert (await fleet.spend(first, 1))["free"] == 2
    await fleet.verb("complete", first)
    assert await line(fleet) == ["a"]
    assert await fleet.freed() == ["k"]
    assert await fleet.started() == {"a": 1}
    assert (await fleet.show())["keys"] == [{"key": "a", "free": 1}, {"key": "b", "free": 2}]


async def test_only_the_jobs_of_an_exhausted_key_are_cancelled_and_the_next_period_brings_it_back(fleet: Keys) -> None:
    await fleet.keyed(budget=10, period="hour", on_exhausted="cancel")
    await fleet.each(2)
    grants = {grant["key"]: grant for grant in await fleet.claim(2)}
    assert set(grants) == {"a", "b"}
    charge = await fleet.spend(grants["a"], 12)
    assert (charge["free"], charge["cancel_at"] is not None) == (0, True)
    assert await fleet.value("select count(*) from coordinator.jobs_running where cancel_at is not null") == 1
    (event,) = [event for event in await fleet.tx.events() if event["type"] == "limit.exhausted"]
    assert event["data"]["key"] == "a"
    assert await fleet.started() == {"b": 1}
    assert (await fleet.why()).startswith('budget: Budget "k" has 0 of 10 left for key "a" until ')
    await fleet.at(3700)
    assert await fleet.started() == {"a": 1}


async def test_what_keys_spent_in_old_periods_is_removed(fleet: Keys) -> None:
    await fleet.keyed(budget=10, period="hour", reserve=1)
    await fleet.each(1)
    for grant in await fleet.claim(10):
        await fleet.verb("complete", grant)
    prune = "select coordinator.limit_prune_keys()"
    await fleet.value(prune)
    assert await fleet.value("select count(*) from coordinator.job_charges") == 2
    await fleet.at(2 * 3600)
    assert await fleet.value(prune) == 2
    assert await fleet.value("select count(*) from coordinator.job_charges") == 0


async def test_a_job_without_a_key_has_no_budget_to_spend(fleet: Keys) -> None:
    await fleet.keyed(budget=10)
    await fleet.enqueue(1, queue="q")
    (grant,) = await fleet.claim(1)
    spend = jobs.Spend(
        project="default", job=grant["id"], agent=fleet.workers["w"], fence=grant["fence"], budget="k", amount=1
    )
    error = await refused(fleet.tx, spend, "ZC105")
    assert "has no key" in error.message


async def test_a_claim_of_one_type_does_not_forget_the_lane_of_another(fleet: Keys) -> None:
    await fleet.keyed(rate=1.0, burst=1)
    await fleet.each(2, "a", type="x")
    await fleet.each(2, "a", type="y")
    assert await fleet.started(types=["x"]) == {"a": 1}
    assert await fleet.started(types=["y"]) == {}
    assert await fleet.value("select count(*) from coordinator.job_keys where parked") == 1
    # As if the lane of x had been busy: it is visited when there are tokens, before the lanes that left are brought back.
    await fleet.fetch(
        "insert into coordinator.job_permits select class_id, nextval('coordinator.job_turns'), id from coordinator.job_lanes"
    )
    await fleet.fetch(
        "delete from coordinator.job_permits p using coordinator.job_classes c where c.id = p.class_id and c.type = 'y'"
    )
    await fleet.fetch("update coordinator.job_keys set level = 1")
    assert await fleet.started(types=["x"]) == {"a": 1}
    await fleet.at(1.5)
    assert await fleet.started(types=["y"]) == {"a": 1}
