"""Attempts as spans; that a trace leads to another process is in tests/telemetry/test_chain.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from opentelemetry.trace import SpanKind, StatusCode

from coordinator import JobContext, Worker
from tests.spans import Spans
from tests.worker.conftest import Bench

Work = Callable[[Worker], AbstractAsyncContextManager[Bench]]


async def test_an_attempt_is_a_span_below_the_call_that_enqueued_its_job(work: Work, spans: Spans) -> None:
    worker = Worker()

    @worker.job("t")
    async def run(context: JobContext, payload: Any) -> None:
        await context.client.signals.set("a", 1)

    async with work(worker) as bench:
        job = await bench.done("t")
    attempt = spans.one("process default")
    assert attempt.kind is SpanKind.CONSUMER
    assert spans.parent(attempt) is spans.one("SELECT coordinator.job_enqueue")
    assert spans.parent(spans.one("signal_set")) is attempt
    assert dict(attempt.attributes or {}) == {
        "messaging.system": "coordinator",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": str(job.id),
        "coordinator.project": "default",
        "coordinator.job.type": "t",
        "coordinator.job.attempt": 1,
    }


async def test_an_attempt_that_fails_says_how_and_the_next_one_is_in_the_same_trace(work: Work, spans: Spans) -> None:
    worker = Worker()

    @worker.job("t")
    async def run(context: JobContext, payload: Any) -> None:
        if context.attempt == 1:
            raise ZeroDivisionError("secret")

    async with work(worker) as bench:
        await bench.done("t", backoff=0)
    first, second = spans.named("process default")
    assert (first.status.status_code, dict(first.attributes or {})["error.type"]) == (
        StatusCode.ERROR,
        "ZeroDivisionError",
    )
    assert second.status.status_code is StatusCode.UNSET
    assert first.context.trace_id == second.context.trace_id
    assert "secret" not in first.to_json()


async def test_one_task_runs_functions_that_wait_for_nothing_also_when_they_are_traced(
    work: Work, spans: Spans
) -> None:
    worker = Worker(concurrency=20)
    tasks: list[Any] = []
    all_there = asyncio.Event()

    @worker.job("t")
    async def run(context: JobContext, payload: Any) -> None:
        tasks.append(asyncio.current_task())
        if len(tasks) == 20:
            all_there.set()

    async with work(worker) as bench:
        await bench.client.jobs.enqueue_many([{"type": "t"}] * 20)
        await all_there.wait()
    assert len(spans.named("process default")) == 20
    assert len({*tasks}) < 20
