"""A program whose worker writes under the fences of its jobs, fails some, blocks its event loop, and ignores cancellations.

As a program: `python -m tests.faults.worker_program <settings as JSON>`; it runs until it is killed, or SIGTERM has let it finish.
"""

from __future__ import annotations

import os
import random
import sys
import time
from datetime import UTC, datetime
from typing import Any

import anyio
import asyncpg
import msgspec

from coordinator import JobContext, RetryJob, SnoozeJob, Worker
from coordinator.telemetry import logs
from tests.daemon import Reopened
from tests.faults.job_worker import EFFECT, GUARD, LOST, Settings

__all__ = ["make"]


def make(settings: Settings, database_url: str) -> Worker:
    """Return a worker; its functions write to the database itself."""
    worker = Worker(
        name=settings.name, queues=settings.queues, ttl=settings.ttl_s, concurrency=settings.batch, grace=settings.ttl_s / 4
    )  # fmt: skip
    choose = random.Random(f"{settings.seed}/{settings.name}")
    blocked = False
    idle: list[Reopened] = []

    @worker.job("work")
    async def work(context: JobContext, payload: int) -> dict[str, int]:
        nonlocal blocked
        await _effect(idle, database_url, context)
        luck = 1.0 if settings.steady else choose.random()
        if luck < 0.05:
            raise RetryJob("a test", at=datetime.now(UTC))
        if luck < 0.08:
            raise SnoozeJob(1)
        if luck < 0.15:
            await context.progress(50, checkpoint=payload)
        if luck < 0.2:
            await anyio.sleep(choose.uniform(0, settings.ttl_s))
        if luck > 0.98 and not blocked and not settings.steady:
            blocked = True
            time.sleep(settings.ttl_s * 1.5)
        return {"fence": context.fence}

    return worker


async def _effect(idle: list[Reopened], url: str, context: JobContext) -> None:
    """Write under the fence, however often the connection is lost."""
    kept = idle.pop() if idle else Reopened(url, call_timeout_s=10)
    try:
        while True:
            try:
                async with kept.lent() as connection, connection.transaction():
                    await connection.execute(GUARD, context.id, context.fence)
                    await connection.execute(EFFECT, context.id, context.fence)
            except (asyncpg.PostgresError, *LOST) as error:
                if (getattr(error, "sqlstate", "") or "").startswith("ZC"):
                    raise
                await anyio.sleep(0.05)
            else:
                return
    finally:
        idle.append(kept)


async def main(settings: Settings, database_url: str) -> None:
    worker = make(settings, database_url)
    await worker.run(settings.url)
    if worker.stuck:
        os._exit(0)


if __name__ == "__main__":
    logs.configure(level="warning")
    given: Any = sys.argv[2] if len(sys.argv) > 2 else None
    told = msgspec.json.decode(sys.argv[1], type=Settings)
    anyio.run(main, told, given or told.url)
