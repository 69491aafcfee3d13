"""Durable waits and questions of jobs, in one transaction: what is refused, what the present state ends, time, and who answers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from coordinator.model.agent import Agent
from coordinator.operations import agents, directives, job_history, job_waits, jobs, limits, signals
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_job import HOUR, MINUTE, World, held

UNMET: list[dict[str, Any]] = [{"signal": "never"}]


@pytest_asyncio.fixture(loop_scope="session")
async def world(tx: Transaction) -> World:
    return World(tx)


async def suspend(world: World, mine: dict[str, Any], *conditions: dict[str, Any], **fields: Any) -> Any:
    given = {"step": "wait", "conditions": [*conditions], **fields}
    return await world.run(job_waits.Suspend(**mine, **given))


async def ask(world: World, mine: dict[str, Any], **fields: Any) -> Any:
    return await world.run(job_waits.Ask(**mine, **{"step": "approval", "question": "Deploy?", **fields}))


async def results(world: World, job: UUID) -> list[tuple[str, str, Any, str]]:
    steps = await world.run(job_history.ListSteps(project="default", job=job))
    return [(step.name, step.kind, step.result, step.actor) for step in steps]


async def why(world: World, job: UUID) -> Any:
    return await world.run(job_history.Why(project="default", job=job))


async def started(world: World, **fields: Any) -> tuple[Agent, dict[str, Any]]:
    worker = await world.worker()
    return worker, await world.start(worker, **fields)


async def test_a_suspended_job_waits_without_its_worker_and_spends_no_attempt(world: World) -> None:
    worker, mine = await started(world, max_attempts=1)
    await world.run(jobs.Report(**mine, checkpoint={"page": 3}))
    done = await suspend(world, mine, *UNMET)
    assert (done.id, done.status, done.due_at, done.result) == (mine["job"], "waiting", None, None)
    assert (await world.row(mine["job"]))["table"] == "jobs_waiting"
    assert await world.claim(worker) == []
    await refused(world.tx, jobs.Complete(**mine), "ZC320")
    await refused(world.tx, job_waits.Suspend(**mine, step="again", conditions=UNMET), "ZC320")
    assert [type_ for type_, _ in await world.told()] == ["job.enqueued", "job.started", "job.waiting"]
    (attempt,) = await world.run(job_history.Attempts(project="default", job=mine["job"]))
    assert (attempt.outcome, attempt.worker) == ("waiting", "w")
    assert await world.tx.connection.fetchval("select checkpoint from coordinator.jobs_open") == {"page": 3}


async def test_time_ends_a_wait_and_the_next_attempt_reads_the_outcome(world: World) -> None:
    await world.tx.set_clock(timedelta())
    worker, mine = await started(world, max_attempts=1)
    waiting = await suspend(world, mine, {"delay": "10m"}, ttl=HOUR)
    assert waiting.due_at - await world.tx.connection.fetchval("select coordinator.now_utc()") == 10 * MINUTE
    assert await world.run(job_waits.Match()) == 0
    await world.tx.set_clock(11 * MINUTE)
    assert "job_wait_match" in await world.tx.connection.fetchval("select coordinator.work_due()")
    assert await world.run(job_waits.Match()) == 1
    assert await world.run(job_waits.Match()) == 0
    (grant,) = await world.claim(worker)
    assert (grant.id, grant.attempt, grant.steps) == (mine["job"], 1, 1)
    ((name, kind, result, actor),) = await results(world, grant.id)
    assert (name, kind, result["met"], actor) == ("wait", "wait", 0, "coordinator")
    assert datetime.fromisoformat(result["at"]) == waiting.due_at
    again = await suspend(world, held(worker, [grant]), {"delay": "10m"}, ttl=HOUR)
    assert (again.status, again.result) == ("running", result)


async def test_a_wait_that_times_out_has_an_outcome_too(world: World) -> None:
    worker, mine = await started(world)
    await suspend(world, mine, *UNMET, {"delay": 3600}, ttl=MINUTE)
    await world.tx.set_clock(2 * MINUTE)
    assert await world.run(job_waits.Match()) == 1
    assert [result["met"] for _, _, result, _ in await results(world, mine["job"])] == [None]
    assert len(await world.claim(worker)) == 1


async def test_a_condition_that_is_met_leaves_the_job_with_its_worker(world: World) -> None:
    _, mine = await started(world)
    await world.run(signals.Set(project="default", key="build/state", value="green"))
    red, green = {"signal": "build/state", "value": "red"}, {"signal": "build/state", "value": "green"}
    done = await suspend(world, mine, red, green)
    assert (done.status, done.result["met"], done.result["signal"]["value"]) == ("running", 1, "green")
    assert (await suspend(world, mine, red, ordinal=1)).result == done.result
    assert (await suspend(world, mine, {"delay": 0}, step="now")).result["met"] == 0
    assert (await suspend(world, mine, red, ordinal=2)).status == "waiting"


@pytest.mark.parametrize(
    ("mode", "ended", "met"), [("all", 1, False), ("all", 2, True), ("any", 0, False), ("any", 1, True)]
)
async def test_jobs_that_have_ended_meet_a_condition(world: World, mode: str, ended: int, met: bool) -> None:
    worker = await world.worker()
    others = [held(worker, [grant]) for _ in range(2) if await world.enqueue() for grant in await world.claim(worker)]
    for other in others[:ended]:
        await world.run(jobs.Complete(**other))
    mine = await world.start(worker)
    done = await suspend(world, mine, {"jobs": [str(other["job"]) for other in others], "mode": mode})
    assert done.status == ("running" if met else "waiting")
    if met:
        assert done.result["jobs"] == {str(other["job"]): "completed" for other in others[:ended]}


async def test_the_answer_of_a_directive_meets_a_condition(world: World) -> None:
    _, mine = await started(world)
    await world.run(agents.Register(project="default", name="coder"))
    sent = await world.run(directives.Send(project="default", body="Review it", to_agent="coder", actor="boss"))
    other = await world.run(directives.Send(project="default", body="Test it", to_agent="coder", actor="boss"))
    acknowledge = directives.Acknowledge(
        project="default", directive=sent.id, agent="coder", status="refused", reason="no"
    )
    await world.run(acknowledge)
    done = await suspend(world, mine, {"directive": other.id}, {"directive": sent.id})
    assert (done.status, done.result["met"]) == ("running", 1)
    assert done.result["directive"] == {"id": sent.id, "status": "refused", "agent": "coder", "reason": "no"}
    await world.run(directives.Revoke(project="default", directive=other.id))
    assert (await suspend(world, mine, {"directive": other.id}, step="b")).result["directive"]["status"] == "revoked"


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        ([], "ZC101"),
        ([{}], "ZC105"),
        (["x"], "ZC103"),
        ([{"signal": "a", "event": "b"}], "ZC105"),
        ([{"signal": "a", "key": "b"}], "ZC105"),
        ([{"signal": ""}], "ZC101"),
        ([{"signal": 7}], "ZC101"),
        ([{"signal": "a\n"}], "ZC103"),
        ([{"event": "Signal"}], "ZC103"),
        ([{"event": "job.complete"}], "ZC103"),  # no event has this type
        ([{"event": "jobs.*"}], "ZC103"),
        ([{"event": ["signal.set"]}], "ZC101"),
        ([{"event": "signal.set", "key": 7}], "ZC101"),
        ([{"delay": -1}], "ZC104"),
        ([{"delay": "soon"}], "22007"),
        ([{"delay": 1e11}], "ZC104"),
        ([{"delay": None}], "ZC103"),
        ([{"at": "tomorrow"}], "ZC103"),
        ([{"at": "1999-12-31T00:00:00Z"}], "ZC104"),
        ([{"at": "9999-12-31T00:00:00Z"}], "ZC104"),
        ([{"jobs": []}], "ZC103"),
        ([{"jobs": "all"}], "ZC103"),
        ([{"jobs": ["x"]}], "ZC103"),
        ([{"jobs": [str(UUID(int=1))]}], "ZC209"),
        ([{"jobs": [str(UUID(int=1))], "mode": "some"}], "ZC105"),
        ([{"directive": 7}], "ZC204"),
        ([{"directive": "7"}], "ZC103"),
        ([{"directive": None}], "ZC103"),
    ],
    ids=str,
)
async def test_an_invalid_condition_is_refused_and_the_job_continues(world: World, conditions: Any, code: str) -> None:
    _, mine = await started(world)
    operation = job_waits.Suspend(**mine, step="s", conditions=conditions)
    if code.startswith("ZC"):
        await refused(world.tx, operation, code)
    else:
        with pytest.raises(Exception, match="soon"):
            await world.run(operation)
    await world.run(jobs.Complete(**mine))


async def test_a_job_cannot_wait_for_itself(world: World) -> None:
    _, mine = await started(world)
    await refused(world.tx, job_waits.Suspend(**mine, step="s", conditions=[{"jobs": [str(mine["job"])]}]), "ZC105")


@pytest.mark.parametrize("after", ["x", "1.2.3", "now "])
async def test_an_invalid_cursor_is_refused(world: World, after: str) -> None:
    _, mine = await started(world)
    await refused(world.tx, job_waits.Suspend(**mine, step="s", conditions=UNMET, after=after), "ZC103")


async def test_a_name_is_of_one_kind_of_step(world: World) -> None:
    _, mine = await started(world)
    await world.run(job_waits.FinishStep(**mine, step="a"))
    await refused(world.tx, job_waits.Suspend(**mine, step="a", conditions=UNMET), "ZC329")
    await refused(world.tx, job_waits.Ask(**mine, step="a", question="?"), "ZC329")
    await suspend(world, mine, {"delay": 0}, step="b")
    await refused(world.tx, job_waits.FinishStep(**mine, step="b"), "ZC329")


async def test_a_job_whose_cancellation_was_requested_ends_instead_of_waiting(world: World) -> None:
    _, mine = await started(world)
    await world.run(jobs.Cancel(project="default", job=mine["job"]))
    assert (await suspend(world, mine, *UNMET)).status == "cancelled"
    assert (await world.row(mine["job"]))["status"] == "cancelled"
    assert await world.tx.connection.fetchval("select count(*) from coordinator.job_waits") == 0


async def test_a_job_that_waits_is_cancelled_and_nothing_of_the_wait_remains(world: World) -> None:
    _, mine = await started(world)
    await suspend(world, mine, *UNMET, ttl=MINUTE)
    await world.run(jobs.Cancel(project="default", job=mine["job"]))
    await world.tx.set_clock(HOUR)
    assert await world.run(job_waits.Match()) == 0
    assert await results(world, mine["job"]) == []
    for table in ("job_waits", "job_watches"):
        assert await world.tx.connection.fetchval(f"select count(*) from coordinator.{table}") == 0


async def test_nobody_who_waits_costs_no_loop(world: World) -> None:
    await world.run(signals.Set(project="default", key="k", value=1))
    assert "job_wait_match" not in await world.tx.connection.fetchval("select coordinator.work_due()")
    _, mine = await started(world)
    await suspend(world, mine, {"delay": 60})
    assert "job_wait_match" not in await world.tx.connection.fetchval("select coordinator.work_due()")


async def test_why_says_what_a_job_waits_for(world: World) -> None:
    worker, mine = await started(world)
    other = await world.enqueue()
    await suspend(world, mine, {"signal": "deploy/ok"}, ttl=HOUR)
    said = await why(world, mine["job"])
    assert said.sentence.startswith('It waits for signal "deploy/ok", until ')
    assert (said.status, said.cause, said.until is not None, said.names) == ("waiting", "wait", True, ["w"])
    mine = held(worker, await world.claim(worker))
    assert mine["job"] == other.id
    await suspend(world, mine, {"event": "custom.reply", "key": "7"}, {"event": "job.*"}, {"signal": "a", "value": [1]})
    assert (await why(world, mine["job"])).sentence.startswith(
        'It waits for the first of event custom.reply with the key "7", event job.*, signal "a" with the value [1]; worker "w" '
    )


async def test_why_says_until_when_a_job_waits_for_a_time(world: World) -> None:
    worker, mine = await started(world)
    await suspend(world, mine, {"delay": 3600})
    said = await why(world, mine["job"])
    assert said.sentence.startswith(f'It waits until {said.until:%Y-%m-%d %H:%M:%S}Z; worker "w" ')
    await world.enqueue()
    mine = held(worker, await world.claim(worker))
    await suspend(world, mine, {"signal": "stop"}, {"delay": 3600})
    said = await why(world, mine["job"])
    assert said.sentence.startswith(
        f'It waits for the first of signal "stop", the time {said.until:%Y-%m-%d %H:%M:%S}Z; worker "w" '
    )


async def test_a_manager_answers_a_question_and_the_answer_keeps_who_it_was(world: World) -> None:
    worker, mine = await started(world)
    waiting = await ask(world, mine, options=["yes", "no"], ttl=HOUR, fallback="no")
    assert waiting.status == "waiting"
    (question,) = await world.run(job_waits.ListQuestions(project="default"))
    assert (question.job, question.step, question.question, question.options) == (
        mine["job"],
        "approval",
        "Deploy?",
        ["yes", "no"],
    )
    assert (question.fallback, question.worker, question.due_at, question.type) == ("no", "w", waiting.due_at, "x")
    said = await why(world, mine["job"])
    assert said.cause == "answer"
    assert 'worker "w" asked "Deploy?" (yes, no), until ' in said.sentence
    assert said.sentence.endswith(', then it is "no".')
    answer = job_waits.Answer(project="default", job=mine["job"], value="yes", reason="Tested", actor="boss")
    step = await world.run(answer)
    assert (step.kind, step.actor, step.result) == (
        "answer",
        "boss",
        {"answer": "yes", "by": "boss", "reason": "Tested"},
    )
    assert await world.run(answer) == step
    assert await world.run(job_waits.ListQuestions(project="default")) == []
    (grant,) = await world.claim(worker)
    done = await ask(world, held(worker, [grant]), options=["yes", "no"])
    assert (done.status, done.result["answer"], done.result["by"]) == ("running", "yes", "boss")
    await world.run(jobs.Complete(**held(worker, [grant])))
    assert await world.run(answer) == step
    told = [type_ for type_, _ in await world.told()]
    assert told[2:4] == ["job.waiting", "job.asked"]
    assert told.count("job.answered") == 1


async def test_nobody_answers_a_question_of_their_own_or_twice_or_wrongly(world: World) -> None:
    _, mine = await started(world)
    await ask(world, mine, options=["yes", "no"])
    answer = {"project": "default", "job": mine["job"], "value": "yes"}
    error = await refused(world.tx, job_waits.Answer(**answer, actor="w"), "42501")
    assert '"w" asked' in error.message
    error = await refused(world.tx, job_waits.Answer(**{**answer, "value": "yess"}, actor="boss"), "ZC105")
    assert '"yes"' in (error.hint or "")
    await refused(world.tx, job_waits.Answer(**{**answer, "value": True}, actor="boss"), "ZC105")
    await refused(world.tx, job_waits.Answer(**answer, actor="boss", step="other"), "ZC213")
    await refused(world.tx, job_waits.Answer(**answer, actor="boss", ordinal=2), "ZC213")
    await world.run(job_waits.Answer(**answer, actor="boss", step="approval", ordinal=1))
    error = await refused(world.tx, job_waits.Answer(**{**answer, "value": "no"}, actor="boss"), "ZC330")
    assert msgspec.json.decode(error.detail or "")["by"] == "boss"
    await refused(world.tx, job_waits.Answer(**answer, actor="other"), "ZC330")


async def test_a_question_without_an_answer_gets_the_default_and_is_over(world: World) -> None:
    worker, mine = await started(world)
    await ask(world, mine, ttl=MINUTE, fallback={"go": False})
    await world.tx.set_clock(2 * MINUTE)
    assert await world.run(job_waits.Match()) == 1
    assert await results(world, mine["job"]) == [
        ("approval", "answer", {"answer": {"go": False}, "by": None}, "coordinator")
    ]
    await refused(world.tx, job_waits.Answer(project="default", job=mine["job"], value=1, actor="boss"), "ZC330")
    assert len(await world.claim(worker)) == 1


async def test_a_job_that_asks_nothing_cannot_be_answered(world: World) -> None:
    worker, mine = await started(world)
    await refused(world.tx, job_waits.Answer(project="default", job=mine["job"], value=1, actor="boss"), "ZC213")
    await suspend(world, mine, *UNMET)
    await refused(world.tx, job_waits.Answer(project="default", job=mine["job"], value=1, actor="boss"), "ZC213")
    await refused(world.tx, job_waits.Answer(project="default", job=UUID(int=1), value=1, actor="boss"), "ZC209")
    assert await world.claim(worker) == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"question": ""}, "ZC101"),
        ({"options": []}, "ZC101"),
        ({"options": ["a\n"]}, "ZC103"),
        ({"options": ["yes"], "fallback": "no", "ttl": MINUTE}, "ZC105"),
        ({"fallback": "no"}, "ZC105"),
        ({"ttl": timedelta(0)}, "ZC104"),
        ({"step": ""}, "ZC101"),
    ],
    ids=str,
)
async def test_an_invalid_question_is_refused(world: World, fields: dict[str, Any], code: str) -> None:
    _, mine = await started(world)
    await refused(world.tx, job_waits.Ask(**mine, **{"step": "s", "question": "?", **fields}), code)
    await world.run(jobs.Complete(**mine))


async def test_questions_have_pages(world: World) -> None:
    worker = await world.worker()
    asked = []
    for number in range(3):
        mine = await world.start(worker)
        await ask(world, mine, question=f"{number}?")
        asked.append(mine["job"])
    page = await world.run(job_waits.ListQuestions(project="default", limit=2))
    rest = await world.run(job_waits.ListQuestions(project="default", after=[str(page[-1].job)]))
    assert [question.job for question in (*page, *rest)] == asked


async def test_a_suspended_job_holds_no_slot_of_a_limit(world: World) -> None:
    await world.run(limits.Set(project="default", name="one", slots=1, queue="default"))
    worker, mine = await started(world)
    other = await world.enqueue()
    assert await world.claim(worker) == []
    await suspend(world, mine, *UNMET)
    assert [grant.id for grant in await world.claim(worker)] == [other.id]


async def several(world: World, count: int) -> list[dict[str, Any]]:
    worker = await world.worker()
    return [await world.start(worker) for _ in range(count)]


async def test_jobs_do_not_wait_for_each_other_for_ever(world: World) -> None:
    a, b, c = await several(world, 3)
    for one, other in ((a, b), (b, c)):
        assert (await suspend(world, one, {"jobs": [str(other["job"])]})).status == "waiting"
    wait = job_waits.Suspend(**c, step="wait", conditions=[{"jobs": [str(a["job"])]}], ttl=HOUR)
    error = await refused(world.tx, wait, "ZC313")
    assert msgspec.json.decode(error.detail or "")["cycle"] == [str(job["job"]) for job in (c, a, b)]
    assert error.message.startswith(f"deadlock: job {c['job']} waits for job {a['job']}, ")
    await world.run(jobs.Complete(**c))


async def test_a_job_does_not_wait_for_one_that_starts_after_it(world: World) -> None:
    (mine,) = await several(world, 1)
    middle = await world.enqueue(after=[mine["job"]])
    last = await world.enqueue(after=[middle.id])
    error = await refused(world.tx, job_waits.Suspend(**mine, step="w", conditions=[{"jobs": [str(last.id)]}]), "ZC313")
    assert msgspec.json.decode(error.detail or "")["cycle"] == [str(job) for job in (mine["job"], last.id, middle.id)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([{"jobs": ["b"]}, {"signal": "go"}], [{"jobs": ["a"]}]),
        ([{"jobs": ["b"]}], [{"jobs": ["a"]}, {"delay": "1h"}]),
        ([{"jobs": ["b", "c"], "mode": "any"}], [{"jobs": ["a"]}]),
        ([{"jobs": ["b"]}], [{"jobs": ["a"]}, {"jobs": ["c"]}]),
    ],
)
async def test_waits_that_something_else_ends_are_not_a_deadlock(
    world: World, first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    a, b, c = await several(world, 3)
    names = {"a": str(a["job"]), "b": str(b["job"]), "c": str(c["job"])}
    for mine, conditions in ((a, first), (b, second)):
        named = [
            condition | ({"jobs": [names[job] for job in condition["jobs"]]} if "jobs" in condition else {})
            for condition in conditions
        ]
        assert (await suspend(world, mine, *named)).status == "waiting"


async def test_any_of_several_jobs_is_a_deadlock_if_all_of_them_wait(world: World) -> None:
    a, b, c = await several(world, 3)
    for job in (b, c):
        await suspend(world, job, {"jobs": [str(a["job"])]})
    both = {"jobs": [str(b["job"]), str(c["job"])], "mode": "any"}
    await refused(world.tx, job_waits.Suspend(**a, step="wait", conditions=[both]), "ZC313")


async def test_a_long_chain_of_jobs_is_looked_at_in_part(world: World) -> None:
    (mine,) = await several(world, 1)
    made = await world.run(
        jobs.EnqueueMany(project="default", jobs=[{"type": "y"}, *({"type": "y", "after": [n]} for n in range(400))])
    )
    assert (await suspend(world, mine, {"jobs": [str(made[-1].id)]})).status == "waiting"
