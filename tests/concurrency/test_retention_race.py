"""Retention concurrent with itself and with writers, and under a snapshot that is held open."""

from __future__ import annotations

import asyncio
import json

from coordinator.db.database import Database
from coordinator.operations import retentions

NOTES = "select count(*) from coordinator.entries e join coordinator.logs l on l.id = e.log_id where l.kind = 'note'"
ENTRIES = json.dumps([{"data": 1}] * 500)


async def append(db: Database, times: int) -> None:
    async with db.transaction() as transaction:
        connection = transaction._connection
        for _ in range(times):
            await connection.execute("select coordinator.log_append('default', 'note', 'k', $1::text::json)", ENTRIES)


async def trim(db: Database) -> int:
    gone = 0
    while results := await db.run(retentions.Trim(limit=100)):
        gone += sum(result.removed for result in results)
    return gone


async def count(db: Database) -> tuple[int, int]:
    """Return what the header counts, and what there is."""
    async with db.transaction() as transaction:
        return tuple(
            await transaction._connection.fetchrow(
                "select l.count, (select count(*) from coordinator.entries e where e.log_id = l.id) from coordinator.logs l where l.kind = 'note'"
            )
        )


async def test_two_loops_and_a_writer_under_a_held_snapshot_remove_each_entry_once(db: Database) -> None:
    await db.run(retentions.Set(project="default", subject="log", kind="note", max_count=50))
    await append(db, 4)
    held = await db.connect()
    try:
        await held.execute("begin isolation level repeatable read")
        assert await held.fetchval(NOTES) == 2000
        gone = await asyncio.gather(trim(db), trim(db), append(db, 1), append(db, 1))
        more = await trim(db)
        assert sum(part for part in gone[:2] if part) + more == 3000 - 50
        assert await count(db) == (50, 50)
        assert await held.fetchval(NOTES) == 2000
    finally:
        await held.close()
