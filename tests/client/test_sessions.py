from __future__ import annotations

import pytest

import coordinator
from coordinator.errors import Conflict, NotFound


async def test_a_session_is_created_changed_listed_and_archived(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="coder") as client:
        made = await client.sessions.create("s", title="Port", context={"n": 1})
        assert (made.session, made.title, made.context, made.actor) == ("s", "Port", {"n": 1}, "coder")
        with pytest.raises(Conflict):
            await client.sessions.create("s")
        other = await client.sessions.create(mission="Do it.")
        assert (await client.sessions.set("s", status="done")).status == "done"
        assert [row.session async for row in client.sessions.list(limit=1)] == ["s", other.session]
        assert [row.session for row in await client.sessions.list(status="done")] == ["s"]
        assert (await client.sessions.archive("s")).status == "archived"
        assert (await client.sessions.show("s")).title == "Port"
        with pytest.raises(NotFound):
            await client.sessions.show("t")
