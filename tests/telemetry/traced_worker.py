"""A program with a worker: `python -m tests.telemetry.traced_worker <address>`."""

from __future__ import annotations

import sys

import anyio

from coordinator import Config, JobContext, Worker

worker = Worker(concurrency=1)


@worker.job("traced")
async def traced(context: JobContext, payload: str) -> str:
    await context.client.signals.set("traced/environment", context.environment.get("TRACEPARENT"))
    return payload


if __name__ == "__main__":
    anyio.run(lambda: worker.run(sys.argv[1], config=Config(tracing="on")))
