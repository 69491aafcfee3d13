from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from coordinator.operations import projects, queues
from tests.conftest import Transaction
from tests.sql.refusal import refused

MINUTE = timedelta(minutes=1)


def set_(queue: str = "mail", **fields: Any) -> queues.Set:
    return queues.Set(project="default", queue=queue, **fields)


async def test_a_queue_that_is_set_has_the_defaults(tx: Transaction) -> None:
    made = await tx.run(set_(actor="boss"))
    assert (made.project, made.queue, made.fair_by, made.ageing, made.weights) == ("default", "mail", "none", None, {})
    assert (made.max_waiting, made.max_waiting_per_key, made.events, made.actor) == (None, None, "call", "boss")
    assert (made.paused_at, made.queued_count, made.running_count) == (None, 0, 0)
    assert await tx.run(queues.Get(project="default", queue="mail")) == made
    assert await tx.run(queues.List(project="default")) == [made]


async def test_only_what_is_given_changes(tx: Transaction) -> None:
    await tx.run(
        set_(fair_by="key", ageing=MINUTE, weights={"acme": 3, "zoo": 2}, max_waiting=9, max_waiting_per_key=4)
    )
    await tx.set_clock(MINUTE)
    changed = await tx.run(set_(weights={"zoo": 1, "new": 5}, events="job"))
    assert (changed.fair_by, changed.ageing, changed.weights) == ("key", MINUTE, {"acme": 3, "new": 5})
    assert (changed.max_waiting, changed.max_waiting_per_key, changed.events) == (9, 4, "job")
    assert changed.updated_at > changed.created_at


async def test_zero_removes_ageing_and_limits(tx: Transaction) -> None:
    await tx.run(set_(fair_by="key", ageing=MINUTE, max_waiting=9, max_waiting_per_key=4))
    changed = await tx.run(set_(fair_by="none", ageing=timedelta(0), max_waiting=0, max_waiting_per_key=0))
    assert (changed.fair_by, changed.ageing) == ("none", None)
    assert (changed.max_waiting, changed.max_waiting_per_key) == (None, None)


async def test_the_event_has_the_policy(tx: Transaction) -> None:
    await tx.run(set_(ageing=MINUTE, weights={"acme": 3}, max_waiting=9, actor="boss"))
    (event,) = await tx.events()
    assert (event["type"], event["key"], event["actor"]) == ("queue.set", "mail", "boss")
    assert event["data"] == {
        "fair_by": "none",
        "ageing_s": 60,
        "max_waiting": 9,
        "max_waiting_per_key": None,
        "events": "call",
    }


async def test_a_queue_is_paused_once_and_resumed_once(tx: Transaction) -> None:
    await tx.run(set_())
    paused = await tx.run(queues.Pause(project="default", queue="mail", reason="Down", actor="boss"))
    assert (paused.paused_by, paused.pause_reason) == ("boss", "Down")
    await tx.set_clock(MINUTE)
    assert await tx.run(queues.Pause(project="default", queue="mail", reason="Again", actor="other")) == paused
    resumed = await tx.run(queues.Resume(project="default", queue="mail"))
    assert (resumed.paused_at, resumed.paused_by, resumed.pause_reason) == (None, None, None)
    assert await tx.run(queues.Resume(project="default", queue="mail")) == resumed
    assert [event["type"] for event in await tx.events()] == ["queue.set", "queue.paused", "queue.resumed"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"queue": ""}, "ZC101"),
        ({"queue": "a\nb"}, "ZC103"),
        ({"fair_by": "type"}, "ZC105"),
        ({"events": "none"}, "ZC105"),
        ({"ageing": timedelta(seconds=-1)}, "ZC104"),
        ({"ageing": timedelta(milliseconds=1)}, "ZC104"),
        ({"weights": {"a": 0}}, "ZC104"),
        ({"weights": {"a": -1}}, "ZC104"),
        ({"weights": {"a": 1.5}}, "ZC104"),
        ({"weights": {"a": 1e300}}, "ZC104"),
        ({"weights": {"a": "NaN"}}, "ZC104"),
        ({"weights": {"a": None}}, "ZC104"),
        ({"weights": {"": 2}}, "ZC101"),
        ({"weights": {"\u200b": 2}}, "ZC103"),
        ({"weights": [1]}, "ZC105"),
        ({"max_waiting": -1}, "ZC104"),
        ({"max_waiting_per_key": 1_000_001}, "ZC104"),
    ],
    ids=str,
)
async def test_bad_input_is_refused(tx: Transaction, fields: dict[str, Any], code: str) -> None:
    await refused(tx, set_(**fields), code)


