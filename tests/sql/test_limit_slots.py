"""Slots in claims and ends: no more jobs run than a limit allows, and every end of an attempt gives its slot back."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from coordinator.operations import job_history
from tests.conftest import Transaction
from tests.sql.refusal import refused

PLACES = """
select l.name, l.slots, l.surplus, (select count(*) from coordinator.job_slots s where s.limit_id = l.id) as free,
       (select count(*) from coordinator.jobs_running r where l.id = any (r.slots)) as used
from coordinator.job_limits l where l.kind = 'slots' and not l.per_key order by l.name"""


class Fleet:
    """A project with workers, and short forms of what they do."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.fetch = tx.connection.fetch
        self.workers: dict[str, UUID] = {}

    async def limit(self, name: str, **fields: Any) -> None:
        given = ", ".join(f"p_{field} => ${place}" for place, field in enumerate(fields, 2))
        await self.fetch(
            f"select coordinator.limit_set('default', $1{', ' if given else ''}{given})", name, *fields.values()
        )

    async def enqueue(self, jobs: int = 1, **fields: Any) -> list[UUID]:
        rows = await self.fetch(
            "select id from coordinator.job_enqueue_many('default', $1)",
            [{"type": "x", "backoff": 0, **fields}] * jobs,
        )
        return [row["id"] for row in rows]

    async def worker(self, name: str) -> UUID:
        if name not in self.workers:
            self.workers[name] = await self.tx.connection.fetchval(
                "select id from coordinator.agent_register('default', $1, p_job_types => '{x,y}', p_ttl => '1 day')",
                name,
            )
        return self.workers[name]

    async def claim(self, limit: int = 10, worker: str = "w", **fields: Any) -> list[asyncpg.Record]:
        given = "".join(f", p_{field} => ${place}" for place, field in enumerate(fields, 3))
        return await self.fetch(
            f"select * from coordinator.job_claim('default', $1, $2{given})",
            await self.worker(worker),
            limit,
            *fields.values(),
        )

    async def verb(self, verb: str, grant: asyncpg.Record, *more: Any, worker: str = "w") -> None:
        places = "".join(f", ${place}" for place in range(4, 4 + len(more)))
        await self.fetch(
            f"select coordinator.job_{verb}('default', $1, $2, $3{places})",
            grant["id"],
            self.workers[worker],
            grant["fence"],
            *more,
        )

    async def places(self, name: str = "l") -> tuple[int, int, int]:
        """Free and used slots, and how many are to be retired; together they are as many as there are."""
        (row,) = [row for row in await self.fetch(PLACES) if row["name"] == name]
        assert row["free"] + row["used"] == row["slots"] + row["surplus"]
        return row["free"], row["used"], row["surplus"]

    async def freed(self) -> list[str]:
        return [event["key"] for event in await self.tx.events() if event["type"] == "limit.freed"]


@pytest.fixture
def fleet(tx: Transaction) -> Fleet:
    return Fleet(tx)


BINDINGS: dict[str, dict[str, Any]] = {
    "queue": {"queue": "q"},
    "type": {"type": "x"},
    "queue and type": {"queue": "q", "type": "x"},
    "name": {},
}


@pytest.mark.parametrize("late", [False, True], ids=["before the jobs", "after the jobs"])
@pytest.mark.parametrize("binding", BINDINGS)
async def test_no_more_jobs_run_than_there_are_slots(fleet: Fleet, binding: str, late: bool) -> None:
    if not late or binding == "name":
        await fleet.limit("l", slots=3, **BINDINGS[binding])
    await fleet.enqueue(5, queue="q", **({"limits": ["l"]} if binding == "name" else {}))
    await fleet.enqueue(1, queue="other", type="y")
    if late:
        await fleet.limit("l", slots=3, **BINDINGS[binding])
    first = await fleet.claim()
    assert sorted(grant["type"] for grant in first) == ["x", "x", "x", "y"]
    assert await fleet.places() == (0, 3, 0)
    assert await fleet.claim() == []
    await fleet.verb("complete", next(grant for grant in first if grant["type"] == "x"))
    assert await fleet.places() == (1, 2, 0)
    assert len(await fleet.claim()) == 1
    assert await fleet.places() == (0, 3, 0)


