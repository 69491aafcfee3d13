from __future__ import annotations

from datetime import timedelta

from coordinator.operations import notes
from tests.conftest import Transaction
from tests.sql.refusal import refused


async def test_a_note_is_written_listed_and_deleted(tx: Transaction) -> None:
    await tx.run(notes.Write(project="default", key="build", text="old"))
    written = await tx.run(notes.Write(project="default", key="build", text="stale", actor="coder"))
    assert (written.text, written.actor) == ("stale", "coder")
    assert await tx.run(notes.List(project="default")) == [written]
    assert await tx.run(notes.Delete(project="default", key="build"))
    await refused(tx, notes.Delete(project="default", key="build"), "ZC203")


async def test_a_note_expires_and_the_loop_learns_of_it(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await tx.run(notes.Write(project="default", key="build", text="stale", ttl=timedelta(seconds=1)))
    await tx.set_clock(timedelta(seconds=2))
    assert await tx.run(notes.List(project="default")) == []
    assert "note_expire" in await tx.connection.fetchval("select coordinator.work_due()")
    assert await tx.run(notes.Expire()) == 1
    assert await tx.run(notes.Expire()) == 0
