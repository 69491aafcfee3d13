"""What a worker does with its jobs, and what a function can make of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import anyio
import msgspec
import pytest
import structlog

import coordinator
from coordinator import FailJob, JobContext, RetryJob, SnoozeJob, Worker
from coordinator.db.database import Database
from coordinator.errors import ConfigurationError, Conflict
from coordinator.operations import events, signals, waiting
from coordinator.operations.jobs import Claim
from coordinator.worker import shift, watch
from tests.waiting import DEADLINE_S, LASTING_S, ticking, until


class Page(msgspec.Struct):
    page: int
    at: datetime | None = None


class Summary(msgspec.Struct):
    words: int
    at: datetime | None


async def test_a_function_gets_its_payload_as_the_type_that_it_declares_and_returns_any_that_is_json(work: Any) -> None:
    worker = Worker()
    at = datetime(2030, 1, 31, tzinfo=UTC)

    @worker.job("summarize")
    async def summarize(context: JobContext, page: Page) -> Summary:
        assert (context.type, context.attempt, context.queue, context.key) == ("summarize", 1, "default", "acme")
        assert isinstance(page, Page)
        return Summary(page.page * 2, page.at)

    @worker.job("raw")
    async def raw(context: JobContext, payload: Any) -> Any:
        assert payload == context.payload
        return [payload]

    @worker.job("nothing")
    async def nothing(context, payload) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        pass

    async with work(worker) as bench:
        done = await bench.done("summarize", {"page": 7, "at": "2030-01-31T00:00:00Z"}, key="acme")
        assert (done.status, done.result) == ("completed", {"words": 14, "at": "2030-01-31T00:00:00Z"})
        assert datetime.fromisoformat(done.result["at"]) == at
        assert (await bench.done("raw", {"any": [1, None]})).result == [{"any": [1, None]}]
        assert (await bench.done("nothing")).result is None


@pytest.mark.parametrize(("payloads", "fallback_s"), [("full", LASTING_S), ("pointer", LASTING_S), ("head", 0.2)])
async def test_an_idle_worker_finds_jobs_whatever_notifications_carry(
    work: Any, db: Database, monkeypatch: pytest.MonkeyPatch, payloads: str, fallback_s: float
) -> None:
    """With the head alone nothing names the event: the worker hears nothing, and looks every now and then."""
    monkeypatch.setattr(events, "POLL_S", fallback_s)  # when a listening connection gives a hint without an event
    monkeypatch.setattr(waiting, "POLL_S", fallback_s)  # the same for the client that waits for the end
    monkeypatch.setattr(shift, "POLL_S", LASTING_S)
    await db.run(events.Configure(payloads=payloads))
    worker = Worker()

    @worker.job("one")
    async def one(context: JobContext, payload: Any) -> None:
        pass

    async with work(worker) as bench:
        for _ in range(2):  # it was idle before the second, at the latest
            assert (await bench.done("one")).status == "completed"


async def test_a_payload_that_does_not_fit_fails_the_job_permanently_and_says_where(work: Any) -> None:
    worker = Worker()

    @worker.job("summarize")
    async def summarize(context: JobContext, page: Page) -> None:
        raise AssertionError("it must not run")

    async with work(worker) as bench:
        done = await bench.done("summarize", {"page": "seven"})
    assert (done.status, done.attempts) == ("failed", 1)
    assert done.error == "the payload is not of type Page: Expected `int`, got `str` - at `$.page`"


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (object(), "cannot be encoded"),
        (float("nan"), "NaN"),
        ("x" * 300_000, "262144"),
        ("\0", "NUL"),
    ],
    ids=["no JSON", "NaN", "too long", "NUL"],
)
async def test_a_result_that_the_server_cannot_keep_fails_its_job_and_no_other(
    work: Any, result: object, error: str
) -> None:
    worker = Worker()
    began = 0

    @worker.job("bad")
    async def bad(context: JobContext, payload: Any) -> Any:
        return result

    @worker.job("good")
    async def good(context: JobContext, payload: int) -> int:
        nonlocal began
        began += 1
        return payload

    async with work(worker) as bench:
        jobs = await bench.client.jobs.enqueue_many(
            [{"type": "bad" if number == 2 else "good", "payload": number} for number in range(6)]
        )
        ended = [await bench.client.jobs.wait(job.id, timeout=60) for job in jobs]
    assert [done.status for done in ended] == ["failed" if number == 2 else "completed" for number in range(6)]
    assert began == 5
    failed = ended[2]
    assert failed.attempts == 1
    assert failed.error is not None
    assert pytest.raises(AssertionError, match=error).matches(AssertionError(failed.error))


async def test_what_a_function_raises_says_what_follows(work: Any) -> None:
    worker = Worker()
    soon = datetime.now(UTC) - timedelta(seconds=1)

    @worker.job("fail")
    async def fail(context: JobContext, payload: Any) -> None:
        raise ValueError("no such page\0\ud800")

    @worker.job("call")
    async def call(context: JobContext, payload: Any) -> None:
        await context.client.queues.get("nowhere")

    @worker.job("exit")
    async def leave(context: JobContext, payload: Any) -> None:
        sys.exit(3)

    @worker.job("long")
    async def long(context: JobContext, payload: Any) -> None:
        raise ValueError("begin" + "x" * 100_000 + "end")

    @worker.job("final")
    async def final(context: JobContext, payload: Any) -> None:
        raise FailJob("no such page")

    @worker.job("retry")
    async def retry(context: JobContext, payload: Any) -> int:
        if context.attempt < 3:
            raise RetryJob("not yet", at=soon)
        return context.attempt

    @worker.job("snooze")
    async def snooze(context: JobContext, payload: Any) -> Any:
        if context.checkpoint is None:
            await context.save({"page": 3})
            raise SnoozeJob(timedelta(seconds=1))
        return [context.attempt, context.checkpoint]

    async with work(worker) as bench:
        failed = await bench.done("fail", max_attempts=1)
        assert (failed.status, failed.reason) == ("failed", "error")
        assert failed.error is not None
        assert failed.error.startswith("ValueError: no such page\\x00\\udc00"[:20])
        assert "Traceback" in failed.error
        assert "in fail" in failed.error
        assert "attempt.py" not in failed.error
        called = (await bench.done("call", max_attempts=1)).error or ""
        assert called.startswith('coordinator.errors.NotFound: project "default" has no queue "nowhere"\nhint: ')
        assert "in call" in called
        assert "asyncpg" not in called  # its error has the same text
        left = await bench.done("exit", max_attempts=1)
        assert (left.error or "").startswith("SystemExit: 3")
        text = (await bench.done("long", max_attempts=1)).error
        assert text is not None
        assert len(text) <= 65536
        assert text.startswith("ValueError: begin")
        assert text.rstrip().endswith("end")
        done = await bench.done("final")
        assert (done.status, done.attempts, done.error) == ("failed", 1, "no such page")
        done = await bench.done("retry")
        assert (done.status, done.result) == ("completed", 3)
        slept = await bench.client.jobs.enqueue("snooze")
        await until(lambda: _status(bench, slept.id, "scheduled"), "it is put off")
        await bench.client.jobs.cancel(slept)


async def _status(bench: Any, job: Any, status: str) -> bool:
    return bool((await bench.client.jobs.show(job)).status == status)


async def test_no_more_functions_run_at_once_than_the_concurrency_and_all_jobs_are_done(work: Any) -> None:
    worker = Worker(concurrency=7)
    running = most = 0
    full = anyio.Event()

    @worker.job("count")
    async def count(context: JobContext, payload: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 7:
            full.set()
        if payload < 7:
            await full.wait()
        await anyio.sleep(0.001 * (payload % 3))
        running -= 1
        return payload

    async with work(worker) as bench:
        jobs = await bench.client.jobs.enqueue_many([{"type": "count", "payload": number} for number in range(300)])
        for number in (0, 150, 299):
            assert (await bench.client.jobs.wait(jobs[number].id, timeout=60)).result == number

        async def all_done() -> bool:
            page = await bench.client.jobs.list(status=["completed"], limit=1000)
            return len(page) == 300

        await until(all_done, "all jobs are done")
    assert most == 7


async def test_functions_that_share_a_task_leave_nothing_to_each_other(work: Any) -> None:
    """Those that wait for nothing run one after the other in one task; what one sets in its context, no other sees."""
    worker = Worker(concurrency=50)
    variable: ContextVar[int | None] = ContextVar("variable", default=None)
    tasks: set[object] = set()

    @worker.job("set")
    async def run(context: JobContext, payload: int) -> int | None:
        tasks.add(asyncio.current_task())
        seen = variable.get()
        if payload % 10 == 5:
            variable.set(payload)
        if payload % 10 == 7:
            raise asyncio.CancelledError
        return seen

    async with work(worker) as bench:
        jobs = await bench.client.jobs.enqueue_many(
            [{"type": "set", "payload": number, "max_attempts": 1} for number in range(30)]
        )
        for number, job in enumerate(jobs):
            done = await bench.client.jobs.wait(job.id, timeout=60)
            assert done.status == ("failed" if number % 10 == 7 else "completed"), number
            assert done.result is None
            assert (done.error or "").startswith("asyncio.exceptions.CancelledError" if number % 10 == 7 else "")
    assert 3 <= len(tasks) < 30


async def test_a_job_counts_until_the_server_has_acknowledged_its_end(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of the call that ends a job comes late: meanwhile the worker with one place claims nothing."""
    worker = Worker(concurrency=1)
    held = anyio.Event()
    calls: list[tuple[int, int]] = []
    claim = coordinator.client.jobs.Jobs.claim

    async def slow(self: Any, limit: int = 1, *, finished: Any = (), **options: Any) -> Any:
        calls.append((limit, len(finished)))
        answer = await claim(self, limit, finished=finished, **options)
        if finished:
            await held.wait()
        return answer

    monkeypatch.setattr(coordinator.client.jobs.Jobs, "claim", slow)

    @worker.job("one")
    async def one(context: JobContext, payload: Any) -> None:
        pass

    async with work(worker) as bench:
        first = await bench.client.jobs.enqueue("one")
        await bench.client.jobs.wait(first.id, timeout=60)
        second = await bench.client.jobs.enqueue("one")
        async with ticking(0.01) as ticks:
            await until(lambda: _ticked(ticks, 20))
        assert (await bench.client.jobs.show(second.id)).status in ("queued", "running")
        assert calls[-1] == (1, 1), "the call that ends the first job is the last one"
        held.set()
        assert (await bench.client.jobs.wait(second.id, timeout=60)).status == "completed"