async def test_a_job_needs_a_slot_of_each_of_its_limits(fleet: Fleet) -> None:
    await fleet.limit("of_queue", slots=4, queue="q")
    await fleet.limit("of_type", slots=3, type="x")
    await fleet.limit("named", slots=2)
    await fleet.enqueue(5, queue="q", limits=["named"])
    await fleet.enqueue(5, queue="q")
    assert len(await fleet.claim()) == 3
    assert await fleet.places("of_type") == (0, 3, 0)
    free, used, _ = await fleet.places("named")
    assert free + used == 2
    assert await fleet.places("of_queue") == (1, 3, 0)
    assert await fleet.claim() == []


async def test_other_jobs_run_while_a_limit_is_full(fleet: Fleet) -> None:
    await fleet.limit("l", slots=1)
    await fleet.enqueue(3, limits=["l"], priority=10)
    free = await fleet.enqueue(3)
    grants = await fleet.claim(4)
    assert {*free} <= {grant["id"] for grant in grants}
    assert len(grants) == 4


async def test_jobs_of_several_types_share_slots_in_the_order_of_their_priorities(fleet: Fleet) -> None:
    await fleet.limit("l", slots=2, queue="q")
    await fleet.enqueue(2, queue="q", type="x")
    best = await fleet.enqueue(2, queue="q", type="y", priority=1)
    assert {grant["id"] for grant in await fleet.claim()} == {*best}


async def test_a_fair_queue_has_slots_too(fleet: Fleet) -> None:
    await fleet.fetch("select coordinator.queue_set('default', 'q', p_fair_by => 'key')")
    await fleet.limit("l", slots=3, queue="q")
    for key in "abcd":
        await fleet.enqueue(2, queue="q", key=key)
    first = await fleet.claim()
    assert len({grant["key"] for grant in first}) == len(first) == 3
    assert await fleet.places() == (0, 3, 0)
    await fleet.claim(
        1, finished=[grant["id"] for grant in first], fences=[grant["fence"] for grant in first], results=[1, 1, 1]
    )
    assert await fleet.places() == (2, 1, 0)


ENDS: dict[str, tuple[Any, ...]] = {
    "complete": (),
    "fail": ("boom", True),
    "fail and retry": ("boom",),
    "snooze": (timedelta(seconds=5),),
    "release": (),
    "finish": (),
    "reconcile": (),
    "end of the agent": (),
    "loss of the agent": (),
    "deadline": (),
    "cancel": (),
    "deletion of the agent's row": (),
}


@pytest.mark.parametrize("end", ENDS)
async def test_every_end_of_an_attempt_gives_its_slot_back_and_wakes_who_lacked_it(fleet: Fleet, end: str) -> None:
    if end == "deadline":
        await fleet.tx.set_clock(timedelta(0))
    connection = fleet.tx.connection
    await connection.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    await fleet.limit("l", slots=1, queue="q")
    await fleet.enqueue(2, queue="q", deadline=10)
    (grant,) = await fleet.claim()
    assert await fleet.claim(worker="other") == []
    assert await fleet.freed() == []
    agent = fleet.workers["w"]
    match end:
        case "finish":
            assert await fleet.claim(0, finished=[grant["id"]], fences=[grant["fence"]], results=[1]) == []
        case "reconcile":
            await connection.execute("select coordinator.job_reconcile('default', $1, '{}', '0')", agent)
        case "end of the agent":
            await connection.execute("select coordinator.agent_deregister($1)", agent)
        case "loss of the agent":
            await fleet.tx.set_clock(timedelta(days=2))
            await connection.execute("select coordinator.agent_reap()")
        case "deletion of the agent's row":
            await connection.execute("delete from coordinator.agents where id = $1", agent)
            await connection.execute("select coordinator.job_rescue()")
        case "deadline":
            await fleet.tx.set_clock(timedelta(seconds=11))
            await connection.execute("select coordinator.job_rescue()")
        case "cancel":
            await connection.execute("select coordinator.job_cancel('default', $1)", grant["id"])
            await fleet.verb("fail", grant, "stopped")
        case _:
            await fleet.verb(end.split(maxsplit=1)[0], grant, *ENDS[end])
    assert await fleet.places() == (1, 0, 0)
    assert await fleet.freed() == ["l"]


async def test_a_slot_that_nobody_lacked_wakes_nobody(fleet: Fleet) -> None:
    await fleet.limit("l", slots=2, queue="q")
    await fleet.enqueue(2, queue="q")
    for grant in await fleet.claim():
        await fleet.verb("complete", grant)
    assert await fleet.claim() == []
    assert await fleet.freed() == []


