"""Our queue: a batch is finished and the next one claimed in one call, with events and history on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count

import asyncpg
import msgspec

from bench.queues.order import BATCH, CONNECTIONS, FEEDERS, IDLE_S, PAYLOAD, serve
from coordinator.db.connection import connect

__all__ = ["Worker", "opened"]

SIZE = 200
REGISTER = "select id from coordinator.agent_register('default', $1, p_ttl => '1 day', p_job_types => '{summarize}')"
ENQUEUE = "select count(*) from coordinator.job_enqueue_many('default', $1)"
CLAIM = """
select id, fence, payload, stale
from coordinator.job_claim('default', $1, $2, p_queues => $3, p_finished => $4, p_fences => $5, p_results => $6)
"""


class _Payload(msgspec.Struct):
    document: str
    language: str
    pages: int
    draft: bool


DECODER = msgspec.json.Decoder(_Payload)


class Worker:
    """An agent on one connection; each job is decoded and runs as a task of its own."""

    def __init__(
        self, connection: asyncpg.Connection, claim: asyncpg.PreparedStatement, agent: object, queue: str
    ) -> None:
        self.connection = connection
        self.claim = claim
        self.agent = agent
        self.queue = queue
        self.finished: list[object] = []
        self.fences: list[int] = []

    @classmethod
    async def start(cls, connection: asyncpg.Connection, name: str, queue: str) -> Worker:
        """Register the agent."""
        agent = await connection.fetchval(REGISTER, name)
        return cls(connection, await connection.prepare(CLAIM), agent, queue)

    async def turn(self, size: int = SIZE) -> int:
        """Finish what was done, claim more and do it; return how many were finished."""
        finished = len(self.finished)
        results = [None] * finished
        rows = await self.claim.fetch(self.agent, size, [self.queue], self.finished, self.fences, results)
        if rows and any(row["stale"] for row in rows):
            raise SystemExit("a job that nobody else had was stale")
        async with asyncio.TaskGroup() as tasks:
            for row in rows:
                tasks.create_task(_summarize(row["payload"]))
        self.finished, self.fences = [row["id"] for row in rows], [row["fence"] for row in rows]
        return finished

    async def work(self, done: Callable[[int], bool]) -> None:
        """Work until done."""
        while not done(await self.turn()):
            if not self.finished:
                await asyncio.sleep(IDLE_S)
        if self.finished:
            await self.turn(0)


async def _summarize(payload: msgspec.Raw) -> None:
    DECODER.decode(payload)


class _Queue:
    def __init__(
        self, feeders: Sequence[asyncpg.PreparedStatement], workers: Sequence[Worker], queue: str, keys: int
    ) -> None:
        self.feeders = feeders
        self.workers = workers
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
        await asyncio.gather(*(worker.work(done) for worker in self.workers))


@asynccontextmanager
async def opened(dsn: str, queue: str = "default", keys: str = "0") -> AsyncIterator[_Queue]:
    """Connect, and register the agents."""
    connections = [await connect(dsn, raw_json=True) for _ in range(FEEDERS + CONNECTIONS)]
    try:
        workers = [
            await Worker.start(connection, f"worker-{queue}-{number}", queue)
            for number, connection in enumerate(connections[FEEDERS:])
        ]
        yield _Queue([await each.prepare(ENQUEUE) for each in connections[:FEEDERS]], workers, queue, int(keys))
        for worker in workers:
            await worker.connection.execute("select coordinator.agent_deregister($1)", worker.agent)
    finally:
        for connection in connections:
            await connection.close()


if __name__ == "__main__":
    serve(lambda dsn: opened(dsn, *sys.argv[2:]))