@pytest.mark.parametrize(
    "kind", [queues.Get, queues.Pause, queues.Resume, queues.Delete], ids=lambda kind: kind.function
)
async def test_a_queue_that_does_not_exist_is_not_found_and_the_one_that_was_meant_is_named(
    tx: Transaction, kind: Any
) -> None:
    await tx.run(set_("builds"))
    error = await refused(tx, kind(project="default", queue="bilds"), "ZC210")
    assert (error.hint or "").startswith('Did you mean "builds"?')


async def test_queues_of_another_project_are_others(tx: Transaction) -> None:
    await tx.run(projects.Create(project="shop"))
    await tx.run(set_(max_waiting=1))
    await tx.run(queues.Set(project="shop", queue="mail", max_waiting=2))
    assert [q.max_waiting for q in await tx.run(queues.List(project="shop"))] == [2]
    await tx.run(projects.Delete(project="shop"))
    assert [q.max_waiting for q in await tx.run(queues.List(project="default"))] == [1]


async def enqueue(tx: Transaction, *, key: str | None = None, priority: int = 0) -> str:
    sql = "select id from coordinator.job_enqueue('default', 'build', p_queue => 'mail', p_key => $1, p_priority => $2)"
    return str(await tx.connection.fetchval(sql, key, priority))


async def worker(tx: Transaction) -> str:
    sql = "select id from coordinator.agent_register('default', 'w', p_job_types => '{build}', p_ttl => '1 day')"
    return str(await tx.connection.fetchval(sql))


async def claim(tx: Transaction, agent: str, limit: int = 1) -> list[str]:
    rows = await tx.connection.fetch("select id from coordinator.job_claim('default', $1, $2)", agent, limit)
    return [str(row["id"]) for row in rows]


async def test_jobs_that_wait_take_turns_from_the_moment_their_queue_is_fair(tx: Transaction) -> None:
    agent = await worker(tx)
    many = [await enqueue(tx, key="many") for _ in range(5)]
    few = [await enqueue(tx, key="few") for _ in range(2)]
    await tx.run(set_(fair_by="key"))
    first = [(await claim(tx, agent))[0] for _ in range(4)]
    assert set(first) == {*many[:2], *few}
    assert await claim(tx, agent, 9) == many[2:]


async def test_jobs_that_wait_are_in_their_order_again_when_their_queue_is_no_longer_fair(tx: Transaction) -> None:
    await tx.run(set_(fair_by="key", weights={"many": 3}))
    agent = await worker(tx)
    jobs = [await enqueue(tx, key=key) for key in ("many", "many", "many", "few")] + [await enqueue(tx)]
    await tx.run(set_(fair_by="none"))
    assert [(await claim(tx, agent))[0] for _ in range(5)] == jobs
    for table in ("job_lanes", "job_permits", "jobs_ready"):
        assert await tx.connection.fetchval(f"select count(*) from coordinator.{table}") == 0


@pytest.mark.parametrize("fair_by", ["none", "key"])
async def test_ageing_applies_to_jobs_that_wait(tx: Transaction, fair_by: str) -> None:
    await tx.run(set_(fair_by=fair_by))
    agent = await worker(tx)
    old = await enqueue(tx)
    await tx.set_clock(3 * MINUTE)
    new = await enqueue(tx, priority=1)
    await tx.run(set_(ageing=2 * MINUTE))
    assert await claim(tx, agent, 0) == []
    ranks = "select id::text from coordinator.jobs_ready order by rank"
    assert [row["id"] for row in await tx.connection.fetch(ranks)] == [old, new]
    await tx.run(set_(ageing=timedelta(0)))
    assert [row["id"] for row in await tx.connection.fetch(ranks)] == [new, old]
    assert [(await claim(tx, agent))[0] for _ in range(2)] == [new, old]