async def test_a_stale_completion_gives_nothing_back(fleet: Fleet) -> None:
    await fleet.limit("l", slots=2, queue="q")
    await fleet.enqueue(1, queue="q")
    (grant,) = await fleet.claim()
    for _ in range(3):
        await fleet.claim(0, finished=[grant["id"]], fences=[grant["fence"]], results=[1])
    assert await fleet.places() == (2, 0, 0)


async def test_jobs_that_a_claim_cannot_start_keep_no_slot(fleet: Fleet) -> None:
    await fleet.limit("l", slots=8, queue="q")
    await fleet.enqueue(3, queue="q", payload="x" * 260_000)
    await fleet.enqueue(1, queue="q", payload="x" * 260_000)
    await fleet.enqueue(2, queue="q", payload="x" * 260_000)
    assert len(await fleet.claim()) == 4  # a megabyte
    assert await fleet.places() == (4, 4, 0)
    assert len(await fleet.claim()) == 2
    assert await fleet.places() == (2, 6, 0)


async def test_jobs_that_are_too_late_keep_no_slot(fleet: Fleet) -> None:
    await fleet.tx.set_clock(timedelta(0))
    await fleet.limit("l", slots=2, queue="q")
    await fleet.fetch(
        "select coordinator.job_enqueue('default', 'x', p_queue => 'q', p_start_by => coordinator.now_utc() + interval '10 s', p_priority => 1)"
    )
    await fleet.enqueue(1, queue="q")
    await fleet.tx.set_clock(timedelta(seconds=11))
    assert len(await fleet.claim()) == 1
    assert await fleet.places() == (1, 1, 0)


async def test_slots_that_are_lowered_below_what_runs_are_retired_as_jobs_end(fleet: Fleet) -> None:
    await fleet.limit("l", slots=4, queue="q")
    await fleet.enqueue(9, queue="q")
    running = await fleet.claim()
    await fleet.limit("l", slots=2)
    assert await fleet.places() == (0, 4, 2)
    await fleet.verb("complete", running[0])
    assert await fleet.claim() == []
    assert await fleet.places() == (0, 3, 1)
    await fleet.verb("complete", running[1])
    await fleet.verb("complete", running[2])
    assert len(await fleet.claim()) == 1
    assert await fleet.places() == (0, 2, 0)
    await fleet.limit("l", slots=3)
    assert await fleet.places() == (1, 2, 0)
    assert len(await fleet.claim()) == 1


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
async def test_slots_that_are_raised_while_some_are_to_be_retired(fleet: Fleet, slots: int) -> None:
    await fleet.limit("l", slots=4, queue="q")
    await fleet.enqueue(9, queue="q")
    await fleet.claim()
    await fleet.limit("l", slots=1)
    await fleet.limit("l", slots=slots)
    assert await fleet.places() == (max(0, slots - 4), 4, max(0, 4 - slots))
    assert len(await fleet.claim()) == max(0, slots - 4)


async def test_a_limit_that_is_raised_or_deleted_wakes_who_lacked_it(fleet: Fleet) -> None:
    await fleet.limit("l", slots=1, queue="q")
    await fleet.enqueue(5, queue="q")
    await fleet.claim()
    await fleet.claim()
    await fleet.limit("l", slots=2)
    assert await fleet.freed() == ["l"]
    assert len(await fleet.claim()) == 1
    await fleet.fetch("select coordinator.limit_delete('default', 'l')")
    assert await fleet.freed() == ["l", "l"]
    assert len(await fleet.claim()) == 3
    for table in ("job_slots", "job_buckets", "job_limit_waits", "job_limits"):
        assert await fleet.fetch(f"select from coordinator.{table}") == []
    assert await fleet.fetch("select from coordinator.jobs_running where slots is not null") == []


async def test_jobs_that_run_when_a_limit_is_set_count(fleet: Fleet) -> None:
    await fleet.enqueue(5, queue="q")
    running = await fleet.claim(3)
    await fleet.limit("l", slots=2, queue="q")
    assert await fleet.places() == (0, 3, 1)
    assert await fleet.claim() == []
    await fleet.verb("complete", running[0])
    await fleet.verb("complete", running[1])
    assert len(await fleet.claim()) == 1
    assert await fleet.places() == (0, 2, 0)


