"""Our queue: a worker with a function, as a program has it, with events and history on."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import anyio
import asyncpg
import msgspec

from bench.queues.order import BATCH, FEEDERS, PAYLOAD, serve
from coordinator import Client, JobContext, Worker
from coordinator.client import connect as client_of
from coordinator.db.connection import connect, retire
from coordinator.telemetry import logs
from coordinator.worker.shift import Shift

__all__ = ["opened"]

CONCURRENCY = 400  # two calls of 200 jobs
ENQUEUE = "select count(*) from coordinator.job_enqueue_many('default', $1)"


class _Payload(msgspec.Struct):
    document: str
    language: str
    pages: int
    draft: bool


class _Queue:
    def __init__(self, feeders: Sequence[asyncpg.PreparedStatement], client: Client, queue: str, keys: int) -> None:
        self.feeders = feeders
        self.client = client
        self.queue = queue
        self.keys = keys
        self.number = count()

    async def enqueue(self, count: int, feeder: int = 0) -> None:
        for number in range(0, count, BATCH):
            jobs = [
                {"type": "summarize", "queue": self.queue, "payload": PAYLOAD}
                for _ in range(min(BATCH, count - number))
            ]
            if self.keys:
                for job in jobs:
                    job["key"] = f"customer/{next(self.number) % self.keys}"
            await self.feeders[feeder].fetch(jobs)

    async def work(self, done: Callable[[int], bool]) -> None:
        worker = Worker(concurrency=CONCURRENCY, queues=[self.queue])
        stop = anyio.Event()

        @worker.job("summarize")
        async def summarize(_context: JobContext, _payload: _Payload) -> None:
            if done(1):
                stop.set()

        worker.handlers["summarize"].resolve()
        await Shift(worker, self.client, stop).work()


@asynccontextmanager
async def opened(dsn: str, queue: str = "default", keys: str = "0") -> AsyncIterator[_Queue]:
    """Connect, and register the agent."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            client_of(dsn, agent=f"worker-{queue}", job_types=["summarize"], ttl=86400)
        )
        connections = [await connect(dsn) for _ in range(FEEDERS)]
        for connection in connections:
            stack.push_async_callback(retire, connection)
        yield _Queue([await each.prepare(ENQUEUE) for each in connections], client, queue, int(keys))


if __name__ == "__main__":
    logs.configure(level="warning")
    serve(lambda dsn: opened(dsn, *sys.argv[2:]))
