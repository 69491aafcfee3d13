"""Limits of trees: a number of jobs of one tree run at once, and the others wait and are in nobody's way."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from coordinator.operations import jobs, limits
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_limit_slots import Fleet


class Trees(Fleet):
    async def tree(self, children: int, slots: int | None = 2, **fields: Any) -> UUID:
        """Enqueue a root that starts in a year, with children; limit the tree."""
        (root,) = await self.enqueue(1, delay=31_000_000)
        if children:
            await self.enqueue(children, parent=str(root), **fields)
        if slots is not None:
            await self.limit("t", slots=slots, tree=root)
        return root

    async def status(self) -> Counter[str]:
        rows = await self.fetch("select status, waiting_for from coordinator.jobs where parent_id is not null")
        return Counter(row["waiting_for"] or row["status"] for row in rows)

    async def refill(self) -> int:
        count: int = await self.tx.connection.fetchval("select coordinator.limit_refill()")
        return count

    async def wake_due(self) -> int:
        count: int = await self.tx.connection.fetchval("select coordinator.job_wake_due()")
        return count

    async def why(self, job: UUID) -> Any:
        (row,) = await self.fetch("select * from coordinator.job_why('default', $1)", job)
        return row


@pytest.fixture
def fleet(tx: Transaction) -> Trees:
    return Trees(tx)


async def test_no_more_jobs_of_a_tree_run_than_it_has_slots_and_others_pass_them(fleet: Trees) -> None:
    await fleet.tree(5, priority=9)
    await fleet.enqueue(2)
    grants = await fleet.claim(10)
    assert len(grants) == 4
    assert await fleet.status() == {"running": 2, "limit": 3}
    assert await fleet.places("t") == (0, 2, 0)
    assert await fleet.claim(10) == []


@pytest.mark.parametrize("verb", ["complete", "fail", "release", "snooze"])
async def test_whoever_ends_an_attempt_wakes_the_next_job_of_the_tree(fleet: Trees, verb: str) -> None:
    await fleet.tree(4, slots=1)
    (first,) = await fleet.claim(10)
    more = {"fail": ("boom", True), "snooze": (timedelta(hours=1),)}.get(verb, ())
    await fleet.verb(verb, first, *more)
    (second,) = await fleet.claim(10)
    assert (second["id"] == first["id"]) == (verb == "release")  # it has its old place
    assert (await fleet.status())["limit"] == (3 if verb == "release" else 2)
    assert await fleet.places("t") == (0, 1, 0)


async def test_the_best_jobs_of_a_tree_come_first(fleet: Trees) -> None:
    root = await fleet.tree(3, slots=1)
    (first,) = await fleet.claim(10)
    (best,) = await fleet.enqueue(1, parent=str(root), priority=5)
    assert await fleet.claim(10) == []
    await fleet.verb("complete", first)
    assert [grant["id"] for grant in await fleet.claim(10)] == [best]


async def test_a_type_without_workers_does_not_occupy_the_slots_of_its_tree(fleet: Trees) -> None:
    root = await fleet.tree(2, slots=1)
    await fleet.enqueue(2, parent=str(root), type="y", priority=5)
    (first,) = await fleet.claim(10, types=["x"])
    assert await fleet.claim(10) == []
    await fleet.verb("complete", first)
    # One of each type is woken; no worker takes y.
    assert [grant["type"] for grant in await fleet.claim(10, types=["x"])] == ["x"]


async def test_the_root_takes_a_slot_too_and_what_runs_counts(fleet: Trees) -> None:
    (root,) = await fleet.enqueue(1, priority=1)
    await fleet.enqueue(3, parent=str(root))
    first = await fleet.claim(2)
    await fleet.limit("t", slots=1, tree=root)
    assert await fleet.places("t") == (0, 2, 1)
    assert await fleet.claim(10) == []
    await fleet.verb("complete", first[0])
    assert await fleet.claim(10) == []
    await fleet.verb("complete", first[1])
    assert len(await fleet.claim(10)) == 1
    assert await fleet.places("t") == (0, 1, 0)


async def test_more_slots_wake_jobs_at_once_and_fewer_hold_when_jobs_end(fleet: Trees) -> None:
    root = await fleet.tree(6, slots=1)
    await fleet.claim(10)
    await fleet.limit("t", slots=3)
    assert len(await fleet.claim(10)) == 2
    await fleet.limit("t", slots=3, tree=root)  # the same
    await fleet.limit("t", slots=1)
    assert await fleet.places("t") == (0, 3, 2)


async def test_all_jobs_start_when_their_limit_is_deleted(fleet: Trees) -> None:
    await fleet.tree(4, slots=1)
    await fleet.claim(10)
    await fleet.fetch("select coordinator.limit_delete('default', 't')")
    assert await fleet.wake_due() == 3
    assert len(await fleet.claim(10)) == 3
    assert await fleet.fetch("select from coordinator.jobs_running where slots is not null") == []


async def test_a_limit_ends_with_its_tree(fleet: Trees) -> None:
    root = await fleet.tree(1)
    (child,) = await fleet.claim(10)
    prune = "select coordinator.limit_prune()"
    await fleet.fetch("select coordinator.job_cancel('default', $1)", root)
    assert await fleet.tx.connection.fetchval(prune) == 0
    await fleet.verb("complete", child)
    assert await fleet.tx.connection.fetchval(prune) == 1
    for table in ("job_limits", "job_slots", "job_tree_waits"):
        assert await fleet.fetch(f"select from coordinator.{table}") == []
    assert "limit.deleted" in [event["type"] for event in await fleet.tx.events()]


async def test_a_held_limit_stops_its_tree_until_it_is_released(fleet: Trees) -> None:
    await fleet.tree(3)
    await fleet.fetch("select coordinator.limit_hold('default', 't', '1 hour', '429', 'boss')")
    assert await fleet.claim(10) == []
    assert await fleet.status() == {"limit": 3}
    (job, *_) = [row["id"] for row in await fleet.fetch("select id from coordinator.jobs_waiting")]
    why = await fleet.why(job)
    assert "is held by" in why["sentence"]
    assert why["until"] is not None
    assert await fleet.refill() == 0
    await fleet.fetch("select coordinator.limit_release('default', 't')")
    assert len(await fleet.claim(10)) == 2


async def test_the_loop_wakes_jobs_where_a_woken_one_did_not_use_the_slot(fleet: Trees) -> None:
    await fleet.tree(3, slots=1)
    (first,) = await fleet.claim(10)
    await fleet.verb("complete", first)
    (woken,) = await fleet.fetch("select id from coordinator.jobs_ready")
    await fleet.fetch("select coordinator.job_cancel('default', $1)", woken["id"])
    assert await fleet.claim(10) == []
    assert "limit_refill" in await fleet.tx.connection.fetchval("select coordinator.work_due()")
    assert (await fleet.refill(), await fleet.refill()) == (1, 0)
    assert len(await fleet.claim(10)) == 1


async def test_why_names_the_limit_and_who_fills_it(fleet: Trees) -> None:
    await fleet.tree(2, slots=1)
    (grant,) = await fleet.claim(10)
    (waiting,) = await fleet.fetch("select id from coordinator.jobs_waiting")
    why = await fleet.why(waiting["id"])
    assert (why["status"], why["cause"], why["names"]) == ("waiting", "limit", ["w"])
    assert (
        why["sentence"] == f'Limit "t" of its tree is full: job {grant["id"]} of type "x" on worker "w" has its slot.'
    )
    (shown,) = await fleet.fetch("select used, free, waiting_count, tree from coordinator.limit_show('default', 't')")
    assert (shown["used"], shown["free"], shown["waiting_count"]) == (1, 0, 1)
    await fleet.limit("t", slots=2)
    assert "turn" in (await fleet.why(waiting["id"]))["sentence"]


async def test_jobs_without_their_locks_or_too_late_give_the_slot_back(fleet: Trees) -> None:
    root = await fleet.tree(0, slots=1)
    await fleet.fetch("select coordinator.agent_register('default', 'holder', p_ttl => '1 day')")
    await fleet.fetch(
        "select coordinator.lock_acquire('default', '{src/}', coordinator.agent_find('default', 'holder'), p_ttl => '1 day')"
    )
    await fleet.enqueue(1, parent=str(root), priority=9, locks=["src/a"])
    await fleet.enqueue(1, parent=str(root), priority=8, start_by=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    (free,) = await fleet.enqueue(1, parent=str(root))
    await fleet.tx.set_clock(timedelta(hours=2))
    assert [grant["id"] for grant in await fleet.claim(10)] == [free]
    assert await fleet.status() == {"lock": 1, "running": 1, "scheduled": 1}
    assert await fleet.places("t") == (0, 1, 0)


async def test_a_job_takes_slots_of_its_tree_and_of_its_queue_or_none(fleet: Trees) -> None:
    await fleet.limit("l", slots=3, queue="q")
    await fleet.tree(4, slots=1, queue="q", priority=5)
    await fleet.enqueue(4, queue="q")
    grants = await fleet.claim(10)
    assert len(grants) == 3
    assert await fleet.places("l") == (0, 3, 0)
    assert await fleet.places("t") == (0, 1, 0)
    for grant in grants:
        await fleet.verb("complete", grant)
    assert (await fleet.places("l"), await fleet.places("t")) == ((3, 0, 0), (1, 0, 0))


@pytest.mark.parametrize("fair", [False, True], ids=["plain", "fair"])
async def test_a_large_tree_does_not_starve_what_is_behind_it(fleet: Trees, fair: bool) -> None:
    if fair:
        await fleet.fetch("select coordinator.queue_set('default', 'default', p_fair_by => 'key')")
    await fleet.tree(1500, slots=1, priority=9, key="a")
    await fleet.enqueue(3, key="a")
    ready = 1503
    while ready:
        await fleet.claim(4)
        left = await fleet.tx.connection.fetchval("select count(*) from coordinator.jobs_ready")
        assert left < ready
        ready = left
    assert (await fleet.status())["running"] == 1
    assert await fleet.tx.connection.fetchval("select count(*) from coordinator.jobs_running") == 4


async def test_a_paused_tree_and_a_cancelled_one_leave_no_wait_behind(fleet: Trees) -> None:
    root = await fleet.tree(4, slots=1)
    (first,) = await fleet.claim(10)
    await fleet.fetch("select coordinator.job_pause('default', $1, true)", root)
    await fleet.verb("complete", first)
    for minute in range(1, 3):  # one permit is free: one job a second is woken, to find that it is paused
        await fleet.tx.set_clock(timedelta(minutes=minute))
        assert (await fleet.refill(), await fleet.refill()) == (1, 0)
    assert await fleet.status() == {"completed": 1, "tree": 3}
    await fleet.fetch("select coordinator.job_resume('default', $1, true)", root)
    assert len(await fleet.claim(10)) == 1
    await fleet.fetch("select coordinator.job_cancel('default', $1, p_tree => true)", root)
    assert await fleet.fetch("select from coordinator.job_tree_waits") == []


async def test_a_job_that_waits_for_its_tree_and_may_not_start_yet_is_scheduled_when_it_is_woken(fleet: Trees) -> None:
    """It became ready before its time, as when the clock was put back. It is not forgotten."""
    await fleet.tx.set_clock(timedelta(0))
    root = await fleet.tree(1, slots=1)
    (job,) = await fleet.claim(10)
    await fleet.verb("snooze", job, timedelta(minutes=1))
    await fleet.enqueue(1, parent=str(root))
    (other,) = await fleet.claim(10)
    await fleet.tx.set_clock(timedelta(minutes=2))
    assert await fleet.tx.connection.fetchval("select coordinator.job_promote()") == 1
    assert await fleet.claim(10) == []
    assert await fleet.status() == {"running": 1, "limit": 1}
    await fleet.tx.set_clock(timedelta(seconds=1))
    await fleet.verb("complete", other)
    assert await fleet.status() == {"completed": 1, "scheduled": 1}
    await fleet.tx.set_clock(timedelta(minutes=1))
    assert await fleet.tx.connection.fetchval("select coordinator.job_promote()") == 1
    assert [grant["id"] for grant in await fleet.claim(10)] == [job["id"]]


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"slots": 1, "queue": "q"}, "ZC105", "a tree is given together with a queue"),
        ({"slots": 1, "per_key": True}, "ZC105", "a tree is given together with"),
        ({"slots": 1, "tree": "child"}, "ZC105", "is not the root of its tree"),
        ({"slots": 1, "tree": "ended"}, "ZC323", "have ended"),
        ({"slots": 1, "tree": "unknown"}, "ZC209", "there is no job"),
        ({"slots": 1, "tree": "limited"}, "ZC325", 'has the limit "t"'),
    ],
)
async def test_what_cannot_be_limited_is_refused(fleet: Trees, fields: dict[str, Any], code: str, says: str) -> None:
    limited = await fleet.tree(1)
    free = await fleet.tree(0, slots=None)
    (child,) = await fleet.enqueue(1, parent=str(limited))
    (ended,) = await fleet.enqueue(1)
    await fleet.fetch("select coordinator.job_cancel('default', $1)", ended)
    named = {"child": child, "ended": ended, "unknown": uuid4(), "limited": limited}
    tree = named.get(fields.pop("tree", None), free)
    error = await refused(fleet.tx, limits.Set(project="default", name="n", tree=tree, **fields), code)
    assert says in error.message


async def test_a_limit_of_a_tree_cannot_be_moved_or_asked_for(fleet: Trees) -> None:
    await fleet.tree(1)
    other = await fleet.tree(0, slots=None)
    await refused(fleet.tx, limits.Set(project="default", name="t", slots=1, tree=other), "ZC325")
    error = await refused(fleet.tx, jobs.Enqueue(project="default", type="x", limits=["t"]), "ZC105")
    assert "applies to a tree" in error.message
