"""A bare fenced loop of SQL: what a queue costs that has neither events nor limits, retries, views or deadlines."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from bench.queues.order import BATCH, CONNECTIONS, FEEDERS, IDLE_S, PAYLOAD, serve

SIZE = 200
INSTALL = """
create sequence fences;
create table jobs (id bigint generated always as identity primary key, fence bigint, payload jsonb not null)
  with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index on jobs (id) where fence is null;
create table ended (id bigint primary key, payload jsonb not null, ended_at timestamptz not null);
"""
ENQUEUE = "insert into jobs (payload) select * from unnest($1::jsonb[])"
CLAIM = """
update jobs set fence = nextval('fences')
where id = any (array(select id from jobs where fence is null order by id limit $1 for update skip locked))
returning id, fence, payload
"""
FINISH = """
with done as (delete from jobs where id = any ($1) and (id, fence) in (select * from unnest($1::bigint[], $2::bigint[]))
              returning id, payload)
insert into ended select id, payload, clock_timestamp() from done
"""


class _Queue:
    def __init__(self, connections: list[asyncpg.Connection]) -> None:
        self.connections = connections

    async def enqueue(self, count: int, feeder: int = 0) -> None:
        for number in range(0, count, BATCH):
            await self.connections[feeder].execute(ENQUEUE, [json.dumps(PAYLOAD)] * min(BATCH, count - number))

    async def work(self, done: Callable[[int], bool]) -> None:
        await asyncio.gather(*(_loop(connection, done) for connection in self.connections[FEEDERS:]))


async def _loop(connection: asyncpg.Connection, done: Callable[[int], bool]) -> None:
    claim, finish = await connection.prepare(CLAIM), await connection.prepare(FINISH)

    async def summarize(payload: str) -> None:
        msgspec.json.decode(payload)

    while True:
        rows = await claim.fetch(SIZE)
        async with asyncio.TaskGroup() as tasks:
            for row in rows:
                tasks.create_task(summarize(row["payload"]))
        if rows:
            await finish.fetch([row["id"] for row in rows], [row["fence"] for row in rows])
        else:
            await asyncio.sleep(IDLE_S)
        if done(len(rows)):
            break


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[_Queue]:
    """Connect."""
    connections = [await asyncpg.connect(dsn) for _ in range(FEEDERS + CONNECTIONS)]
    for connection in connections:
        await connection.execute("set enable_seqscan = off")
    try:
        yield _Queue(connections)
    finally:
        for connection in connections:
            await connection.close()


async def _install(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(INSTALL)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(_install(sys.argv[1]))
    serve(opened)