async def _ticked(ticks: Any, count: int) -> bool:
    return bool(ticks() >= count)


async def test_a_worker_sleeps_until_a_job_is_enqueued_and_wakes_at_once(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the events, the next look would come after the test's deadline; and no event wakes it that is not about jobs."""
    monkeypatch.setattr(shift, "POLL_S", DEADLINE_S * 2)
    monkeypatch.setattr("coordinator.operations.events.POLL_S", DEADLINE_S * 2)
    monkeypatch.setattr("coordinator.client.events.events.POLL_S", DEADLINE_S * 2)
    # No connection is lost because of a late answer.
    monkeypatch.setattr("coordinator.db.session.PING_S", DEADLINE_S * 2)
    woken_by: list[frozenset[str]] = []
    listen = coordinator.client.events.Events.wake

    def noted(self: Any, **options: Any) -> Any:
        wake = listen(self, **options)
        wait = wake.wait

        async def waited(timeout_s: float) -> bool:
            woken = await wait(timeout_s)
            if options.get("topics"):  # the worker's; the test's client waits as well
                woken_by.append(wake.topics)
            return bool(woken)

        monkeypatch.setattr(wake, "wait", waited)
        return wake

    monkeypatch.setattr(coordinator.client.events.Events, "wake", noted)
    worker = Worker()

    @worker.job("one")
    async def one(context: JobContext, payload: Any) -> None:
        pass

    async with work(worker) as bench:
        await bench.done("one")
        await bench.client.queues.pause("default")
        paused = await bench.client.jobs.enqueue("one")
        for number in range(20):  # what does not concern it
            await bench.client.signals.set("k", number)
        await bench.client.queues.resume("default")
        assert (await bench.client.jobs.wait(paused.id, timeout=60)).status == "completed"
    unknown = [topics for topics in woken_by if not topics]
    assert len(unknown) <= 1, "only the new connection itself may be a reason to look that names no event"
    assert {topic for topics in woken_by for topic in topics} <= {*Claim.woken_by, shift.CANCEL}


async def test_a_function_that_blocks_the_event_loop_is_named_with_how_long(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "TICK_S", 0.02)
    monkeypatch.setattr(watch, "BLOCKED_S", 0.1)
    looks: list[object] = []
    look = watch._Look.look

    def counted(self: watch._Look, suspect: Any, thread: int) -> None:
        look(self, suspect, thread)
        if suspect is not None:
            looks.append(suspect)

    monkeypatch.setattr(watch._Look, "look", counted)
    worker = Worker()
    started = anyio.Event()

    @worker.job("waits")
    async def waits(context: JobContext, payload: Any) -> None:
        started.set()
        await anyio.sleep_forever()

    @worker.job("blocks")
    async def blocks(context: JobContext, payload: Any) -> None:
        ends_at = time.monotonic() + DEADLINE_S
        while len(looks) < 3 and time.monotonic() < ends_at:
            time.sleep(0.01)

    with structlog.testing.capture_logs() as logs:
        async with work(worker) as bench:
            innocent = await bench.client.jobs.enqueue("waits")
            await started.wait()
            job = await bench.done("blocks")
            await until(lambda: _logged(logs, "worker.blocked"))
            await bench.client.jobs.cancel(innocent.id)
    (line,) = [line for line in logs if line["event"] == "worker.blocked" and line["type"] == "blocks"]
    assert (line["job"], line["blocked_s"] >= 0.1) == (str(job.id), True)
    assert line["function"].endswith("blocks")
    assert line["place"].startswith(f"{__file__}:")
    assert [line["type"] for line in logs if line["event"] == "worker.blocked"] == ["blocks"]


def test_what_runs_between_the_end_of_a_block_and_the_next_tick_does_not_hide_who_blocked() -> None:
    """The thread may look then: at another function, or at the worker itself."""

    def attempt(type: str) -> Any:
        return mock.Mock(grant=mock.Mock(id=type, type=type), handler=mock.Mock(function=_logged))

    blocks, next_one = attempt("blocks"), attempt("next")
    for after in (None, next_one):
        seen = watch._Look()
        with structlog.testing.capture_logs() as logs:
            for suspect in (blocks, blocks, after):
                seen.look(suspect, 0)
            seen.tick()
            seen.look(next_one, 0)  # only once: the whole process may have stood still
            seen.tick()
        assert [line["type"] for line in logs] == ["blocks"]


async def _logged(logs: Any, event: str) -> bool:
    return any(line["event"] == event for line in logs)


@pytest.mark.parametrize("way", ["event", "reconciling"])
async def test_a_cancellation_reaches_the_function_by_its_event_and_without_it(
    work: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The next heartbeat, and the other way, would come after the test's deadline."""
    if way == "event":
        monkeypatch.setattr(shift, "NOTICE_S", DEADLINE_S * 2)
    else:
        monkeypatch.setattr(shift, "NOTICE_S", 0.2)
        monkeypatch.setattr(shift, "CANCEL", "job.paused")
        monkeypatch.setattr("coordinator.client.events.events.POLL_S", DEADLINE_S * 2)
        monkeypatch.setattr(shift, "POLL_S", DEADLINE_S * 2)
    worker = Worker(ttl=DEADLINE_S * 6)
    began, ended = anyio.Event(), anyio.Event()

    @worker.job("sleep")
    async def sleep(context: JobContext, payload: Any) -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with work(worker) as bench:
        job = await bench.client.jobs.enqueue("sleep")
        with anyio.fail_after(DEADLINE_S):
            await began.wait()
            await bench.client.jobs.cancel(job, reason="The page is gone")
            await ended.wait()
        done = await bench.client.jobs.wait(job.id, timeout=60)
        assert (done.status, done.error) == ("cancelled", "The page is gone")


async def test_a_function_whose_job_somebody_else_has_is_cancelled_and_its_result_dropped(work: Any) -> None:
    worker = Worker(ttl=SHORT_TTL_S)
    began = anyio.Event()
    what: list[str] = []

    @worker.job("sleep")
    async def sleep(context: JobContext, payload: Any) -> str:
        began.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            what.append("cancelled")
        return "mine"

    async with work(worker) as bench:
        job = await bench.client.jobs.enqueue("sleep", queue="q")
        with anyio.fail_after(DEADLINE_S):
            await began.wait()
        await bench.client.queues.pause("q")
        running = await bench.client.jobs.show(job.id)
        await bench.client.jobs.fail(job.id, "taken away", final=True, fence=running.fence, agent=running.worker_id)
        await until(lambda: _holds(what), "the function is cancelled")
        done = await bench.client.jobs.show(job.id)
        assert (done.status, done.error) == ("failed", "taken away")


SHORT_TTL_S = 1.5


async def _holds(what: Any) -> bool:
    return bool(what)


async def test_progress_and_checkpoint_reach_the_job_and_a_stale_fence_ends_the_function(work: Any) -> None:
    worker = Worker()
    seen: list[object] = []

    @worker.job("work")
    async def run(context: JobContext, payload: Any) -> None:
        await context.progress(50, "half", checkpoint={"page": 3})
        job = await context.client.jobs.show(context.id)
        seen.extend([job.percent, job.message, job.checkpoint, context.checkpoint])
        with anyio.CancelScope(shield=True):  # the worker may notice at any time that it has lost the job
            await context.client.jobs.fail(context.id, "somebody", fence=context.fence, final=True)
            try:
                await context.progress(60)
            except Conflict as error:
                seen.append(error.code)
        await anyio.sleep_forever()

    async with work(worker) as bench:
        done = await bench.done("work")
        await until(lambda: _holds(seen[4:]), "the fence was refused")
        assert done.error == "somebody"
    assert seen == [50, "half", {"page": 3}, {"page": 3}, "ZC320"]


async def test_a_function_whose_spending_exhausts_a_budget_is_cancelled_and_a_higher_one_wakes_the_worker(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "POLL_S", DEADLINE_S * 6)
    worker = Worker()
    started, spent = [], []

    @worker.job("call")
    async def run(context: JobContext, payload: Any) -> None:
        started.append(context.id)
        charge = await context.spend("dollars", 60)
        if charge.cancel_at is not None:  # the request to stop may also arrive before this answer does
            await anyio.sleep_forever()
        spent.append(charge.spent)

    async with work(worker) as bench:
        await bench.client.limits.set("dollars", budget=100, type="call", reserve=10, on_exhausted="cancel")
        assert (await bench.done("call")).limits == {}
        done = await bench.done("call", limits={"dollars": 30})
        assert (done.status, done.error, done.limits) == ("cancelled", 'budget "dollars" is exhausted', {"dollars": 30})
        waits = await bench.client.jobs.enqueue("call")
        await until(lambda: _waits_for(bench, waits.id, "budget"))
        await bench.client.limits.set("dollars", budget=1000)
        assert (await bench.client.jobs.wait(waits.id, timeout=60)).status == "completed"
    assert (len(started), spent) == (3, [60, 60])


async def _waits_for(bench: Any, job: Any, cause: str) -> bool:
    return bool((await bench.client.jobs.why(job)).cause == cause)


async def test_a_function_writes_in_a_transaction_under_its_fence(work: Any) -> None:
    worker = Worker()
    codes: list[str] = []

    @worker.job("write")
    async def write(context: JobContext, payload: str) -> None:
        wanted = signals.Set(project=context.client.project, key=payload, value=context.fence)
        await context.client.transactions.run(wanted, conditions=[context.guard])
        if payload == "late":
            with anyio.CancelScope(shield=True):  # the worker may notice at any time that it has lost the job
                await context.client.jobs.complete(context.id, fence=context.fence)
                try:
                    await context.client.transactions.run(wanted, conditions=[context.guard])
                except Conflict as error:
                    codes.append(error.code)

    async with work(worker) as bench:
        done = await bench.done("write", "good")
        signal = await bench.client.signals.get("good")
        assert signal.value == done.fence
        assert signal.actor != "tester"
        await bench.done("write", "late")
        await until(lambda: _holds(codes))
    assert codes == ["ZC320"]


async def test_a_process_that_a_job_starts_knows_its_job_and_fence(work: Any) -> None:
    worker = Worker()
    code = "import os; print(os.environ['COORDINATOR_JOB_ID'], os.environ['COORDINATOR_JOB_FENCE'], os.environ['HOME'])"

    @worker.job("shell")
    async def shell(context: JobContext, payload: Any) -> str:
        run = [sys.executable, "-S", "-c", code]
        process = await anyio.run_process(run, env=context.environment, stderr=subprocess.STDOUT)
        return process.stdout.decode().strip()

    async with work(worker) as bench:
        done = await bench.done("shell")
    assert done.result == f"{done.id} {done.fence} {os.environ['HOME']}"


async def test_a_worker_claims_only_of_its_queues_and_jobs_whose_labels_it_has(work: Any) -> None:
    worker = Worker(queues=["one", "two"], labels=["gpu"])

    @worker.job("work")
    async def run(context: JobContext, payload: Any) -> str:
        return context.queue

    async with work(worker) as bench:
        other = await bench.client.jobs.enqueue("work", queue="other")
        needs = await bench.client.jobs.enqueue("work", queue="one", labels=["tpu"])
        assert (await bench.done("work", queue="two", labels=["gpu"])).result == "two"
        assert (await bench.done("work", queue="one")).result == "one"
        for job in (other, needs):
            assert (await bench.client.jobs.show(job.id)).status == "queued"


async def test_at_its_end_a_worker_lets_functions_finish_and_releases_the_jobs_of_the_others(work: Any) -> None:
    worker = Worker(grace=0.3)
    began, stopping = 0, anyio.Event()

    @worker.job("short")
    async def short(context: JobContext, payload: Any) -> str:
        nonlocal began
        began += 1
        await stopping.wait()
        return "finished"

    @worker.job("long")
    async def long(context: JobContext, payload: Any) -> None:
        nonlocal began
        await context.save("half")
        began += 1
        await anyio.sleep_forever()

    async with work(worker) as bench:
        jobs = [await bench.client.jobs.enqueue(name) for name in ("short", "long")]
        await until(lambda: _is(lambda: began == 2), "both run")
        worker.stop()
        stopping.set()
        done = await bench.client.jobs.wait(jobs[0].id, timeout=60)
        assert done.result == "finished"

        async def released() -> bool:
            job = await bench.client.jobs.show(jobs[1].id)
            return (job.status, job.attempts, job.checkpoint) == ("queued", 0, "half")

        await until(released, "the other job is back in its queue, without an attempt")
        after = await bench.client.jobs.enqueue("short")
        # A call that was under way when it stopped may still claim the job, which is released.
        await until(lambda: _status(bench, after.id, "queued"), "it is not run")


async def test_a_job_whose_claim_is_answered_after_the_worker_shall_stop_is_released_at_once(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(concurrency=2, grace=DEADLINE_S, ttl=DEADLINE_S * 6)  # the next heartbeat would come too late
    monkeypatch.setattr(shift, "NOTICE_S", DEADLINE_S * 2)
    monkeypatch.setattr("coordinator.client.events.events.POLL_S", DEADLINE_S * 2)
    holding, release = anyio.Event(), anyio.Event()
    began: list[int] = []
    claim = coordinator.client.jobs.Jobs.claim

    async def late(self: Any, *args: Any, **options: Any) -> Any:
        answer = await claim(self, *args, **options)
        if began and answer:
            holding.set()
            await release.wait()
        return answer

    monkeypatch.setattr(coordinator.client.jobs.Jobs, "claim", late)

    @worker.job("work")
    async def run(context: JobContext, payload: int) -> None:
        began.append(payload)
        await finish.wait()

    finish = anyio.Event()
    async with work(worker) as bench:
        first = await bench.client.jobs.enqueue("work", 1)
        await until(lambda: _holds(began))
        second = await bench.client.jobs.enqueue("work", 2)
        with anyio.fail_after(DEADLINE_S):
            await holding.wait()
        worker.stop()
        with structlog.testing.capture_logs() as logs:
            release.set()
            await until(lambda: _status(bench, second.id, "queued"), "it is released while the first one still runs")
            await until(lambda: _logged(logs, "job.released"))
        assert [line["reason"] for line in logs if line["event"] == "job.released"] == ["the worker ends"]
        assert (await bench.client.jobs.show(first.id)).status == "running"
        finish.set()
        assert (await bench.client.jobs.wait(first.id, timeout=60)).status == "completed"
    assert began == [1]


async def _is(condition: Any) -> bool:
    return bool(condition())


async def test_a_worker_whose_agent_was_reaped_cancels_its_functions_and_registers_again(work: Any) -> None:
    worker = Worker(name="w")
    seen: list[tuple[int, str]] = []

    @worker.job("work")
    async def run(context: JobContext, payload: Any) -> int:
        seen.append((context.fence, "began"))
        if len(seen) > 1:
            return context.attempt
        try:
            await anyio.Event().wait()
        finally:
            seen.append((context.fence, "cancelled"))
        return 0

    with structlog.testing.capture_logs() as logs:
        async with work(worker) as bench:
            job = await bench.client.jobs.enqueue("work")
            await until(lambda: _holds(seen))
            (agent,) = [agent async for agent in bench.client.agents.list() if agent.name == "w"]
            await bench.client.agents.deregister(agent.id)
            # It learns of it when its next call is refused, here a read.
            await bench.client.jobs.enqueue("other", queue="x")
            done = await bench.client.jobs.wait(job.id, timeout=60)
            assert done.status == "completed"
            assert done.worker_id != agent.id
    assert [what for _, what in seen] == ["began", "cancelled", "began"]
    assert [line["event"] for line in logs].count("worker.started") == 2


async def test_a_function_that_ignores_its_cancellation_keeps_its_place_and_harms_no_other(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "STOP_S", 0.2)
    worker = Worker(name="w", concurrency=2)
    release = anyio.Event()
    began: list[int] = []

    @worker.job("stubborn")
    async def stubborn(context: JobContext, payload: Any) -> str:
        began.append(context.fence)
        while not release.is_set() and context.fence == began[0]:
            try:
                await anyio.sleep(0.01)
            except anyio.get_cancelled_exc_class():
                pass
        return "mine"

    @worker.job("good")
    async def good(context: JobContext, payload: Any) -> str:
        return "good"

    async with work(worker) as bench:
        job = await bench.client.jobs.enqueue("stubborn")
        await until(lambda: _is(lambda: began))
        (agent,) = [agent async for agent in bench.client.agents.list() if agent.name == "w"]
        await bench.client.agents.deregister(agent.id)
        assert (await bench.done("good")).result == "good"
        second = await bench.client.jobs.wait(job.id, timeout=60)
        assert second.fence == began[1] > began[0]
        await until(lambda: _is(lambda: len(worker.stuck) == 1), "the first one is stuck")
        release.set()
        await until(lambda: _is(lambda: not worker.stuck), "it ended at last")


async def test_readers_follow_the_output_while_the_job_runs(work: Any) -> None:
    worker = Worker()
    seen = anyio.Event()

    @worker.job("talk")
    async def talk(context: JobContext, payload: Any) -> str:
        await context.output("The ")
        await seen.wait()
        for word in ("answer ", {"is": 42}):
            await context.output(word)
        if context.attempt == 1:
            raise RetryJob("again", delay=0)
        return "said"

    async with work(worker) as bench:
        job = await bench.client.jobs.enqueue("talk")
        with anyio.fail_after(DEADLINE_S):
            follower = bench.client.jobs.follow(job.id)
            first = await anext(follower)
            assert (first.seq, first.attempt, first.chunk) == (1, 1, "The ")
            seen.set()
            rest = [(chunk.seq, chunk.attempt, chunk.chunk) async for chunk in follower]
        assert rest == [(2, 1, "answer "), (3, 1, {"is": 42}), (4, 2, "The "), (5, 2, "answer "), (6, 2, {"is": 42})]
        assert [chunk.seq async for chunk in bench.client.jobs.follow(job.id, seq=5)] == [6]
        assert (await bench.client.jobs.output(job.id))[-1].status == "completed"


async def test_what_cannot_be_written_fails_the_attempt(work: Any) -> None:
    worker = Worker()

    @worker.job("odd")
    async def odd(context: JobContext, payload: Any) -> None:
        await context.output(object())

    @worker.job("deep")
    async def deep(context: JobContext, payload: Any) -> None:
        value: Any = []
        for _ in range(70):
            value = [value]
        await context.output(value)

    async with work(worker) as bench:
        assert "object" in ((await bench.done("odd", max_attempts=1)).error or "")
        assert "levels" in ((await bench.done("deep", max_attempts=1)).error or "")


def test_what_cannot_run_jobs_is_refused_where_it_is_registered() -> None:
    worker = Worker()
    with pytest.raises(ConfigurationError, match="not an async function") as failure:

        @worker.job("sync")  # type: ignore[type-var]
        def sync(context: JobContext, payload: Any) -> None:
            pass

    assert "to_thread" in (failure.value.hint or "")
    with pytest.raises(ConfigurationError, match="does not take a context and a payload"):

        @worker.job("one")  # type: ignore[type-var]
        async def one(context: JobContext) -> None:
            pass

    @worker.job("twice")
    async def twice(context: JobContext, payload: Any) -> None:
        pass

    with pytest.raises(ConfigurationError, match="two functions"):
        worker.job("twice")(twice)


async def test_a_worker_that_cannot_work_says_so_before_it_connects() -> None:
    with pytest.raises(ConfigurationError, match="no function"):
        await Worker().run("postgresql://nowhere.invalid/x", signals=False)
    worker = Worker(concurrency=0)

    @worker.job("bad")
    async def bad(context: JobContext, payload: Unknown) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    with pytest.raises(ConfigurationError, match="concurrency"):
        await worker.run("postgresql://nowhere.invalid/x", signals=False)
    worker.concurrency = 1
    with pytest.raises(ConfigurationError, match='the payload of jobs of type "bad"'):
        await worker.run("postgresql://nowhere.invalid/x", signals=False)
