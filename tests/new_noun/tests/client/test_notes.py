from __future__ import annotations

import coordinator


async def test_a_note_is_written_listed_and_deleted(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="coder") as client:
        note = await client.notes.write("build", "stale")
        assert note.actor == "coder"
        assert [one async for one in client.notes.list()] == [note]
        await client.notes.delete("build")
