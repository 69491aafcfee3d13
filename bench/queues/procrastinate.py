"""Procrastinate: psycopg's pool, one worker with concurrency, since it fetches a job at a time."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector

from bench.queues.order import BATCH, PAYLOAD, serve

CONCURRENCY = 20
POOL = 10


class _Queue:
    def __init__(self, app: App) -> None:
        self.app = app
        self.done: Callable[[int], bool] = lambda _: False
        self.finished = asyncio.Event()

        @app.task(name="summarize")
        async def summarize(**_payload: object) -> None:
            if self.done(1):
                self.finished.set()

        self.task = summarize

    async def enqueue(self, count: int, feeder: int = 0) -> None:  # noqa: ARG002 - its pool has the connections
        for number in range(0, count, BATCH):
            await self.task.batch_defer_async(*[PAYLOAD] * min(BATCH, count - number))

    async def work(self, done: Callable[[int], bool]) -> None:
        self.done = done
        worker = asyncio.create_task(
            self.app.run_worker_async(
                concurrency=CONCURRENCY, install_signal_handlers=False, update_heartbeat_interval=10
            )
        )
        await self.finished.wait()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[_Queue]:
    """Open the app."""
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=POOL, max_size=POOL))
    async with app.open_async():
        yield _Queue(app)


async def _install(dsn: str) -> None:
    app = App(connector=PsycopgConnector(conninfo=dsn))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


if __name__ == "__main__":
    logging.getLogger("procrastinate").setLevel(logging.ERROR)  # it warns that its tasks belong to the program
    asyncio.run(_install(sys.argv[1]))
    serve(opened)
