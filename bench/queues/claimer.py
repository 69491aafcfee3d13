"""A minimal claimer, which finishes a batch and claims the next one in one call, to measure only this call."""

from __future__ import annotations

import asyncio

import asyncpg
import msgspec

__all__ = ["Claimer"]

SIZE = 200
REGISTER = "select id from coordinator.agent_register('default', $1, p_ttl => '1 day', p_job_types => '{summarize}')"
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


class Claimer:
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
    async def start(cls, connection: asyncpg.Connection, name: str, queue: str) -> Claimer:
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


async def _summarize(payload: msgspec.Raw) -> None:
    DECODER.decode(payload)
