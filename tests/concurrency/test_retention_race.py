"""Retention concurrent with itself and with writers, and under a snapshot that is held open."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.db.database import Database
from coordinator.operations import retentions
from tests.conftest import Open

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


FILL = {
    retentions.ExpireDocuments: """
        select coordinator.document_put('default', 'plan', 'k' || n, '1') from generate_series(1, 10) n;
        select coordinator.document_delete('default', 'plan', 'k' || n) from generate_series(1, 10) n;
        update coordinator.documents set expires_at = now() - n * interval '1 s' from generate_series(1, 10) n where key = 'k' || n""",
    retentions.ExpireSessions: """
        select coordinator.retention_set('default', 'session', '*', interval '1 s');
        select coordinator.message_append('default', 'k' || n, '"x"', 'user') from generate_series(1, 10) n;
        update coordinator.sessions set updated_at = now() - interval '1 h', trim_at = now() - n * interval '1 s'
        from generate_series(1, 10) n where key = 'k' || n""",
    retentions.ExpireArtifacts: """
        select coordinator.retention_set('default', 'artifact', '*', interval '1 s');
        select coordinator.artifact_put('default', 'k' || n, 'x') from generate_series(1, 10) n;
        update coordinator.artifacts set updated_at = now() - interval '1 h', trim_at = now() - n * interval '1 s'
        from generate_series(1, 10) n where name = 'k' || n""",
}
LEFT = {
    retentions.ExpireDocuments: "select (select count(*) from coordinator.documents) + (select count(*) from coordinator.document_versions)",
    retentions.ExpireSessions: "select (select count(*) from coordinator.sessions) + (select count(*) from coordinator.entries e join coordinator.logs l on l.id = e.log_id where l.kind = 'message')",
    retentions.ExpireArtifacts: "select count(*) from coordinator.artifacts",
}


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("loop", FILL, ids=lambda loop: loop.__name__)
async def test_what_two_loops_remove_at_once_is_removed_once(
    session: Open, loop: type[retentions.ExpireDocuments], *, commit: bool
) -> None:
    """One has removed a part and not committed; the other one, which does not wait for it, may leave out the project."""
    one, two = await session(), await session()
    await one.execute(FILL[loop])

    async def removed(connection: asyncpg.Connection) -> int:
        gone = 0
        while results := await call(connection, loop(limit=20)):
            gone += sum(result.removed for result in results)
        return gone

    transaction = one.transaction()
    await transaction.start()
    first = sum(result.removed for result in await call(one, loop(limit=5)))
    assert first > 0
    meanwhile = await removed(two)
    assert meanwhile <= 10 - first
    await (transaction.commit() if commit else transaction.rollback())
    assert meanwhile + await removed(two) == (10 - first if commit else 10)
    assert await one.fetchval(LEFT[loop]) == 0
