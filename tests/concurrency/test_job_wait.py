"""Waits and the log: nothing that happened after the place of a wait is missed, and each wait has one outcome."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.operations import directives, events, job_history, job_waits, jobs, signals
from coordinator.operations.work import RelayStep
from tests.concurrency.test_job_race import claim, held, places, started, worker
from tests.conftest import Open
from tests.sql.test_races import while_uncommitted
from tests.waiting import until_blocked

MINUTE = timedelta(minutes=1)
REPLY = {"event": "custom.reply", "key": "7"}


async def numbered(connection: asyncpg.Connection) -> None:
    while (await call(connection, RelayStep())).again:
        pass


async def matched(connection: asyncpg.Connection) -> int:
    """Number all events and compare them with all waits; return how much was done."""
    await numbered(connection)
    total = 0
    while count := await call(connection, job_waits.Match()):
        total += count
    return total


def suspend(mine: dict[str, Any], *conditions: dict[str, Any], **fields: Any) -> job_waits.Suspend:
    return job_waits.Suspend(**mine, **{"step": "wait", "conditions": [*conditions], **fields})


def reply(key: str = "7", **data: Any) -> events.Emit:
    return events.Emit(project="default", type="custom.reply", key=key, data=data)


async def outcomes(connection: asyncpg.Connection, job: UUID) -> list[Any]:
    return [step.result for step in await call(connection, job_history.ListSteps(project="default", job=job))]


async def test_an_event_ends_a_wait_and_others_do_not(session: Open) -> None:
    one = await session()
    agent = await worker(one)
    mine = await started(one, agent)
    await call(one, suspend(mine, {"signal": "x"}, REPLY))
    await call(one, reply("8"))
    await call(one, events.Emit(project="default", type="custom.other", key="7"))
    await matched(one)
    assert await places(one, mine["job"]) == ["jobs_waiting"]
    await call(one, reply(n=1))
    await call(one, reply(n=2))
    await matched(one)
    assert await places(one, mine["job"]) == ["jobs_ready"]
    (outcome,) = await outcomes(one, mine["job"])
    assert (outcome["met"], outcome["event"]["data"], outcome["event"]["key"]) == (1, {"n": 1}, "7")
    # The next wait of that name begins after what ended this one.
    mine = held(agent, await call(one, claim(agent)))
    await call(one, suspend(mine, REPLY, ordinal=2))
    await matched(one)
    assert [outcome["event"]["data"] for outcome in await outcomes(one, mine["job"])] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    "condition", [REPLY, {"event": "custom.reply"}, {"event": "custom.*", "key": "7"}, {"event": "*"}], ids=str
)
async def test_what_happened_since_the_job_first_started_ends_a_wait(session: Open, condition: dict[str, Any]) -> None:
    one = await session()
    agent = await worker(one)
    await call(one, reply(n=0))
    await numbered(one)
    mine = await started(one, agent)
    await call(one, jobs.Release(**mine))
    await call(one, reply(n=1))
    await matched(one)
    mine = held(agent, await call(one, claim(agent)))
    assert (await call(one, suspend(mine, condition))).status == "waiting"
    await matched(one)
    (outcome,) = await outcomes(one, mine["job"])
    if condition != {"event": "*"}:
        assert outcome["event"]["data"] == {"n": 1}


async def test_a_wait_begins_at_the_cursor_that_is_given(session: Open) -> None:
    one = await session()
    agent = await worker(one)
    await call(one, reply(n=0))
    await numbered(one)
    cursor = await one.fetchval("select coordinator.event_head()")
    await call(one, reply(n=1))
    await numbered(one)
    late, early = await started(one, agent), await started(one, agent)
    await call(one, suspend(late, REPLY, after="now"))
    await call(one, suspend(early, REPLY, after=cursor))
    await matched(one)
    assert [outcome["event"]["data"] for outcome in await outcomes(one, early["job"])] == [{"n": 1}]
    assert await outcomes(one, late["job"]) == []
    # After one has caught up, all continue together.
    await call(one, reply(n=2))
    await matched(one)
    assert [outcome["event"]["data"] for outcome in await outcomes(one, late["job"])] == [{"n": 2}]


async def test_waits_that_are_far_behind_catch_up_without_holding_up_others(session: Open) -> None:
    one = await session()
    agent = await worker(one)
    await numbered(one)
    cursor = await one.fetchval("select coordinator.event_head()")
    await call(one, reply(n="early"))
    for _ in range(25):  # a chunk each
        await one.execute("select coordinator.event_emit('default', 'custom.noise', 'n') from generate_series(1, 20)")
        await call(one, RelayStep())
    present = await started(one, agent)
    await call(one, suspend(present, {"event": "custom.reply", "key": "p"}, after="now"))
    await matched(one)
    behind = [await started(one, agent) for _ in range(3)]
    for mine in behind[:2]:
        await call(one, suspend(mine, REPLY, after=cursor))
    await call(one, suspend(behind[2], {"event": "custom.reply", "key": "8"}, after=cursor))
    await call(one, reply("p"))
    await matched(one)
    assert [await places(one, mine["job"]) for mine in (present, *behind)] == [["jobs_ready"]] * 3 + [["jobs_waiting"]]
    assert await one.fetchval("select array_agg(distinct behind) from coordinator.job_waits") == [False]
    assert await one.fetchval(
        "select array_agg(result -> 'event' -> 'data') from coordinator.job_steps where job = $1", behind[0]["job"]
    ) == [{"n": "early"}]


@pytest.mark.parametrize("kind", ["signal", "value", "jobs", "directive"])
async def test_what_is_not_yet_so_ends_a_wait_when_it_happens(session: Open, kind: str) -> None:
    one = await session()
    agent = await worker(one)
    other = await started(one, agent)
    mine = await started(one, agent)
    sent = await call(one, directives.Send(project="default", body="b", to_agent="w", actor="boss"))
    condition: dict[str, Any] = {
        "signal": {"signal": "s"},
        "value": {"signal": "s", "value": {"ok": True}},
        "jobs": {"jobs": [str(other["job"])]},
        "directive": {"directive": sent.id},
    }[kind]
    await call(one, suspend(mine, condition))
    await call(one, signals.Set(project="default", key="t", value={"ok": True}))
    if kind == "value":
        await call(one, signals.Set(project="default", key="s", value={"ok": False}))
    await matched(one)
    assert await places(one, mine["job"]) == ["jobs_waiting"]
    if kind in ("signal", "value"):  # set for a moment only: the log knows
        await call(one, signals.Set(project="default", key="s", value={"ok": True}))
        await call(one, signals.Delete(project="default", key="s"))
    elif kind == "jobs":
        await call(one, jobs.Fail(**other, error="e", final=True))
    else:
        await call(one, directives.Acknowledge(project="default", directive=sent.id, agent="w", status="done"))
    await matched(one)
    (outcome,) = await outcomes(one, mine["job"])
    assert outcome["met"] == 0
    assert outcome[kind if kind in outcome else "signal"] is not None


@pytest.mark.parametrize("first_waits", [True, False])
async def test_an_event_that_commits_while_the_wait_begins_is_not_missed(session: Open, first_waits: bool) -> None:
    one = await session()
    agent = await worker(one)
    mine = await started(one, agent)
    wait, told = suspend(mine, REPLY, after="now"), reply()
    await while_uncommitted_free(session, *((wait, told) if first_waits else (told, wait)))
    await matched(one)
    assert await places(one, mine["job"]) == ["jobs_ready"]


async def while_uncommitted_free(session: Open, first: Any, second: Any) -> None:
    """Run `second`, which waits for nothing, while `first` is done and not committed."""
    one, two = await session(), await session()
    async with one.transaction():
        await call(one, first)
        await call(two, second)
        await call(two, RelayStep())
        await call(two, job_waits.Match())


async def test_jobs_that_wait_for_a_large_event_are_woken_in_portions_and_others_do_not_wait_for_all(
    session: Open,
) -> None:
    one = await session()
    agent = await worker(one)
    waiting = [await started(one, agent) for _ in range(21)]
    for mine in waiting[:20]:
        await call(one, suspend(mine, REPLY))
    await call(one, suspend(waiting[20], {"event": "custom.small"}))
    await call(one, reply(text="x" * 262_000))
    await call(one, events.Emit(project="default", type="custom.small"))
    await numbered(one)
    while not (woken := await one.fetchval("select count(*) from coordinator.jobs_ready")):
        assert await call(one, job_waits.Match())
    assert woken < 20  # 5 MB of outcomes are more than a run collects
    await matched(one)
    assert {tuple(await places(one, mine["job"])) for mine in waiting} == {("jobs_ready",)}
    sizes = [
        len(outcome["event"]["data"].get("text", ""))
        for mine in waiting
        for outcome in await outcomes(one, mine["job"])
    ]
    assert sizes == [262_000] * 20 + [0]


async def test_questions_with_large_defaults_end_in_portions(session: Open) -> None:
    one = await session()
    agent = await worker(one)
    asked = [await started(one, agent) for _ in range(20)]
    for mine in asked:
        await call(one, job_waits.Ask(**mine, step="s", question="?", ttl=MINUTE, fallback="x" * 262_000))
    await one.execute("update coordinator.job_waits set due_at = now()")
    assert 0 < await call(one, job_waits.Match()) < 20
    await matched(one)
    assert {tuple(await places(one, mine["job"])) for mine in asked} == {("jobs_ready",)}


async def test_what_is_held_for_long_loses_the_data_of_its_events(session: Open) -> None:
    one = await session()
    large, same = await one.fetchrow("""
        select coordinator.job_wait_hold(jsonb_build_object('held', f.outcome), jsonb_build_object('found', f.outcome)),
               coordinator.job_wait_hold('{}', jsonb_build_object('found', f.outcome)) = jsonb_build_object('found', f.outcome)
        from (select jsonb_build_object('fence', 7, 'result', jsonb_build_object('met', 0, 'event', jsonb_build_object(
                'type', 'custom.x', 'data', jsonb_build_object('text', repeat('x', 9000000))))) as outcome) f""")
    outcome = {"fence": 7, "result": {"met": 0, "event": {"type": "custom.x", "data": {"unreadable": "json"}}}}
    assert large == {"held": outcome, "found": outcome}
    assert same


@pytest.mark.parametrize("commit", [True, False])
async def test_an_outcome_is_held_while_another_transaction_has_the_job(session: Open, commit: bool) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    mine = await started(one, agent)
    await call(one, suspend(mine, REPLY))
    cancelling = two.transaction()
    await cancelling.start()
    await call(two, jobs.Cancel(project="default", job=mine["job"]))
    await call(one, reply())
    assert await matched(one) > 0
    assert await one.fetchval("select held <> '{}' from coordinator.job_wait_log")
    assert await places(one, mine["job"]) == ["jobs_waiting"]
    await (cancelling.commit() if commit else cancelling.rollback())
    assert "job_wait_match" in await one.fetchval("select coordinator.work_due()")
    await matched(one)
    assert await places(one, mine["job"]) == (["jobs_ended"] if commit else ["jobs_ready"])
    assert len(await outcomes(one, mine["job"])) == (0 if commit else 1)
    assert await one.fetchval("select held from coordinator.job_wait_log") == {}


@pytest.mark.parametrize("commit", [True, False])
async def test_a_cancellation_waits_for_a_wake_up_and_ends_the_job_either_way(session: Open, commit: bool) -> None:
    one = await session()
    agent = await worker(one)
    mine = await started(one, agent)
    await call(one, suspend(mine, REPLY))
    await call(one, reply())
    await numbered(one)
    _, cancelled = await while_uncommitted(
        session, job_waits.Match(), jobs.Cancel(project="default", job=mine["job"]), commit=commit
    )
    assert not isinstance(cancelled, CoordinatorError)
    assert await places(one, mine["job"]) == ["jobs_ended"]
    assert len(await outcomes(one, mine["job"])) == int(commit)


@pytest.mark.parametrize("commit", [True, False])
async def test_an_answer_and_the_end_of_its_time_have_one_outcome(session: Open, commit: bool) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    mine = await started(one, agent)
    await call(one, job_waits.Ask(**mine, step="a", question="?", ttl=MINUTE, fallback="no"))
    answer = job_waits.Answer(project="default", job=mine["job"], value="yes", actor="boss")
    due = two.transaction()
    await due.start()
    await two.execute("select set_config('coordinator.fake_now', (now() + interval '1 hour')::text, true)")
    assert await call(two, job_waits.Match()) == 1
    answering = asyncio.create_task(call(one, answer))
    await until_blocked(two, one)
    await (due.commit() if commit else due.rollback())
    (result,) = await asyncio.gather(answering, return_exceptions=True)
    assert isinstance(result, CoordinatorError) == commit
    (outcome,) = await outcomes(one, mine["job"])
    assert outcome["answer"] == ("no" if commit else "yes")


async def test_a_match_and_the_end_of_its_time_have_one_outcome(session: Open) -> None:
    one, two = await session(), await session()
    agent = await worker(one)
    mine = await started(one, agent)
    await call(one, suspend(mine, REPLY, ttl=MINUTE))
    await call(one, reply())
    await numbered(one)
    async with two.transaction():
        assert await call(two, job_waits.Match()) > 0
        async with one.transaction():  # another leader, with another clock, waits for nothing
            await one.execute("select set_config('coordinator.fake_now', (now() + interval '1 hour')::text, true)")
            assert await call(one, job_waits.Match()) == 0
    await matched(one)
    (outcome,) = await outcomes(one, mine["job"])
    assert outcome["met"] == 0


async def test_pruned_history_is_replaced_by_the_present_state(session: Open) -> None:
    one = await session()
    agent = await worker(one)
    by_signal, by_event = await started(one, agent), await started(one, agent)
    await numbered(one)
    await call(one, suspend(by_signal, {"signal": "s"}))
    await call(one, suspend(by_event, REPLY))
    await call(one, signals.Set(project="default", key="s", value=1))
    await call(one, reply())
    await numbered(one)
    # What event_prune does, without a million events before.
    await one.execute("select setval('coordinator.event_floor', (select max(last_seq) from coordinator.event_chunks))")
    await one.execute(
        "delete from coordinator.event_chunks where first_seq < (select max(first_seq) from coordinator.event_chunks)"
    )
    await matched(one)
    assert await places(one, by_signal["job"]) == ["jobs_ready"]
    assert await places(one, by_event["job"]) == ["jobs_waiting"]
    await call(one, reply())
    await matched(one)
    assert await places(one, by_event["job"]) == ["jobs_ready"]


async def test_each_of_many_waits_ends_once_whoever_compares_when(session: Open, seed: int) -> None:
    """Workers suspend, somebody emits, two leaders compare, and a relay numbers, in a random order."""
    dice = random.Random(seed)
    one, two, three = await session(), await session(), await session()
    agent = await worker(one)
    waiting = [await started(one, agent) for _ in range(12)]
    for number, mine in enumerate(waiting):
        steps = [
            (one, suspend(mine, {"event": "custom.reply", "key": str(number)})),
            (two, reply(str(number), n=number)),
        ]
        dice.shuffle(steps)
        for connection, operation in steps:
            if dice.random() < 0.5:
                await call(three, RelayStep())
            if dice.random() < 0.5:
                await asyncio.gather(call(connection, operation), call(three, job_waits.Match()))
            else:
                await call(connection, operation)
    await asyncio.gather(matched(two), matched(three))
    await matched(one)
    for number, mine in enumerate(waiting):
        assert [outcome["event"]["key"] for outcome in await outcomes(one, mine["job"])] == [str(number)]
        assert await places(one, mine["job"]) == ["jobs_ready"]


async def test_of_two_jobs_that_wait_for_each_other_at_the_same_time_one_is_refused(session: Open) -> None:
    one = await session()
    first, second = [await started(one, await worker(one, name)) for name in ("a", "b")]
    done, then = await while_uncommitted(
        session, suspend(first, {"jobs": [str(second["job"])]}), suspend(second, {"jobs": [str(first["job"])]})
    )
    assert not isinstance(done, CoordinatorError)
    assert isinstance(then, CoordinatorError)
    assert then.code == "ZC313"
