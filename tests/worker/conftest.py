"""Workers in the test's own process, on a database whose events are numbered and notified."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest

import coordinator
from coordinator.db.database import Database
from coordinator.model.job_history import Job
from coordinator.worker import Worker
from tests.client.conftest import relayed

__all__ = ["Bench", "working"]


class Bench:
    """A worker that works, and a client that hands jobs to it."""

    def __init__(self, client: coordinator.Client) -> None:
        self.client = client

    async def done(self, type: str, payload: Any = None, **options: Any) -> Job:
        """Enqueue a job, and return it when it has ended."""
        job = await self.client.jobs.enqueue(type, payload, **options)
        return await self.client.jobs.wait(job.id, timeout=60)


@asynccontextmanager
async def working(worker: Worker, url: str) -> AsyncIterator[None]:
    """Run a worker during the block, and stop it in order at the end."""
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await worker.run(url, signals=False)

        tasks.start_soon(run)
        yield
        worker.stop()


@pytest.fixture
def work(database_url: str, db: Database) -> Callable[[Worker], AbstractAsyncContextManager[Bench]]:
    @asynccontextmanager
    async def start(worker: Worker) -> AsyncIterator[Bench]:
        async with (
            relayed(db),
            coordinator.connect(database_url, agent="tester") as client,
            working(worker, database_url),
        ):
            yield Bench(client)

    return start
