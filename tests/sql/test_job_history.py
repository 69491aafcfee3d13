"""Jobs as readers see them: views, lists, attempts, statistics, why, retries."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec.structs import replace

from coordinator.db.connection import connect
from coordinator.errors import Conflict, InvalidArgument, NotFound
from coordinator.model.job_history import Job
from coordinator.model.page import walk
from coordinator.operations import agents, job_history
from tests.conftest import Transaction
from tests.waiting import until_blocked

P = "default"
MINUTE = timedelta(minutes=1)


async def worker(tx: Transaction, name: str = "w1", types: str = "t", labels: str = "", ttl: str = "1 day") -> UUID:
    agent: UUID = await tx.connection.fetchval(
        "select id from coordinator.agent_register('default', $1, p_job_types => $2, p_ttl => $3::text::interval)",
        name,
        types.split(),
        ttl,
    )
    await tx.connection.execute("update coordinator.agents set labels = $2 where id = $1", agent, labels.split())
    return agent


async def enqueue(tx: Transaction, type: str = "t", **options: Any) -> UUID:
    """Enqueue a job; options are SQL by the name of the parameter."""
    given = "".join(f", p_{name} => {value}" for name, value in options.items())
    job: UUID = await tx.connection.fetchval(f"select id from coordinator.job_enqueue('default', '{type}'{given})")
    return job


async def claim(tx: Transaction, agent: UUID, limit: int = 1) -> list[asyncpg.Record]:
    return await tx.connection.fetch("select * from coordinator.job_claim('default', $1, $2)", agent, limit)


async def fail(tx: Transaction, agent: UUID, grant: asyncpg.Record, error: str = "boom", *, final: bool = True) -> None:
    await tx.connection.execute(
        "select coordinator.job_fail('default', $1, $2, $3, $4, $5)", grant["id"], agent, grant["fence"], error, final
    )


async def complete(tx: Transaction, agent: UUID, grant: asyncpg.Record, result: str = "1") -> None:
    await tx.connection.execute(
        "select coordinator.job_complete('default', $1, $2, $3, $4::text::jsonb)",
        grant["id"],
        agent,
        grant["fence"],
        result,
    )


async def failed(tx: Transaction, agent: UUID, type: str = "t", **options: Any) -> UUID:
    job = await enqueue(tx, type, **options)
    (grant,) = await claim(tx, agent)
    assert grant["id"] == job
    await fail(tx, agent, grant)
    return job


async def show(tx: Transaction, job: UUID) -> Job:
    return await tx.run(job_history.Show(project=P, job=job))


async def why(tx: Transaction, job: UUID) -> tuple[str, str]:
    found = await tx.run(job_history.Why(project=P, job=job))
    assert found.sentence.endswith(".")
    assert found.status == (await show(tx, job)).status
    return found.cause, found.sentence


async def listed(tx: Transaction, **conditions: Any) -> list[UUID]:
    return [job.id for job in await tx.run(job_history.List(project=P, **conditions))]


async def one_of_each(tx: Transaction) -> dict[str, UUID]:
    """Jobs of every status, by the status; the worker is w1."""
    agent = await worker(tx)
    jobs = {"completed": await enqueue(tx, payload="""'{"n": 1}'""")}
    (grant,) = await claim(tx, agent)
    await complete(tx, agent, grant, '{"sum": 7}')
    jobs["failed"] = await failed(tx, agent)
    jobs["running"] = await enqueue(tx, key="'k'", priority=5)
    await claim(tx, agent)
    jobs["cancelled"] = await enqueue(tx)
    await tx.connection.execute(
        "select coordinator.job_cancel('default', $1, 'not needed', p_actor => 'boss')", jobs["cancelled"]
    )
    jobs["expired"] = await enqueue(tx, start_by="coordinator.now_utc() + interval '1 minute'")
    await tx.set_clock(2 * MINUTE)
    await tx.connection.execute("select coordinator.job_expire()")
    jobs["queued"] = await enqueue(tx, queue="'other'", labels="'{gpu}'")
    jobs["scheduled"] = await enqueue(tx, delay="'1 hour'", dedupe_key="'once'")
    return jobs


async def test_a_job_of_each_status_is_shown_and_listed_alike(tx: Transaction) -> None:
    jobs = await one_of_each(tx)
    for status, job in jobs.items():
        shown = await show(tx, job)
        assert shown.status == status
        assert shown.ended == (status in ("completed", "failed", "cancelled", "expired"))
        assert (shown.completed_at is not None) == shown.ended
        assert shown.created_at <= shown.updated_at
        assert shown.actor
        assert await tx.run(job_history.List(project=P, status=[status])) == [shown]
        (row,) = await tx.connection.fetch("select * from coordinator.jobs where id = $1", job)
        assert row["status"] == status
    everything = await tx.run(job_history.List(project=P))
    assert [job.id for job in everything] == sorted(jobs.values(), reverse=True)
    pages = [page async for page in walk(tx.run, job_history.List(project=P, limit=2))]
    assert [job for page in pages for job in page] == everything


async def test_what_is_known_of_a_job_stays_known_after_its_end(tx: Transaction) -> None:
    jobs = await one_of_each(tx)
    completed, failed_, running = [await show(tx, jobs[s]) for s in ("completed", "failed", "running")]
    assert (completed.payload, completed.result, completed.attempts) == ({"n": 1}, {"sum": 7}, 1)
    assert (completed.worker, completed.fence is not None, completed.ended_by) == ("w1", True, "w1")
    assert (failed_.reason, failed_.error, failed_.worker, failed_.result) == ("error", "boom", "w1", None)
    assert (running.worker, running.key, running.priority, running.attempts) == ("w1", "k", 5, 1)
    assert running.started_at is not None
    cancelled, expired = await show(tx, jobs["cancelled"]), await show(tx, jobs["expired"])
    assert (cancelled.reason, cancelled.ended_by, cancelled.worker) == ("cancelled", "boss", None)
    assert (expired.reason, expired.attempts) == ("start_by", 0)
    assert (await show(tx, jobs["scheduled"])).dedupe_key == "once"


async def test_lists_are_chosen_by_every_condition(tx: Transaction) -> None:
    jobs = await one_of_each(tx)
    other = await enqueue(tx, "u", payload="""'{"user": {"id": 7}, "text": "Straße 100%_"}'""")
    assert await listed(tx, type="u") == [other]
    assert await listed(tx, queue="other") == [jobs["queued"]]
    assert await listed(tx, key="k") == [jobs["running"]]
    assert await listed(tx, labels=["gpu"]) == [jobs["queued"]]
    assert await listed(tx, worker="w1") == [jobs["running"], jobs["failed"], jobs["completed"]]
    agent = str(await tx.run(agents.Find(project=P, agent="w1")))
    assert await listed(tx, worker=agent) == [jobs["running"], jobs["failed"], jobs["completed"]]
    assert await listed(tx, worker="w1", status=["running", "failed"]) == [jobs["running"], jobs["failed"]]
    assert await listed(tx, payload={"user": {"id": 7}}) == [other]
    assert await listed(tx, payload={"n": 1}) == [jobs["completed"]]
    assert await listed(tx, payload={"n": 2}) == []
    assert await listed(tx, words="STRASSE") == []
    assert await listed(tx, words="straße text") == [other]
    assert await listed(tx, words="100%_") == [other]
    assert await listed(tx, words="100__") == []
    assert await listed(tx, words="boom") == [jobs["failed"]]
    assert await listed(tx, words="  ") == await listed(tx)
    assert await listed(tx, status=[]) == []
    assert await listed(tx, type="t' or true --") == []


async def test_everything_is_read_where_nothing_can_be_written(tx: Transaction) -> None:
    """As on a hot standby."""
    jobs = await one_of_each(tx)
    await tx.connection.execute("set transaction read only")
    for job in jobs.values():
        for operation in (job_history.Show, job_history.Why, job_history.Attempts):
            await tx.run(operation(project=P, job=job))
    conditions = {"status": ["failed"], "payload": {"n": 1}, "words": "x", "worker": "w1", "labels": ["gpu"]}
    for operation in (job_history.List(project=P), job_history.List(project=P, **conditions)):
        await tx.run(operation)
    for hourly in (False, True):
        await tx.run(job_history.Stats(project=P, hourly=hourly))
    assert len(await tx.run(job_history.ListWorkers(project=P))) == 1
    for view in ("jobs", "job_attempts", "workers"):
        assert await tx.connection.fetch(f"select * from coordinator.{view}")


async def test_an_invalid_status_is_refused(tx: Transaction) -> None:
    with pytest.raises(InvalidArgument, match='"done"') as raised:
        await listed(tx, status=["done"])
    assert "completed" in (raised.value.hint or "")
    with pytest.raises(InvalidArgument):
        await tx.run(job_history.Retry(project=P, status=["completed"]))


async def test_a_job_that_is_not_there_or_in_another_project_is_not_found(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.project_create('shop')")
    job = await enqueue(tx)
    for project, missing in ((P, uuid4()), ("shop", job)):
        for operation in (job_history.Show, job_history.Why, job_history.Attempts, job_history.Retry):
            with pytest.raises(NotFound) as raised:
                await tx.run(operation(project=project, job=missing))
            assert raised.value.code == "ZC209"
    assert await tx.run(job_history.List(project="shop")) == []


async def test_attempts_are_listed_in_order_with_the_one_that_runs(tx: Transaction) -> None:
    agent = await worker(tx)
    job = await enqueue(tx, backoff="'0'")
    for error in ("first", "second"):
        (grant,) = await claim(tx, agent)
        await fail(tx, agent, grant, error, final=False)
    (grant,) = await claim(tx, agent)
    attempts = await tx.run(job_history.Attempts(project=P, job=job))
    assert [(a.attempt, a.outcome, a.error) for a in attempts] == [
        (1, "failed", "first"), (2, "failed", "second"), (3, "running", None),
    ]  # fmt: skip
    assert attempts[-1].fence == grant["fence"]
    assert attempts[-1].ended_at is None
    await complete(tx, agent, grant)
    ended = await tx.run(job_history.Attempts(project=P, job=job))
    assert ended[:2] == attempts[:2]
    assert (ended[2].outcome, ended[2].worker, ended[2].ended_at is not None) == ("completed", "w1", True)
    rows = await tx.connection.fetch("select fence from coordinator.job_attempts where job = $1 order by fence", job)
    assert [row["fence"] for row in rows] == [a.fence for a in ended]
    pages = [page async for page in walk(tx.run, job_history.Attempts(project=P, job=job, limit=1))]
    assert [a for page in pages for a in page] == ended


async def test_workers_are_idle_busy_or_lost(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.agent_register('default', 'no worker')")
    first, second = await worker(tx, "w1", "t u", "gpu"), await worker(tx, "w2", "u")
    older, _ = await enqueue(tx), await enqueue(tx)
    await claim(tx, first, 2)
    found = {w.name: w for w in await tx.run(job_history.ListWorkers(project=P))}
    assert [*found] == ["w1", "w2"]
    assert (found["w1"].status, found["w1"].current_job, found["w1"].running) == ("busy", older, 2)
    assert (found["w1"].job_types, found["w1"].labels) == (["t", "u"], ["gpu"])
    assert (found["w2"].status, found["w2"].current_job, found["w2"].running) == ("idle", None, 0)
    assert [w.id for w in await tx.run(job_history.ListWorkers(project=P, type="t"))] == [first]
    await tx.set_clock(timedelta(days=2))
    await tx.run(agents.Heartbeat(agent=second))
    assert [w.status for w in await tx.run(job_history.ListWorkers(project=P))] == ["lost", "idle"]


async def test_statistics_count_what_waits_and_what_ended_with_the_times(tx: Transaction) -> None:
    agent = await worker(tx, types="t u")
    for waited, ran in ((10, 1), (20, 2), (30, 3), (40, 100)):
        await tx.set_clock(timedelta(0))
        await enqueue(tx)
        await tx.set_clock(timedelta(seconds=waited))
        (grant,) = await claim(tx, agent)
        await tx.set_clock(timedelta(seconds=waited + ran))
        await complete(tx, agent, grant)
    await failed(tx, agent, "u", queue="'q'")
    await enqueue(tx), await enqueue(tx, delay="'1 hour'"), await enqueue(tx, "u", queue="'q'", priority=-1)
    await claim(tx, agent)
    first, second = await tx.run(job_history.Stats(project=P))
    assert (first.queue, first.type, first.hour) == ("default", "t", None)
    assert (first.queued, first.scheduled, first.running) == (0, 1, 1)
    assert (first.completed, first.failed, first.cancelled, first.expired) == (4, 0, 0, 0)
    assert (first.wait_p50_s, first.wait_p95_s) == (25, pytest.approx(38.5))
    assert (first.run_p50_s, first.run_p95_s) == (2.5, pytest.approx(85.45))
    assert (second.queue, second.queued, second.completed, second.failed) == ("q", 1, 0, 1)
    assert [s.queue for s in await tx.run(job_history.Stats(project=P, type="u"))] == ["q"]
    assert [s.queue for s in await tx.run(job_history.Stats(project=P, queue="default"))] == ["default"]
    hourly = await tx.run(job_history.Stats(project=P, hourly=True))
    assert sum(s.completed for s in hourly) == 4  # perhaps in two hours
    assert {s.queued for s in hourly} == {None}
    assert all(s.hour is not None and s.hour.endswith(":00Z") for s in hourly)
    pages = [page async for page in walk(tx.run, job_history.Stats(project=P, hourly=True, limit=1))]
    assert [s for page in pages for s in page] == hourly
    await tx.set_clock(timedelta(days=2))
    assert [s.completed for s in await tx.run(job_history.Stats(project=P))] == [0, 0]


async def test_why_names_what_a_queued_job_waits_for(tx: Transaction) -> None:
    job = await enqueue(tx, labels="'{gpu,eu}'")
    assert await why(tx, job) == ("no_worker", 'No worker of type "t" is registered.')
    await worker(tx, "other", "u")
    assert await why(tx, job) == ("no_worker", 'No worker of type "t" is registered, only one of other types.')
    await worker(tx, "half", "t", "eu")
    assert await why(tx, job) == (
        "no_worker",
        'It needs a worker with the labels eu, gpu: one of type "t" is registered, and "half" lacks gpu.',
    )
    whole = await worker(tx, "whole", "t", "eu gpu", ttl="1 minute")
    assert await why(tx, job) == (
        "turn",
        'It waits for its turn in queue "default": it is next among the jobs of its type, and worker "whole" can run it.',
    )
    later = await enqueue(tx, labels="'{gpu,eu}'")
    urgent = await enqueue(tx, labels="'{gpu,eu}'", priority=1)
    assert [(await tx.run(job_history.Why(project=P, job=one))).place for one in (urgent, job, later)] == [1, 2, 3]
    await tx.set_clock(2 * MINUTE)
    assert await why(tx, job) == ("no_worker", 'The heartbeat of every worker that can run it is overdue: "whole".')
    await tx.run(agents.Heartbeat(agent=whole))
    await tx.connection.execute(
        "update coordinator.queues set paused_at = timestamptz '2026-01-02 03:04:05Z', paused_by = 'boss', pause_reason = 'upgrade'"
    )
    assert await why(tx, job) == ("paused", 'Queue "default" was paused by "boss" at 2026-01-02 03:04:05Z: upgrade.')


async def test_why_names_the_turn_of_a_key_in_a_fair_queue(tx: Transaction) -> None:
    await worker(tx)
    await enqueue(tx)
    await tx.connection.execute("update coordinator.queues set fair = true")
    await tx.connection.execute("delete from coordinator.jobs_ready")
    await enqueue(tx, key="'a'")
    await enqueue(tx, key="'b'")
    job = await enqueue(tx, key="'b'")
    cause, sentence = await why(tx, job)
    assert cause == "turn"
    assert sentence == (
        'It waits for its turn in queue "default", in which key "b" is number 2 in line: it is number 2 of its key,'
        ' and worker "w1" can run it.'
    )
    _, sentence = await why(tx, await enqueue(tx))
    assert sentence.startswith(
        'It waits for its turn in queue "default", in which jobs without a key are number 3 in line: it is next of them,'
    )


async def test_why_says_until_when_a_job_waits(tx: Transaction) -> None:
    agent = await worker(tx)
    scheduled = await enqueue(tx, delay="'1 hour'")
    cause, sentence = await why(tx, scheduled)
    assert cause == "scheduled"
    assert sentence.startswith("It is scheduled for 20")
    retried = await enqueue(tx)
    (grant,) = await claim(tx, agent)
    await fail(tx, agent, grant, "no route to host.\n\nTraceback:\n  File 1\n", final=False)
    cause, sentence = await why(tx, retried)
    assert cause == "back_off"
    assert sentence.endswith('to be tried again: attempt 1 of 3 by "w1" failed: no route to host.')
    snoozed = await enqueue(tx)
    (grant,) = await claim(tx, agent)
    assert grant["id"] == snoozed
    await tx.connection.execute(
        "select coordinator.job_snooze('default', $1, $2, $3, '1 hour')", snoozed, agent, grant["fence"]
    )
    cause, sentence = await why(tx, snoozed)
    assert cause == "snoozed"
    assert sentence.startswith('Worker "w1" snoozed it until 20')
    assert (await tx.run(job_history.Why(project=P, job=snoozed))).until is not None


async def test_why_says_who_runs_a_job_and_whether_that_will_end(tx: Transaction) -> None:
    agent = await worker(tx, ttl="1 minute")
    job = await enqueue(tx)
    (grant,) = await claim(tx, agent)
    cause, sentence = await why(tx, job)
    assert cause == "running"
    assert sentence.startswith('Worker "w1" has run it since 20')
    assert sentence.endswith("(attempt 1 of 3).")
    await tx.connection.execute(
        "select coordinator.job_progress('default', $1, $2, $3, 40, 'parsing')", job, agent, grant["fence"]
    )
    assert (await why(tx, job))[1].endswith("(attempt 1 of 3), 40 %: parsing.")
    await tx.connection.execute(
        "select coordinator.job_progress('default', $1, $2, $3, 100 / 3.0)", job, agent, grant["fence"]
    )
    assert (await why(tx, job))[1].endswith("(attempt 1 of 3), 33.3 %: parsing.")
    await tx.set_clock(2 * MINUTE)
    assert (await why(tx, job))[1].endswith("; the worker is lost, and the job will be rescued.")
    await tx.run(agents.Heartbeat(agent=agent))
    await tx.connection.execute("select coordinator.job_cancel('default', $1, 'too slow', p_actor => 'boss')", job)
    cause, sentence = await why(tx, job)
    assert cause == "cancel_requested"
    assert '; "boss" asked to cancel it: too slow, and the worker must stop by 20' in sentence


async def test_why_says_how_a_job_ended(tx: Transaction) -> None:
    jobs = await one_of_each(tx)
    for status, pattern in {
        "completed": 'It completed at .*: worker "w1" ran it for .*s \\(attempt 1 of 3\\)\\.',
        "failed": 'It failed at .*: attempt 1 of 3 by "w1" failed: boom; the error was final\\.',
        "cancelled": 'It was cancelled at .* by "boss": not needed\\.',
        "expired": "It expired at .*: no attempt had begun in time\\.",
    }.items():
        assert await tx.connection.fetchval("select $1 ~ $2", (await why(tx, jobs[status]))[1], f"^{pattern}$"), status
    first = await enqueue(tx, dedupe_key="'d'")
    await enqueue(tx, dedupe_key="'d'", on_duplicate="'replace'", actor="'boss'")
    cause, sentence = await why(tx, first)
    assert cause == "replaced"
    assert sentence.endswith('by a job of "boss" with the same dedupe key, "d".')
    (retried,) = await tx.run(job_history.Retry(project=P, job=jobs["failed"]))
    assert (await why(tx, jobs["failed"]))[1].endswith(
        f"failed: boom; the error was final; it was retried as {retried.id}."
    )


@pytest.mark.parametrize(
    ("reason", "attempts", "words"),
    [
        ("worker_lost", 1, 'attempt 1 of 1 by "w1" lost its worker.'),
        ("worker_lost", 2, 'attempt 1 of 2 by "w1" lost its worker; its rescue policy is "fail".'),
        ("stalled", 1, 'attempt 1 of 1 by "w1" reported no progress in time.'),
        ("deadline", 1, 'attempt 1 of 1 by "w1" passed its deadline.'),
    ],
)  # fmt: skip
async def test_why_says_what_an_attempt_was_rescued_from(
    tx: Transaction, reason: str, attempts: int, words: str
) -> None:
    agent = await worker(tx, ttl="1 minute" if reason == "worker_lost" else "1 day")
    times = {"stalled": {"stall": "'1 minute'"}, "deadline": {"deadline": "'1 hour'"}}.get(reason, {})
    job = await enqueue(tx, max_attempts=attempts, rescue="'fail'", **times)
    await claim(tx, agent)
    await tx.set_clock(timedelta(hours=2))
    await tx.connection.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    await tx.connection.execute("select coordinator.agent_reap()")
    await tx.connection.execute("select coordinator.job_rescue()")
    cause, sentence = await why(tx, job)
    assert cause == reason
    assert sentence.endswith(words)


async def test_a_job_is_retried_with_its_whole_policy_and_both_know_each_other(tx: Transaction) -> None:
    agent = await worker(tx, labels="gpu")
    job = await failed(
        tx, agent, payload="""'{"n": 1}'""", queue="'q'", key="'k'", priority=7, max_attempts=1, backoff="'7 s'",
        deadline="'8 min'", stall="'9 min'", rescue="'resume'", labels="'{gpu}'", dedupe_key="'d'",
    )  # fmt: skip
    (made,) = await tx.run(job_history.Retry(project=P, job=job, actor="boss"))
    assert (made.retry_of, made.queue, made.type, made.status, made.created) == (job, "q", "t", "queued", True)
    old, new = await show(tx, job), await show(tx, made.id)
    assert (old.retried_as, new.retry_of, new.actor, new.status, new.attempts) == (new.id, job, "boss", "queued", 0)
    for field in ("type", "payload", "queue", "key", "priority", "labels", "max_attempts"):
        assert getattr(new, field) == getattr(old, field), field
    assert new.dedupe_key is None
    row = await tx.connection.fetchrow("select * from coordinator.jobs_open where id = $1", new.id)
    assert (row["backoff"], row["deadline"], row["stall"], row["rescue"]) == (
        timedelta(seconds=7), timedelta(minutes=8), timedelta(minutes=9), "resume",
    )  # fmt: skip
    assert [grant["id"] for grant in await claim(tx, agent)] == [new.id]


async def test_a_retry_of_a_job_that_is_repeated_returns_the_same_job(tx: Transaction) -> None:
    agent = await worker(tx)
    job = await failed(tx, agent)
    (made,) = await tx.run(job_history.Retry(project=P, job=job))
    (again,) = await tx.run(job_history.Retry(project=P, job=job))
    assert again == replace(made, created=False)
    (grant,) = await claim(tx, agent)
    await complete(tx, agent, grant)
    (again,) = await tx.run(job_history.Retry(project=P, job=job))
    assert (again.id, again.status, again.created) == (made.id, "completed", False)
    (next_,) = await tx.run(job_history.Retry(project=P, job=made.id))
    assert (next_.retry_of, next_.created) == (made.id, True)


async def test_dead_letters_are_retried_by_conditions_each_once_and_oldest_first(tx: Transaction) -> None:
    agent = await worker(tx, types="t u")
    dead = [await failed(tx, agent) for _ in range(3)]
    other = await failed(tx, agent, "u", queue="'q'", key="'k'")
    cancelled = await enqueue(tx)
    await tx.connection.execute("select coordinator.job_cancel('default', $1)", cancelled)

    async def retried(**conditions: Any) -> list[UUID]:
        return [made.retry_of for made in await tx.run(job_history.Retry(project=P, **conditions))]

    assert await retried(type="t", limit=2) == dead[:2]
    assert await retried(type="t") == dead[2:]
    assert await retried(type="t") == []
    assert await retried(queue="q", key="k", reason="worker_lost") == []
    assert await retried(queue="q", key="k", reason="error") == [other]
    assert await retried(status=["cancelled"]) == [cancelled]
    events = [e["data"]["ids"] for e in await tx.events() if e["type"] == "job.enqueued"]
    assert len(events[-1]) == 1


async def test_a_retry_stops_before_it_is_too_large(tx: Transaction) -> None:
    agent = await worker(tx)
    dead = [await failed(tx, agent, payload="to_jsonb(repeat('x', 100))") for _ in range(3)]
    source = await tx.connection.fetchval("select pg_get_functiondef('coordinator.job_retry'::regproc)")
    assert "8388608" in source
    await tx.connection.execute(source.replace("8388608", "250"))
    for expected in (dead[:2], dead[2:], []):
        assert [made.retry_of for made in await tx.run(job_history.Retry(project=P, type="t"))] == expected


async def test_as_much_is_retried_in_one_call_as_one_call_enqueues(tx: Transaction) -> None:
    agent = await worker(tx)
    dead = [await failed(tx, agent, payload="to_jsonb(repeat('x', 250000))") for _ in range(34)]
    for expected in (dead[:33], dead[33:], []):
        assert [made.retry_of for made in await tx.run(job_history.Retry(project=P, type="t"))] == expected


async def test_retrying_needs_a_job_that_has_ended_or_a_condition(tx: Transaction) -> None:
    job = await enqueue(tx)
    with pytest.raises(Conflict, match="has not ended: it is queued") as raised:
        await tx.run(job_history.Retry(project=P, job=job))
    assert raised.value.code == "ZC324"
    with pytest.raises(InvalidArgument, match="neither a job nor a condition"):
        await tx.run(job_history.Retry(project=P))
    with pytest.raises(InvalidArgument, match="both"):
        await tx.run(job_history.Retry(project=P, job=job, type="t"))


async def test_two_who_retry_at_once_enqueue_each_job_once(database_url: str) -> None:
    one, two = await connect(database_url), await connect(database_url)
    try:
        tx = Transaction(one)
        agent = await worker(tx)
        dead = {await failed(tx, agent) for _ in range(4)}
        async with one.transaction():
            first = await one.fetch("select * from coordinator.job_retry('default', p_type => 't', p_limit => 2)")
            second = await two.fetch("select * from coordinator.job_retry('default', p_type => 't')")
        assert {row["retry_of"] for row in first} | {row["retry_of"] for row in second} == dead
        assert len(first) == len(second) == 2
        job = await failed(tx, await worker(tx, "w2", "u"), "u")
        async with one.transaction():
            (made,) = await one.fetch("select * from coordinator.job_retry('default', $1)", job)
            waits = asyncio.create_task(two.fetch("select * from coordinator.job_retry('default', $1)", job))
            await until_blocked(one, two)
        (same,) = await waits
        assert (same["id"], made["created"], same["created"]) == (made["id"], True, False)
    finally:
        await one.close()
        await two.close()
