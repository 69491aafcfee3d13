"""Slots per key: the maximum for each key holds over all types of a queue, and a full key is in nobody's way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.conftest import Transaction
from tests.sql.test_limit_slots import Fleet

BOTH = pytest.mark.parametrize("fair", [False, True], ids=["plain", "fair"])


@pytest.fixture
def fleet(tx: Transaction) -> Fleet:
    return Fleet(tx)


async def keys(fleet: Fleet, slots: int = 1, *, fair: bool = False, **fields: Any) -> None:
    await fleet.limit("k", slots=slots, per_key=True, **(fields or {"queue": "q"}))
    if fair:
        await fleet.fetch("select coordinator.queue_set('default', 'q', p_fair_by => 'key')")


async def running(fleet: Fleet) -> Counter[str | None]:
    rows = await fleet.fetch(
        "select j.key from coordinator.jobs_running r join coordinator.jobs_open j on j.id = r.id order by 1"
    )
    return Counter(row["key"] for row in rows)


async def line(fleet: Fleet) -> list[str]:
    rows = await fleet.fetch(
        "select l.key from coordinator.job_permits p join coordinator.job_lanes l on l.id = p.lane_id order by p.turn"
    )
    return [row["key"] for row in rows]


@BOTH
async def test_each_key_has_slots_of_its_own(fleet: Fleet, fair: bool) -> None:
    await keys(fleet, 2, fair=fair)
    for key in "abc":
        await fleet.enqueue(4, queue="q", key=key)
    await fleet.enqueue(1, queue="q", key="d")
    grants = await fleet.claim(100)
    assert await running(fleet) == {"a": 2, "b": 2, "c": 2, "d": 1}
    assert await fleet.claim(100) == []
    await fleet.verb("complete", next(grant for grant in grants if grant["key"] == "b"))
    assert [grant["key"] for grant in await fleet.claim(100)] == ["b"]


@BOTH
async def test_jobs_without_a_key_have_no_limit(fleet: Fleet, fair: bool) -> None:
    await keys(fleet, 1, fair=fair)
    await fleet.enqueue(30, queue="q")
    await fleet.enqueue(3, queue="q", key="a")
    assert len(await fleet.claim(100)) == 31


async def test_the_types_of_a_queue_share_the_slots_of_a_key(fleet: Fleet) -> None:
    await keys(fleet, 2)
    for kind in "xy":
        await fleet.enqueue(3, queue="q", key="a", type=kind)
    grants = await fleet.claim(100)
    assert await running(fleet) == {"a": 2}
    for grant in grants:
        await fleet.verb("complete", grant)
    assert await line(fleet) == ["a", "a"] or await line(fleet) == ["a"] * 4
    # What is left of both types can be claimed.
    left = await fleet.claim(100, types=["x"]) + await fleet.claim(100, types=["y"])
    assert len(left) == 2


async def test_a_limit_of_a_type_counts_its_keys_over_all_queues(fleet: Fleet) -> None:
    await keys(fleet, 2, type="x")
    for queue in ("q", "r", "s"):
        await fleet.enqueue(2, queue=queue, key="a")
        await fleet.enqueue(1, queue=queue, key="a", type="y")
    grants = await fleet.claim(100)
    assert Counter(grant["type"] for grant in grants) == {"x": 2, "y": 3}


async def test_a_key_needs_a_slot_of_each_of_its_limits(fleet: Fleet) -> None:
    await keys(fleet, 3)
    await fleet.limit("of_type", slots=1, per_key=True, type="x")
    await fleet.limit("l", slots=4, queue="q")
    for key in "ab":
        await fleet.enqueue(3, queue="q", key=key, type="x")
        await fleet.enqueue(3, queue="q", key=key, type="y")
    assert len(await fleet.claim(100)) == 4
    rows = await fleet.fetch(
        "select j.key, j.type, count(*) as jobs from coordinator.jobs_running r join coordinator.jobs_open j on j.id = r.id group by 1, 2"
    )
    assert all(row["jobs"] <= (1 if row["type"] == "x" else 3) for row in rows)
    assert await fleet.places() == (0, 4, 0)


@BOTH
async def test_a_full_key_leaves_the_line_and_returns_when_a_slot_is_free(fleet: Fleet, fair: bool) -> None:
    await keys(fleet, 1, fair=fair)
    for key in "abc":
        await fleet.enqueue(2, queue="q", key=key)
    grants = await fleet.claim(100)
    assert await line(fleet) == []
    assert await fleet.claim(100, worker="other") == []
    await fleet.verb("fail", grants[1], "boom", True)
    assert await line(fleet) == [grants[1]["key"]]
    assert await fleet.freed() == ["k"]
    assert [grant["key"] for grant in await fleet.claim(100)] == [grants[1]["key"]]


@BOTH
async def test_keys_take_turns_and_are_served_again_when_they_have_room(fleet: Fleet, fair: bool) -> None:
    await keys(fleet, 3, fair=fair)
    for key in "ab":
        await fleet.enqueue(20, queue="q", key=key)
    for _ in range(10):
        for grant in await fleet.claim(4):
            await fleet.verb("complete", grant)
    assert len(await fleet.fetch("select from coordinator.jobs_ready")) == 0
    await fleet.claim(4)
    for table in ("job_lanes", "job_permits"):
        assert await fleet.fetch(f"select from coordinator.{table}") == [], table


@BOTH
async def test_a_limit_that_is_set_later_counts_what_runs_and_places_what_waits(fleet: Fleet, fair: bool) -> None:
    if fair:
        await fleet.fetch("select coordinator.queue_set('default', 'q', p_fair_by => 'key')")
    for key in "ab":
        await fleet.enqueue(5, queue="q", key=key)
    first = await fleet.claim(3)
    await keys(fleet, 2)
    more = await fleet.claim(100)
    most = Counter(grant["key"] for grant in first)
    assert await running(fleet) == {key: max(most[key], 2) for key in "ab"}
    for grant in [*first, *more]:
        await fleet.verb("complete", grant)
    left = 10 - len(first) - len(more)
    while left:
        grants = await fleet.claim(100)
        assert {*Counter(grant["key"] for grant in grants).values()} <= {1, 2}
        left -= len(grants)
        for grant in grants:
            await fleet.verb("complete", grant)


@BOTH
async def test_waiting_keys_continue_when_their_limit_is_raised_or_deleted(fleet: Fleet, fair: bool) -> None:
    await keys(fleet, 1, fair=fair)
    for key in "ab":
        await fleet.enqueue(5, queue="q", key=key)
    assert len(await fleet.claim(100)) == 2
    await fleet.limit("k", slots=3)
    assert len(await fleet.claim(100)) == 4
    await fleet.limit("k", slots=1)
    assert len(await fleet.claim(100)) == 0
    await fleet.fetch("select coordinator.limit_delete('default', 'k')")
    assert len(await fleet.claim(100)) == 4
    assert await fleet.fetch("select from coordinator.job_keys") == []


async def test_a_key_whose_slots_are_lowered_waits_until_enough_jobs_have_ended(fleet: Fleet) -> None:
    await keys(fleet, 3)
    await fleet.enqueue(9, queue="q", key="a")
    grants = await fleet.claim(100)
    await fleet.limit("k", slots=2)
    await fleet.verb("complete", grants[0])
    assert await fleet.claim(100) == []
    await fleet.verb("complete", grants[1])
    assert len(await fleet.claim(100)) == 1


async def test_a_job_that_a_claim_cannot_start_keeps_its_key_open(fleet: Fleet) -> None:
    await keys(fleet, 3)
    for key in "abcdef":
        await fleet.enqueue(1, queue="q", key=key, payload="x" * 260_000)
        await fleet.enqueue(3, queue="q", key=key)
    ids = set()
    while grants := await fleet.claim(6):
        ids |= {grant["id"] for grant in grants}
        for grant in grants:
            await fleet.verb("complete", grant)
    assert len(ids) == 24


async def test_rows_of_keys_are_deleted_when_they_have_no_jobs(fleet: Fleet) -> None:
    await keys(fleet, 1)
    for key in "ab":
        await fleet.enqueue(1, queue="q", key=key)
    assert len(await fleet.claim(1)) == 1
    assert await fleet.tx.connection.fetchval("select coordinator.limit_prune_keys()") == 1
    assert len(await fleet.claim(1)) == 1


async def test_a_queue_changes_its_policy_and_keeps_its_limits_per_key(fleet: Fleet) -> None:
    await keys(fleet, 1)
    for key in "ab":
        await fleet.enqueue(3, queue="q", key=key)
    (first,) = await fleet.claim(1)
    await fleet.fetch("select coordinator.queue_set('default', 'q', p_fair_by => 'key', p_ageing => '1 minute')")
    (second,) = await fleet.claim(100)
    assert first["key"] != second["key"]
    await fleet.fetch("select coordinator.queue_set('default', 'q', p_fair_by => 'none')")
    assert await fleet.claim(100) == []
    await fleet.verb("complete", first)
    assert [grant["key"] for grant in await fleet.claim(100)] == [first["key"]]


async def test_the_line_is_read_once_when_a_limit_of_many_keys_is_deleted(fleet: Fleet) -> None:
    """Not once for each key: with 9,000 keys, that took 7 seconds."""
    await keys(fleet)
    await fleet.fetch("""
        select count(*) from coordinator.job_enqueue_many('default', (
          select jsonb_agg(jsonb_build_object('type', 'x', 'queue', 'q', 'key', n::text)) from generate_series(1, 300) n))""")
    read = "select pg_stat_get_xact_tuples_returned('coordinator.job_permits_pkey'::regclass) as count"
    before = (await fleet.fetch(read))[0]["count"]
    await fleet.fetch("select coordinator.limit_delete('default', 'k')")
    assert (await fleet.fetch(read))[0]["count"] - before < 10_000


async def test_lanes_and_permits_are_deleted_with_their_classes(fleet: Fleet) -> None:
    """Their jobs were cancelled, and no claim has found the lanes empty since. Classes are deleted where there are many."""
    await keys(fleet)
    for kind in "xy":
        await fleet.enqueue(1, queue="q", key="a", type=kind)
    await fleet.fetch(
        "insert into coordinator.job_classes (project_id, queue, type)"
        " select c.project_id, c.queue, 't' || n from coordinator.job_classes c, generate_series(1, 501) n where c.type = 'x'"
    )
    await fleet.fetch("select coordinator.job_cancel('default', id) from coordinator.jobs_open where type = 'y'")
    assert len(await line(fleet)) == 2
    while (await fleet.fetch("select coordinator.job_class_prune() as pruned"))[0]["pruned"]:
        pass
    assert await line(fleet) == ["a"]
    assert len(await fleet.fetch("select from coordinator.job_permits")) == 1
    assert [grant["type"] for grant in await fleet.claim(9)] == ["x"]
