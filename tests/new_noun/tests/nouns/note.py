from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.operations import notes
from tests.conftest import Transaction
from tests.nouns import Known, Pages

LIMITS = {
    "note_text": ["coordinator.note_write('default', 'k', repeat('ä', $1::integer))"],
    "key": ["coordinator.note_write('default', repeat('ä', $1::integer), 'x')"],
    "ttl_max": ["coordinator.note_write('default', 'k', 'x', make_interval(secs => $1))"],
    "page": [
        "coordinator.note_list('default', p_limit => $1::integer)",
        "coordinator.note_expire($1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(notes.Write(project="default", key="k", text="x"))
    await tx.run(notes.Delete(project="default", key="k"))
    await tx.run(notes.Write(project="default", key="k", text="x"))
    await tx.set_clock(timedelta(days=2))
    await tx.run(notes.Expire())


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.note_write($1, 'k', 'x')", project)


async def some_notes(tx: Transaction) -> None:
    for key in ("a", "Z", "a/b", "é"):
        await tx.run(notes.Write(project="default", key=key, text="x"))


PAGES = [Pages(some_notes, notes.List(project="default"), 4)]