async def test_a_weight_applies_to_lanes_that_wait(tx: Transaction) -> None:
    await tx.run(set_(fair_by="key"))
    agent = await worker(tx)
    for key in ("a", "b"):
        for _ in range(8):
            await enqueue(tx, key=key)
    await tx.run(set_(weights={"a": 3}))
    taken = await claim(tx, agent, 4)
    keys = "select key, count(*) from coordinator.jobs_open where id = any ($1::uuid[]) group by key"
    assert {row["key"]: row["count"] for row in await tx.connection.fetch(keys, taken)} == {"a": 3, "b": 1}


async def test_a_weight_that_is_written_as_a_decimal_number_is_a_whole_one(tx: Transaction) -> None:
    changed = await tx.run(set_(fair_by="key", weights={"a": 2.0, "b": 1.0}))
    assert [(key, type(weight)) for key, weight in changed.weights.items()] == [("a", int)]
    await enqueue(tx, key="a")


async def test_no_job_of_a_paused_queue_is_claimed_and_its_jobs_are_counted(tx: Transaction) -> None:
    agent = await worker(tx)
    for _ in range(3):
        await enqueue(tx)
    (running,) = await claim(tx, agent)
    paused = await tx.run(queues.Pause(project="default", queue="mail"))
    assert (paused.queued_count, paused.running_count) == (2, 1)
    assert await claim(tx, agent, 5) == []
    await enqueue(tx)
    resumed = await tx.run(queues.Resume(project="default", queue="mail"))
    assert (resumed.queued_count, resumed.running_count) == (3, 1)
    assert running not in await claim(tx, agent, 5)


async def move(tx: Transaction, status: str) -> None:
    """Make one open job of this status in the queue."""
    if status == "running":
        agent = await worker(tx)
        await enqueue(tx)
        assert len(await claim(tx, agent)) == 1
        return
    more = ", p_delay => '1 h'" if status == "scheduled" else ""
    if status == "waiting":
        sql = "select id from coordinator.job_enqueue('default', 'build', p_queue => 'other')"
        first = await tx.connection.fetchval(sql)
        more = f", p_after => array['{first}'::uuid]"
    await tx.connection.execute(f"select coordinator.job_enqueue('default', 'build', p_queue => 'mail'{more})")


@pytest.mark.parametrize("status", ["queued", "scheduled", "waiting", "running"])
async def test_a_queue_with_an_open_job_is_not_deleted_and_the_error_says_why(tx: Transaction, status: str) -> None:
    await move(tx, status)
    error = await refused(tx, queues.Delete(project="default", queue="mail"), "ZC326")
    assert error.message == f'queue "mail" has open jobs: 1 {status}'
    assert json.loads(error.detail or "") == {status: 1}
    assert 'job list --queue mail"' in (error.hint or "")


async def test_open_jobs_of_all_statuses_are_counted(tx: Transaction) -> None:
    for status in ("running", "waiting", "scheduled", "queued", "queued"):
        await move(tx, status)
    error = await refused(tx, queues.Delete(project="default", queue="mail"), "ZC326")
    assert error.message.endswith(": 2 queued, 1 scheduled, 1 waiting, 1 running")


async def test_a_queue_that_is_deleted_leaves_nothing_and_the_next_job_creates_it_with_the_defaults(
    tx: Transaction,
) -> None:
    await tx.run(set_(fair_by="key", ageing=MINUTE, max_waiting=9))
    agent = await worker(tx)
    done, cancelled = [await enqueue(tx, key=key) for key in ("a", "b")]
    assert await claim(tx, agent) == [done]
    await tx.connection.execute(
        "select coordinator.job_complete('default', r.id, r.agent_id, r.fence) from coordinator.jobs_running r"
    )
    await tx.connection.execute("select coordinator.job_cancel('default', $1)", cancelled)
    assert await tx.run(queues.Delete(project="default", queue="mail", actor="boss")) is True
    for table in ("queues", "job_classes", "job_lanes", "job_permits"):
        assert await tx.connection.fetchval(f"select count(*) from coordinator.{table}") == 0
    last = (await tx.events())[-1]
    assert (last["type"], last["key"], last["actor"]) == ("queue.deleted", "mail", "boss")
    sql = "select status from coordinator.jobs where id = any ($1::uuid[]) order by status"
    assert [row["status"] for row in await tx.connection.fetch(sql, [done, cancelled])] == ["cancelled", "completed"]
    await enqueue(tx)
    made = await tx.run(queues.Get(project="default", queue="mail"))
    assert (made.fair_by, made.ageing, made.max_waiting) == ("none", None, None)
