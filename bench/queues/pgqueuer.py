"""PgQueuer: asyncpg, two dequeuers, batches of 100, which is faster than its own benchmark's 5 of 10."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

from bench.queues.order import BATCH, CONNECTIONS, FEEDERS, PAYLOAD, serve


class _Queue:
    def __init__(self, connections: list[asyncpg.Connection]) -> None:
        self.producers = [Queries(AsyncpgDriver(connection)) for connection in connections[:FEEDERS]]
        self.consumers = [PgQueuer(AsyncpgDriver(connection)) for connection in connections[FEEDERS:]]

    async def enqueue(self, count: int, feeder: int = 0) -> None:
        for number in range(0, count, BATCH):
            size = min(BATCH, count - number)
            payloads: list[bytes | None] = [json.dumps(PAYLOAD).encode() for _ in range(size)]
            await self.producers[feeder].enqueue(["summarize"] * size, payloads, [0] * size)

    async def work(self, done: Callable[[int], bool]) -> None:
        async def summarize(job: Job) -> None:
            json.loads(job.payload or b"")
            if done(1):
                for consumer in self.consumers:
                    consumer.shutdown.set()

        for consumer in self.consumers:
            consumer.entrypoint("summarize")(summarize)
        await asyncio.gather(*(consumer.run(batch_size=BATCH) for consumer in self.consumers))


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[_Queue]:
    """Connect."""
    connections = [await asyncpg.connect(dsn) for _ in range(FEEDERS + CONNECTIONS)]
    try:
        yield _Queue(connections)
    finally:
        for connection in connections:
            await connection.close()


async def _install(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


if __name__ == "__main__":
    asyncio.run(_install(sys.argv[1]))
    serve(opened)
