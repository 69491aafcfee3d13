from __future__ import annotations

import pytest

import coordinator
from coordinator.errors import Conflict, NotFound
from tests.conftest import admin


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


async def test_a_session_is_forked_and_deleted_in_as_many_steps_as_it_takes(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        for text in ("one", "two"):
            await client.logs.append("message", "s", {"content": text})
        copy = await client.sessions.fork("s", 1, title="Again")
        assert (copy.forked_from, copy.title) == ("s", "Again")
        assert [entry.data async for entry in client.logs.read("message", copy.session)] == [{"content": "one"}]
        with pytest.raises(Conflict) as refused:
            await client.sessions.fork("s", 3)
        assert refused.value.code == "ZC335"
        await admin(
            database_url,
            "insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)"
            " select l.id, n, l.epoch, 'a', now(), '1' from coordinator.logs l, generate_series(3, 10002) n where l.key = 's'",
            "update coordinator.logs set last_seq = 10002, count = 10002 where key = 's'",
        )
        await client.sessions.delete("s")
        with pytest.raises(NotFound):
            await client.sessions.show("s")
        assert [row.session async for row in client.sessions.list()] == [copy.session]
