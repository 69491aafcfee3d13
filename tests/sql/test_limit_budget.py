"""Budgets and holds: what claims reserve, what workers spend, what an end settles, and when jobs start again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from coordinator.model.agent import Agent
from coordinator.model.job import JobCharge, JobGrant
from coordinator.model.job_history import JobExplanation
from coordinator.model.limit import Limit
from coordinator.operations import agents, job_history, jobs, limits, projects
from tests.conftest import Transaction
from tests.sql.refusal import refused

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
P = "default"


class Fleet:
    """A worker, and short forms of what is done with a budget named b."""

    def __init__(self, tx: Transaction, agent: Agent) -> None:
        self.tx = tx
        self.agent = agent

    async def set(self, name: str = "b", **fields: Any) -> Limit:
        return await self.tx.run(limits.Set(project=P, name=name, **fields))

    async def show(self, name: str = "b") -> Limit:
        return await self.tx.run(limits.Show(project=P, name=name))

    async def charged(self, name: str = "b") -> tuple[int | None, int | None]:
        shown = await self.show(name)
        return shown.used, shown.free

    async def enqueue(self, count: int = 1, **fields: Any) -> None:
        for _ in range(count):
            await self.tx.run(jobs.Enqueue(project=P, **{"type": "x", **fields}))

    async def claim(self, limit: int = 10) -> list[JobGrant]:
        return await self.tx.run(jobs.Claim(project=P, agent=self.agent.id, limit=limit))

    async def start(self, **fields: Any) -> JobGrant:
        await self.enqueue(**fields)
        (grant,) = await self.claim()
        return grant

    def held(self, grant: JobGrant) -> dict[str, Any]:
        return {"project": P, "job": grant.id, "agent": self.agent.id, "fence": grant.fence}

    async def spend(self, grant: JobGrant, amount: int, budget: str = "b") -> JobCharge:
        return await self.tx.run(jobs.Spend(**self.held(grant), budget=budget, amount=amount))

    async def complete(self, grant: JobGrant) -> None:
        await self.tx.run(jobs.Complete(**self.held(grant)))

    async def why(self) -> JobExplanation:
        (job,) = await self.tx.run(job_history.List(project=P, status=["queued"]))
        return await self.tx.run(job_history.Why(project=P, job=job.id))

    async def said(self, type: str) -> list[dict[str, Any]]:
        return [event["data"] for event in await self.tx.events() if event["type"] == type]


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(tx: Transaction) -> Fleet:
    await tx.connection.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    agent = await tx.run(agents.Register(project=P, name="w", job_types=["x", "y"], ttl=DAY))
    return Fleet(tx, agent)


async def test_claims_reserve_what_jobs_cost_and_never_more_than_there_is(fleet: Fleet) -> None:
    made = await fleet.set(budget=100, reserve=30, type="x")
    assert (made.kind, made.period, made.on_exhausted, made.resets_at) == ("budget", "ever", "stop", None)
    await fleet.enqueue(5)
    assert len(await fleet.claim()) == 3
    assert await fleet.charged() == (90, 10)
    assert await fleet.claim() == []
    shown = await fleet.show()
    assert (shown.waiting_count, shown.users) == (2, [{"type": "x", "key": None, "used": 90}])


@pytest.mark.parametrize("count", [4, 12], ids=["returned after it was taken", "not taken, as little is left"])
async def test_the_best_jobs_start_and_what_does_not_fit_keeps_its_place(fleet: Fleet, count: int) -> None:
    await fleet.set(budget=100, type="x", reserve=40)
    for priority in range(count):
        await fleet.enqueue(priority=priority, payload=priority)
    assert [grant.payload for grant in await fleet.claim(count)] == [count - 1, count - 2]
    assert await fleet.charged() == (80, 20)
    await fleet.set(budget=10_000)
    assert [grant.payload for grant in await fleet.claim(count)] == list(reversed(range(count - 2)))


async def test_a_job_says_what_it_costs(fleet: Fleet) -> None:
    await fleet.set(budget=100, reserve=1)
    for cost in (60, 30, 20, 5):
        await fleet.enqueue(limits={"b": cost})
    assert len(await fleet.claim()) == 2, "the third costs too much, and the fourth does not overtake it"
    assert await fleet.charged() == (90, 10)
    assert (await fleet.tx.run(job_history.Stats(project=P)))[0].queued == 2


async def test_jobs_without_the_budget_start_while_others_wait_for_it(fleet: Fleet) -> None:
    await fleet.set(budget=1, type="x", reserve=1)
    await fleet.enqueue(2)
    await fleet.enqueue(2, type="y")
    assert sorted(grant.type or "" for grant in await fleet.claim()) == ["x", "y", "y"]


async def test_in_a_fair_queue_what_does_not_fit_goes_back_silently(fleet: Fleet) -> None:
    await fleet.tx.connection.execute("select coordinator.queue_set('default', 'q', p_fair_by => 'key')")
    await fleet.set(budget=100, queue="q")
    for key in ("a", "b", "c"):
        await fleet.enqueue(2, queue="q", key=key, limits={"b": 45})
    told = len(await fleet.said("job.enqueued"))
    assert len(await fleet.claim()) == 2
    assert await fleet.claim() == []
    assert len(await fleet.said("job.enqueued")) == told
    assert await fleet.tx.connection.fetchval("select count(*) from coordinator.jobs_ready") == 4


ENDS: dict[str, tuple[int | None, int]] = {
    # what was reported of a reservation of 40, and what the end charges
    "complete": (None, 40),
    "complete after 10": (10, 10),
    "complete after 0": (0, 0),
    "complete after 70": (70, 70),
    "fail": (None, 40),
    "fail after 10": (10, 10),
    "release": (None, 0),
    "release after 10": (10, 10),
    "snooze": (None, 0),
    "die": (None, 40),
    "die after 10": (10, 40),
    "die after 70": (70, 70),
    "deadline": (None, 40),
    "deadline after 10": (10, 40),
    "deregister": (None, 0),
}


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_settles_what_its_claim_reserved(fleet: Fleet, end: str) -> None:
    reported, cost = ENDS[end]
    await fleet.set(budget=1000, type="x", reserve=40)
    grant = await fleet.start(deadline=HOUR)
    assert await fleet.charged() == (40, 960)
    if reported is not None:
        charge = await fleet.spend(grant, reported)
        assert (charge.spent, charge.reserved) == (reported, 40)
    held = fleet.held(grant)
    match end.split(maxsplit=1)[0]:
        case "complete":
            await fleet.complete(grant)
        case "fail":
            await fleet.tx.run(jobs.Fail(**held, error="e"))
        case "release":
            await fleet.tx.run(jobs.Release(**held))
        case "snooze":
            await fleet.tx.run(jobs.Snooze(**held, delay=HOUR))
        case "die":
            await fleet.tx.connection.execute(
                "select coordinator.job_end_agent(a.id, 'worker_lost', 'test') from coordinator.agents a"
            )
        case "deregister":
            await fleet.tx.run(agents.Deregister(agent=fleet.agent.id))
        case _:
            await fleet.tx.set_clock(2 * HOUR)
            await fleet.tx.run(jobs.Rescue())
    assert await fleet.charged() == (cost, 1000 - cost)
    assert (
        await fleet.tx.connection.fetchval("select count(*) from coordinator.job_charges where job_id is not null") == 0
    )


async def test_what_an_end_frees_wakes_whom_it_stopped(fleet: Fleet) -> None:
    await fleet.set(budget=50, type="x", reserve=40)
    first = await fleet.start()
    await fleet.enqueue()
    assert await fleet.claim() == []
    assert await fleet.said("limit.freed") == []
    await fleet.spend(first, 5)
    await fleet.complete(first)
    assert await fleet.said("limit.freed") == [{}]
    assert len(await fleet.claim()) == 1


async def test_the_loop_wakes_workers_when_the_wake_up_of_an_end_was_missed(fleet: Fleet) -> None:
    await fleet.set(budget=50, type="x", reserve=40)
    await fleet.start()
    await fleet.enqueue()
    assert await fleet.claim() == []
    assert await fleet.tx.run(limits.Refill()) == 0, "there is no room"
    await fleet.tx.connection.execute("update coordinator.job_charges set job_id = null, reserved = 0, spent = 3")
    assert "limit_refill" in await fleet.tx.connection.fetchval("select coordinator.work_due()")
    assert await fleet.tx.run(limits.Refill()) == 1
    assert await fleet.said("limit.freed") == [{}]
    assert await fleet.tx.run(limits.Refill()) == 0, "nobody is woken in a loop"


@pytest.mark.parametrize("period", ["hour", "day"])
async def test_a_new_period_has_the_whole_budget(fleet: Fleet, period: str) -> None:
    await fleet.tx.set_clock(timedelta(0))  # the period does not end meanwhile
    made = await fleet.set(budget=10, period=period, type="x", reserve=10)
    assert made.resets_at is not None
    grant = await fleet.start()
    await fleet.enqueue()
    await fleet.complete(grant)
    assert await fleet.claim() == []
    (exhausted,) = await fleet.said("limit.exhausted")
    assert (exhausted["spent"], exhausted["budget"]) == (10, 10)
    assert datetime.fromisoformat(exhausted["until"]) == made.resets_at
    why = await fleet.why()
    assert (why.cause, why.until) == ("budget", made.resets_at)
    await fleet.tx.set_clock(HOUR if period == "hour" else DAY)
    assert await fleet.tx.run(limits.Refill()) == 1
    assert await fleet.charged() == (0, 10)
    (grant,) = await fleet.claim()
    await fleet.tx.set_clock(timedelta(0))
    assert await fleet.charged() == (10, 0), "the clock went back: the old period is known"
    await fleet.complete(grant)
    await fleet.tx.set_clock(HOUR if period == "hour" else DAY)
    assert await fleet.charged() == (10, 0), "an attempt belongs to the period of its claim"


async def test_an_attempt_belongs_to_the_period_of_its_claim(fleet: Fleet) -> None:
    await fleet.tx.set_clock(timedelta(0))  # the period does not end meanwhile
    await fleet.set(budget=10, period="hour", type="x", reserve=4)
    grant = await fleet.start()
    await fleet.tx.set_clock(HOUR)
    charge = await fleet.spend(grant, 9)
    assert (charge.spent, charge.free) == (9, 1)
    assert await fleet.charged() == (0, 10)
    await fleet.complete(grant)
    assert await fleet.charged() == (0, 10)


@pytest.mark.parametrize("on_exhausted", ["stop", "cancel"])
async def test_an_exhausted_budget_stops_claims_and_cancels_what_runs_if_it_says_so(
    fleet: Fleet, on_exhausted: str
) -> None:
    await fleet.tx.set_clock(timedelta(0))
    await fleet.set(budget=100, period="day", type="x", reserve=10, on_exhausted=on_exhausted)
    await fleet.enqueue(3)
    first, second, third = await fleet.claim()
    assert (await fleet.spend(first, 90)).free == 0
    assert await fleet.said("limit.exhausted") == []
    charge = await fleet.spend(second, 15)
    assert (charge.spent, charge.free) == (15, 0)
    assert len(await fleet.said("limit.exhausted")) == 1
    await fleet.spend(first, 50)
    assert len(await fleet.said("limit.exhausted")) == 1, "once in a period"
    assert (await fleet.show()).used == 165
    running = await fleet.tx.connection.fetch("select cancel_at, cancel_reason from coordinator.jobs_running")
    cancelled = on_exhausted == "cancel"
    assert [(row["cancel_at"] is not None, row["cancel_reason"]) for row in running] == [
        (cancelled, 'budget "b" is exhausted' if cancelled else None)
    ] * 3
    assert (charge.cancel_at is not None) == cancelled
    requests = await fleet.said("job.cancel_requested")
    assert sorted(job for data in requests for job in data["ids"]) == (
        sorted(str(grant.id) for grant in (first, second, third)) if cancelled else []
    )


async def test_an_attempt_that_another_transaction_had_is_cancelled_by_the_loop(fleet: Fleet) -> None:
    await fleet.set(budget=10, type="x", reserve=5, on_exhausted="cancel")
    await fleet.enqueue(2)
    first, _ = await fleet.claim()
    await fleet.spend(first, 10)
    await fleet.tx.connection.execute("update coordinator.jobs_running set cancel_at = null")
    await fleet.enqueue()
    assert await fleet.claim() == []
    assert await fleet.tx.connection.fetchval("select count(cancel_at) from coordinator.jobs_running") == 2


async def test_a_raised_budget_wakes_workers_and_a_lowered_one_stops_claims(fleet: Fleet) -> None:
    await fleet.set(budget=10, type="x", reserve=10)
    await fleet.complete(await fleet.start())
    await fleet.enqueue(2)
    assert await fleet.claim() == []
    await fleet.set(budget=20)
    assert await fleet.said("limit.freed") == [{}]
    (grant,) = await fleet.claim()
    await fleet.set(budget=10)
    assert await fleet.charged() == (20, 0)
    await fleet.spend(grant, 0)
    await fleet.complete(grant)
    assert await fleet.claim() == []
    assert len(await fleet.said("limit.exhausted")) == 2, "it was raised in between"


async def test_a_budget_of_what_runs_already_takes_its_reports(fleet: Fleet) -> None:
    grant = await fleet.start()
    await fleet.set(budget=10, type="x")
    assert (await fleet.spend(grant, 4)).reserved == 0
    assert await fleet.charged() == (4, 6)
    await fleet.complete(grant)
    assert await fleet.charged() == (4, 6)


async def test_settled_rows_are_added_up(fleet: Fleet) -> None:
    await fleet.set(budget=1000, type="x", reserve=1)
    await fleet.enqueue(150)
    for grant in await fleet.claim(150):
        await fleet.complete(grant)
    await fleet.start()
    assert await fleet.tx.connection.fetchval("select count(*) from coordinator.job_charges") == 2
    assert await fleet.charged() == (151, 849)


async def test_spending_never_overflows(fleet: Fleet) -> None:
    await fleet.set(budget=10**15, type="x")
    grant = await fleet.start()
    await fleet.tx.connection.execute("update coordinator.job_charges set spent = 9000000000000000000 - 5")
    assert (await fleet.spend(grant, 10**15)).spent == 9 * 10**18
    await fleet.tx.connection.execute(
        "insert into coordinator.job_charges (limit_id, period_at, spent) select limit_id, period_at, spent from coordinator.job_charges"
    )
    assert await fleet.charged() == (9 * 10**18, 0)


async def test_a_deleted_budget_leaves_nothing(fleet: Fleet) -> None:
    await fleet.set(budget=10)
    grant = await fleet.start(limits={"b": 10})
    await fleet.enqueue(limits={"b": 10})
    assert await fleet.claim() == []
    assert await fleet.tx.run(limits.Delete(project=P, name="b"))
    assert len(await fleet.claim()) == 1
    await fleet.complete(grant)
    for table in ("job_limits", "job_budgets", "job_charges", "job_limit_waits"):
        assert await fleet.tx.connection.fetchval(f"select count(*) from coordinator.{table}") == 0, table


async def test_a_deleted_project_leaves_no_charges(fleet: Fleet) -> None:
    await fleet.tx.run(projects.Create(project="gone"))
    await fleet.tx.run(limits.Set(project="gone", name="b", budget=10, reserve=1, type="x"))
    agent = await fleet.tx.run(agents.Register(project="gone", name="w", job_types=["x"], ttl=DAY))
    await fleet.tx.run(jobs.Enqueue(project="gone", type="x"))
    assert await fleet.tx.run(jobs.Claim(project="gone", agent=agent.id))
    await fleet.tx.run(projects.Delete(project="gone"))
    for table in ("job_limits", "job_budgets", "job_charges"):
        assert await fleet.tx.connection.fetchval(f"select count(*) from coordinator.{table}") == 0, table


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"budget": 0}, "ZC104"),
        ({"budget": -5}, "ZC104"),
        ({"budget": 10**15 + 1}, "ZC104"),
        ({"budget": 5, "reserve": 6}, "ZC104"),
        ({"budget": 5, "reserve": -1}, "ZC104"),
        ({"budget": 5, "period": "week"}, "ZC105"),
        ({"budget": 5, "on_exhausted": "panic"}, "ZC105"),
        ({"budget": 5, "burst": 5}, "ZC105"),
        ({"budget": 5, "slots": 5}, "ZC105"),
        ({"reserve": 5}, "ZC101"),
        ({"budget": 5, "name": "a\nb"}, "ZC103"),
        ({"budget": 5, "name": ""}, "ZC101"),
    ],
)
async def test_a_malformed_budget_is_refused(fleet: Fleet, fields: dict[str, Any], code: str) -> None:
    await refused(fleet.tx, limits.Set(**{"project": P, "name": "b", **fields}), code)


@pytest.mark.parametrize(
    ("costs", "code"),
    [
        ({"b": 11}, "ZC104"),
        ({"b": -1}, "ZC104"),
        ({"b": 1.5}, "ZC104"),
        ({"b": 10**400}, "ZC104"),
        ({"b": "1"}, "ZC104"),
        ({"b": True}, "ZC104"),
        ({"a": 1}, "ZC211"),
        ({"%": 1}, "ZC211"),
        ({"": 1}, "ZC101"),
        (["b", 1], "ZC103"),
        ("b", "ZC103"),
        (5, "ZC103"),
    ],
)
async def test_a_cost_that_could_never_be_paid_is_refused_and_nothing_enqueued(
    fleet: Fleet, costs: Any, code: str
) -> None:
    await fleet.set(budget=10)
    await refused(fleet.tx, jobs.Enqueue(project=P, type="x", limits=costs), code)
    many = [{"type": "x"}, {"type": "x", "limits": costs}]
    error = await refused(fleet.tx, jobs.EnqueueMany(project=P, jobs=many), code)
    assert "job 1: " in error.message
    assert await fleet.tx.connection.fetchval("select count(*) from coordinator.jobs_open") == 0


async def test_a_malformed_report_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    await fleet.set(budget=10, type="x")
    await fleet.set("s", slots=3, type="x")
    await fleet.set("other", budget=10)
    grant = await fleet.start()
    held = fleet.held(grant)
    for fields, code in (
        ({"amount": -1}, "ZC104"),
        ({"amount": 10**15 + 1}, "ZC104"),
        ({"budget": "s"}, "ZC105"),
        ({"budget": "other"}, "ZC105"),
        ({"budget": "c"}, "ZC211"),
        ({"budget": "%"}, "ZC211"),
        ({"budget": ""}, "ZC101"),
        ({"fence": grant.fence + 1}, "ZC320"),
    ):
        await refused(fleet.tx, jobs.Spend(**{**held, "budget": "b", "amount": 1, **fields}), code)
    assert await fleet.charged() == (0, 10)
    await fleet.complete(grant)
    await refused(fleet.tx, jobs.Spend(**held, budget="b", amount=1), "ZC320")


@pytest.mark.parametrize("kind", [{"slots": 5}, {"rate": 100.0}, {"budget": 100}])
async def test_a_held_limit_stops_claims_until_its_end(fleet: Fleet, kind: dict[str, Any]) -> None:
    await fleet.set("l", type="x", **kind)
    running = await fleet.start()
    held = await fleet.tx.run(limits.Hold(project=P, name="l", ttl=HOUR, reason="429", actor="w"))
    assert (held.held_by, held.hold_reason) == ("w", "429")
    await fleet.enqueue()
    await fleet.enqueue(type="y")
    assert [grant.type for grant in await fleet.claim()] == ["y"]
    why = await fleet.why()
    assert (why.cause, why.until, why.names) == ("held", held.held_until, ["w"])
    assert why.sentence.startswith('Limit "l" is held by "w" until ')
    assert why.sentence.endswith(": 429.")
    await fleet.complete(running)
    assert await fleet.claim() == []
    assert await fleet.tx.run(limits.Refill()) == 0
    await fleet.tx.set_clock(2 * HOUR)
    assert await fleet.tx.run(limits.Refill()) == 1
    assert (await fleet.show("l")).held_until is None
    assert [event["key"] for event in await fleet.tx.events() if event["type"] == "limit.freed"][-1] == "l"
    assert len(await fleet.claim()) == 1


async def test_the_hold_that_ends_last_is_kept_and_one_release_ends_it(fleet: Fleet) -> None:
    await fleet.set("l", slots=1, type="x")
    long = await fleet.tx.run(limits.Hold(project=P, name="l", ttl=HOUR, reason="long", actor="a"))
    short = await fleet.tx.run(limits.Hold(project=P, name="l", ttl=timedelta(minutes=1), reason="short", actor="b"))
    assert (short.held_until, short.held_by, short.hold_reason) == (long.held_until, "a", "long")
    longer = await fleet.tx.run(limits.Hold(project=P, name="l", ttl=2 * HOUR, actor="b"))
    assert (longer.held_by, longer.hold_reason) == ("b", None)
    assert len(await fleet.said("limit.held")) == 2
    await fleet.enqueue()
    assert await fleet.claim() == []
    released = await fleet.tx.run(limits.Release(project=P, name="l"))
    assert released.held_until is None
    assert await fleet.tx.run(limits.Release(project=P, name="l")) == released
    assert len(await fleet.said("limit.freed")) == 1
    assert len(await fleet.claim()) == 1


async def test_a_malformed_hold_is_refused(fleet: Fleet) -> None:
    await fleet.set("l", slots=1)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"ttl": timedelta(0)}, "ZC104"),
        ({"ttl": -HOUR}, "ZC104"),
        ({"ttl": 367 * DAY}, "ZC104"),
        ({"reason": ""}, "ZC101"),
        ({"name": "%"}, "ZC211"),
    )
    for fields, code in cases:
        await refused(fleet.tx, limits.Hold(**{"project": P, "name": "l", "ttl": HOUR, **fields}), code)
    await refused(fleet.tx, limits.Release(project=P, name="m"), "ZC211")


async def test_why_names_no_key_of_a_job_without_one(fleet: Fleet) -> None:
    await fleet.set("l", slots=1, type="x")
    await fleet.enqueue()
    await fleet.claim()
    first = await fleet.tx.connection.fetchval("select id from coordinator.jobs_running")
    await fleet.enqueue()
    why = await fleet.why()
    assert why.sentence == f'Limit "l" is full: job {first} of type "x" on worker "w" has its slot.'
    assert why.names == ["w"]


@pytest.mark.parametrize("slots", [1, 2])
async def test_why_names_who_has_the_slots_of_a_key(fleet: Fleet, slots: int) -> None:
    await fleet.set("l", slots=slots, type="x", per_key=True)
    await fleet.enqueue(slots, key="acme")
    await fleet.claim()
    first = await fleet.tx.connection.fetchval(
        "select id from coordinator.jobs_running order by started_at, id limit 1"
    )
    await fleet.enqueue(key="acme")
    why = await fleet.why()
    job = f'job {first} of type "x" on worker "w"'
    assert why.sentence == 'Limit "l" is full for key "acme": ' + (
        f"{job} has its slot." if slots == 1 else f"running jobs have all of its 2 slots, the first of them {job}."
    )
    assert why.names == ["w"]


async def test_a_job_that_names_a_budget_and_not_its_cost_reserves_what_the_budget_says(fleet: Fleet) -> None:
    await fleet.set("b", budget=100, reserve=60)
    await fleet.set("r", rate=5)
    for limits_ in (["b", "r"], {"b": None, "r": None}, {"b": 1}):
        await fleet.enqueue(limits=limits_)
    costs = await fleet.tx.connection.fetch("select limits from coordinator.jobs order by id")
    assert [row["limits"] for row in costs] == [{"b": 60, "r": 1}, {"b": 60, "r": 1}, {"b": 1}]
    await fleet.claim()
    shown = await fleet.tx.run(limits.Show(project=P, name="b"))
    assert shown.used == 61, "the second exceeds the budget"


async def test_why_names_who_has_the_slots_and_what_is_left_of_a_budget(fleet: Fleet) -> None:
    await fleet.tx.set_clock(timedelta(0))  # the period does not end meanwhile
    await fleet.set("l", slots=2, type="x")
    await fleet.set("b", budget=100, period="day")
    await fleet.enqueue(2, key="acme")
    await fleet.claim()
    first = await fleet.tx.connection.fetchval(
        "select id from coordinator.jobs_running order by started_at, id limit 1"
    )
    await fleet.enqueue()
    why = await fleet.why()
    assert why.cause == "limit"
    assert why.sentence == (
        f'Limit "l" is full: running jobs have all of its 2 slots, the first of them job {first} of type "x" on worker "w"'
        '; the largest user is type "x" with key "acme" (2).'
    )
    await fleet.tx.run(limits.Delete(project=P, name="l"))
    await fleet.claim()
    await fleet.start(limits={"b": 70}, key="zoo")
    await fleet.enqueue(limits={"b": 40})
    why = await fleet.why()
    assert why.cause == "budget"
    assert why.sentence.startswith('Budget "b" has 30 of 100 left until ')
    assert why.sentence.endswith(', and it costs 40; the largest user is type "x" with key "zoo" (70).')
