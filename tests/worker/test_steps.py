"""Steps, waits and questions of a function: each is done once, however often the function runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pytest

import coordinator
from coordinator import JobContext, RetryJob, Worker
from coordinator.db.database import Database
from coordinator.errors import WaitTimedOut
from coordinator.operations import agents, job_waits
from tests.waiting import until


class Page(msgspec.Struct):
    words: int


@asynccontextmanager
async def matching(db: Database) -> AsyncIterator[None]:
    """Compare events with waits all the time, as the leader does."""

    async def match() -> None:
        while True:
            await db.run(job_waits.Match())
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(match)
        yield
        tasks.cancel_scope.cancel()


async def test_a_block_runs_once_and_the_next_attempt_gets_its_result(work: Any) -> None:
    worker = Worker()
    ran: list[Any] = []

    @worker.job("x")
    async def x(context: JobContext, payload: Any) -> Any:
        async with context.step("fetch", type=Page) as step:
            if not step.done:
                ran.append("fetch")
                step.result = Page(7)
        assert step.result == Page(7)
        async with context.step("nothing") as empty:
            ran.append(empty.done)
        if context.attempt == 1:
            try:
                async with context.step("bad") as step:
                    step.result = 1
                    int("x")  # not stored
            except ValueError:
                raise RetryJob(delay=0) from None
        async with context.step("bad") as step:
            step.result = (step.done, step.result)
        return [step.result, empty.result]

    async with work(worker) as bench:
        done = await bench.done("x")
        assert (done.result, ran) == ([[False, None], None], ["fetch", False, True])


async def test_a_step_without_a_function_can_only_be_a_block(work: Any) -> None:
    worker = Worker()

    @worker.job("x")
    async def x(context: JobContext, payload: Any) -> None:
        await context.step("fetch")

    async with work(worker) as bench:
        assert "async with" in ((await bench.done("x", max_attempts=1)).error or "")


async def test_a_step_runs_once_and_the_next_attempt_gets_its_result(work: Any) -> None:
    worker = Worker()
    ran: list[Any] = []

    async def fetch(page: int) -> Page:
        ran.append(page)
        return Page(page * 10)

    def total(pages: list[Page]) -> int:
        ran.append("total")
        return sum(page.words for page in pages)

    @worker.job("x")
    async def x(context: JobContext, payload: Any) -> int:
        pages = [await context.step("fetch", fetch, page, type=Page) for page in range(3)]
        assert all(isinstance(page, Page) for page in pages)
        if context.attempt == 1:
            raise RetryJob(delay=0)
        assert await context.step("nothing", lambda: None) is None
        return int(await context.step("total", total, pages))

    async with work(worker) as bench:
        done = await bench.done("x")
        assert (done.status, done.result, done.attempts) == ("completed", 30, 2)
        steps = [(step.name, step.ordinal) async for step in bench.client.jobs.steps(done.id)]
    assert ran == [0, 1, 2, "total"]
    assert steps == [("fetch", 1), ("fetch", 2), ("fetch", 3), ("nothing", 1), ("total", 1)]


async def test_a_step_that_is_not_json_and_one_of_another_kind_fail_the_job(work: Any) -> None:
    worker = Worker()

    @worker.job("bad")
    async def bad(context: JobContext, payload: Any) -> None:
        await context.step("odd", object)

    @worker.job("mixed")
    async def mixed(context: JobContext, payload: Any) -> None:
        if context.attempt == 1:
            await context.step("a", lambda: 1)
            raise RetryJob(delay=0)
        await context.sleep("a", 60)

    async with work(worker) as bench:
        done = await bench.done("bad")
        assert (done.status, done.attempts) == ("failed", 1)
        assert 'step "odd" cannot be encoded' in done.error
        done = await bench.done("mixed")
        assert (done.status, "is a wait now" in done.error) == ("failed", True)


async def test_waits_free_the_place_of_the_worker_and_end_by_what_happens(work: Any, db: Database) -> None:
    worker = Worker(concurrency=1)
    began = 0

    @worker.job("x")
    async def x(context: JobContext, other: str) -> list[Any]:
        nonlocal began
        began += 1
        found: list[Any] = [await context.wait_for_signal("ready", "state", value="ok", ttl=600)]
        for _ in range(2):
            event = await context.wait_for_event("reply", "custom.reply", key="7")
            found.append(event["data"]["n"])
        await context.sleep("pause", 0)
        found.append(list((await context.wait_for_jobs("other", [UUID(other)])).values()))
        found.append(await context.ask("approval", "Deploy?", options=["yes", "no"], ttl=600))
        return found

    @worker.job("y")
    async def y(context: JobContext, payload: Any) -> str:
        return "done"

    async with work(worker) as bench, matching(db):
        client = bench.client
        other = await client.jobs.enqueue("z")
        job = await client.jobs.enqueue("x", str(other.id), max_attempts=1)

        async def waits_for(cause: str, times: int) -> None:
            async def so() -> bool:
                found = await client.jobs.show(job.id)
                return (found.waiting_for, began) == (cause, times)

            await until(so)

        await waits_for("wait", 1)
        assert (await bench.done("y")).result == "done"  # although there is one place only
        await client.signals.set("state", "no")
        await client.signals.set("state", "ok")
        await waits_for("wait", 2)
        await client.events.emit("custom.reply", key="7", data={"n": 1})
        await client.events.emit("custom.reply", key="7", data={"n": 2})
        await until(lambda: client.jobs.why(job.id), "")
        await client.jobs.cancel(other.id)

        async def asked() -> bool:
            return [question.job async for question in client.jobs.questions()] == [job.id]

        await until(asked)
        await client.jobs.answer(job.id, "yes")
        done = await client.jobs.wait(job.id, timeout=60)
        assert (done.status, done.result, done.attempts) == ("completed", ["ok", 1, 2, ["cancelled"], "yes"], 1)


async def test_the_end_of_the_time_of_a_wait_is_an_outcome_that_is_stored(work: Any, db: Database) -> None:
    worker = Worker()

    @worker.job("x")
    async def x(context: JobContext, payload: Any) -> str:
        with pytest.raises(WaitTimedOut):
            await context.wait_for_signal("ready", "never", ttl=1)
        if context.attempt == 1:
            raise RetryJob(delay=0)
        with pytest.raises(WaitTimedOut):
            await context.ask("approval", "Deploy?", ttl=1)
        return str(await context.ask("second", "Deploy?", ttl=1, fallback="no"))

    async with work(worker) as bench, matching(db):
        done = await bench.done("x")
    assert (done.status, done.result, done.attempts) == ("completed", "no", 2)


DYING = """
import os, sys, anyio, coordinator

