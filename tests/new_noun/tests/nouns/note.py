from __future__ import annotations

from datetime import timedelta

from coordinator.operations import notes
from tests.conftest import Transaction

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