async def test_two_claims_that_miss_each_others_permits_are_woken_by_the_loop(fleet: Fleet) -> None:
    """As if an end had committed between the look of a claim and what it records."""
    await fleet.limit("l", slots=1, queue="q")
    await fleet.fetch("insert into coordinator.job_limit_waits select id from coordinator.job_limits")
    assert "limit_refill" in await fleet.tx.connection.fetchval("select coordinator.work_due()")
    assert await fleet.tx.connection.fetchval("select coordinator.limit_refill()") == 1
    assert await fleet.freed() == ["l"]
    assert "limit_refill" not in await fleet.tx.connection.fetchval("select coordinator.work_due()")


async def test_a_claim_that_lacks_one_limit_leaves_the_others_to_other_claims(fleet: Fleet) -> None:
    await fleet.limit("a", slots=1)
    await fleet.limit("b", slots=1)
    await fleet.enqueue(2, limits=["b"])
    assert len(await fleet.claim()) == 1
    await fleet.enqueue(2, limits=["a", "b"])
    await fleet.claim()
    locked = await fleet.fetch("select xmax from coordinator.job_slots")
    assert [row["xmax"] for row in locked] == [0]


async def test_a_retried_job_asks_for_the_same_limits(fleet: Fleet) -> None:
    await fleet.limit("l", slots=1)
    await fleet.limit("r", rate=100.0)
    await fleet.enqueue(1, limits={"l": 1, "r": 7})
    (grant,) = await fleet.claim()
    await fleet.verb("fail", grant, "boom", True)
    await fleet.fetch("select coordinator.job_retry('default', $1)", grant["id"])
    assert [row["limits"] for row in await fleet.fetch("select limits from coordinator.jobs_open")] == [
        {"l": 1, "r": 7}
    ]
    await fleet.claim()
    assert await fleet.places() == (0, 1, 0)


async def test_a_class_that_is_made_after_the_limit_knows_it(fleet: Fleet) -> None:
    await fleet.limit("l", slots=1, type="y")
    await fleet.enqueue(2, queue="new", type="y")
    assert len(await fleet.claim()) == 1


async def test_a_deleted_project_leaves_nothing_of_its_limits(fleet: Fleet) -> None:
    await fleet.fetch("select coordinator.project_create('gone')")
    await fleet.fetch("select coordinator.limit_set('gone', 'l', p_slots => 5, p_queue => 'q')")
    await fleet.fetch("select coordinator.limit_set('gone', 'r', p_rate => 5)")
    await fleet.fetch("select coordinator.project_delete('gone')")
    for table in ("job_slots", "job_buckets", "job_limit_waits", "job_limits"):
        assert await fleet.fetch(f"select from coordinator.{table}") == []


@pytest.mark.parametrize("again", [False, True])
async def test_a_job_whose_limit_was_deleted_is_retried_without_it_as_waiting_jobs_run(
    fleet: Fleet, again: bool
) -> None:
    await fleet.limit("l", slots=1)
    await fleet.limit("m", slots=1)
    await fleet.enqueue(1, limits=["l", "m"])
    (grant,) = await fleet.claim()
    await fleet.verb("fail", grant, "boom", True)
    await fleet.fetch("select coordinator.limit_delete('default', 'l')")
    if again:  # the name means something that jobs cannot ask for
        tree = (await fleet.enqueue(1, type="z"))[0]
        await fleet.limit("l", slots=1, tree=tree)
    (new,) = await fleet.tx.run(job_history.Retry(project="default", job=grant["id"]))
    assert [job["id"] for job in await fleet.claim()] == [new.id]
    limits = await fleet.tx.connection.fetchval("select limits from coordinator.jobs where id = $1", new.id)
    assert limits == {"m": 1}


async def test_a_job_that_costs_more_than_the_limit_has_now_is_named_when_it_cannot_be_retried(fleet: Fleet) -> None:
    await fleet.limit("l", budget=100)
    await fleet.enqueue(1)
    await fleet.enqueue(1, limits={"l": 100})
    cheap, dear = await fleet.claim()
    for grant in (cheap, dear):
        await fleet.verb("fail", grant, "boom", True)
    await fleet.limit("l", budget=50)
    error = await refused(fleet.tx, job_history.Retry(project="default", status=["failed"]), "ZC104")
    assert error.message.startswith(f'job {dear["id"]} cannot be retried: a cost of 100 of limit "l"')
    assert json.loads(error.detail or "")["job"] == str(dear["id"])
    await fleet.limit("l", budget=100)
    assert len(await fleet.tx.run(job_history.Retry(project="default", status=["failed"]))) == 2