worker = coordinator.Worker(name="dying")

@worker.job("x")
async def x(context, payload):
    await context.step("first", lambda: print("first", flush=True) or os.getpid())
    print("between", flush=True)
    await anyio.sleep_forever()

anyio.run(worker.run, sys.argv[1])
"""


async def test_a_worker_that_is_killed_after_a_step_has_stored_it(
    database_url: str, db: Database, work: Any, tmp_path: Path
) -> None:
    async with coordinator.connect(database_url) as client:
        job = await client.jobs.enqueue("x")
        script = tmp_path / "dying.py"
        script.write_text(DYING)
        with subprocess.Popen(
            [sys.executable, script, database_url], stdout=subprocess.PIPE, text=True, env={**os.environ}
        ) as dying:
            assert dying.stdout is not None
            lines = []
            while not lines or lines[-1] != "between":
                line = await anyio.to_thread.run_sync(dying.stdout.readline)
                assert line
                lines.append(line.strip())
            dying.send_signal(signal.SIGKILL)
        assert lines.count("first") == 1
        ran = []
        worker = Worker(name="heir")

        @worker.job("x")
        async def x(context: JobContext, payload: Any) -> Any:
            return await context.step("first", lambda: ran.append(1))

        (lost,) = [agent async for agent in client.agents.list() if agent.name == "dying"]
        await db.run(agents.Deregister(agent=lost.id))  # what the reaper does
        async with work(worker):
            done = await client.jobs.wait(job.id, timeout=60)
        assert (done.status, done.result, ran) == ("completed", dying.pid, [])
        assert len([step async for step in client.jobs.steps(job.id)]) == 1
