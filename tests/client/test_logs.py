"""Logs on every connection: the database, a daemon, and sidecars on either."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from coordinator.client import Client, LogReset
from coordinator.client.logs import written
from coordinator.errors import Conflict, InvalidArgument, NotFound
from coordinator.model.log import NewEntry
from coordinator.model.operation import JsonText
from coordinator.operations import logs
from tests.waiting import until

EXACT = JsonText(b'{"b": 1e16, "a":"\\u0000 \\ud800", "a" : 2}')


@pytest.mark.parametrize(
    "text", ["", "1, 2", '1, "role": "user"', '1}, {"data": 2', "{", "NaN", "[-Infinity]", '"\\ud800" x', "[" * 9999]
)
def test_a_text_that_is_not_one_json_value_cannot_add_to_its_call(text: str) -> None:
    assert bytes(written([EXACT])) == b'[{"data":' + bytes(EXACT) + b"}]"
    with pytest.raises(InvalidArgument) as raised:
        written([1, NewEntry(JsonText(text))])
    assert raised.value.message.startswith("entry 1: ")
    assert raised.value.detail == '{"entry": 1}'


async def follow(reader: Client, key: str, seen: list[object], **options: Any) -> None:
    async for entry in reader.logs.follow("note", key, **options):
        found = type(entry) if isinstance(entry, LogReset) else entry.data
        seen.append(found)


async def same(one: object, other: object) -> bool:
    return one == other


async def test_entries_are_appended_read_and_listed(connect: Any) -> None:
    async with connect(agent="ann") as client:
        key = "run/7"
        with pytest.raises(NotFound):
            await client.logs.show("note", key)
        first = await client.logs.append("note", key, {"text": "begun"}, "half \ud800", EXACT, expect=0)
        assert (first.last_seq, first.appended) == (3, 3)
        entry = NewEntry(EXACT, uid="u", role="user", tokens=7, needs=-1)
        again = await client.logs.append("note", key, entry, expect=first)
        assert (await client.logs.append("note", key, entry, expect=first)).appended == 0
        entries = await client.logs.read("note", key)
        assert [one.seq for one in entries] == [1, 2, 3, 4]
        assert [one.data for one in entries[:2]] == [{"text": "begun"}, "half \ud800"]
        assert {bytes(one.text) for one in entries[2:]} == {bytes(EXACT)}
        assert entries[2].data == {"b": 1e16, "a": 2}
        assert (entries[3].uid, entries[3].role, entries[3].tokens, entries[3].needs) == ("u", "user", 7, 3)
        assert entries[3].actor == "ann"
        for stale in (first, entries[2], 3):
            with pytest.raises(Conflict):
                await client.logs.append("note", key, 1, expect=stale)
        with pytest.raises(InvalidArgument):
            await client.logs.append("note", key)
        log = await client.logs.show("note", key)
        assert (log.last_seq, log.epoch) == (again.last_seq, again.epoch)
        await client.logs.append("note", key, 1, expect=log)
        page = await client.logs.read("note", key, last=3, limit=2)
        assert [one.seq for one in page] == [3, 4]
        assert [one.seq async for one in client.logs.read("note", key, after=page.cursor)] == [5]
        assert [one.seq async for one in client.logs.read("note", key, last=3, limit=1)] == [3, 4, 5]
        assert [log.key async for log in client.logs.list("note", "run/")] == [key]
        (popped,) = await client.logs.pop("note", key, expect=5)
        assert popped.seq == 5


async def test_appends_of_a_transaction_keep_their_content(connect: Any) -> None:
    async with connect(agent="ann") as client:
        part = logs.Append(
            project=client.project, kind="note", key="k", entries=JsonText(b'[{"data": %s}]' % bytes(EXACT))
        )
        first, second = await client.transactions.run(part, part)
        assert (first.last_seq, second.last_seq, second.epoch) == (1, 2, first.epoch)
        entries = await client.logs.read("note", "k")
        assert [(bytes(entry.text), entry.actor) for entry in entries] == [(bytes(EXACT), "ann")] * 2


async def test_an_entry_that_is_printed_shows_its_content(connect: Any) -> None:
    async with connect() as client:
        await client.logs.append("note", "k", {"text": "begun"})
        (entry,) = await client.logs.read("note", "k")
        assert "data={'text': 'begun'}" in repr(entry)


async def test_a_log_is_followed_from_before_its_first_entry_and_reset_where_entries_are_gone(connect: Any) -> None:
    key = "run/7"
    async with connect() as reader, connect() as writer:
        seen: list[object] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(follow, reader, key, seen))
            await writer.logs.append("note", key, 1, 2)
            await until(partial(same, seen, [1, 2]))
            await writer.logs.append("note", key, 3)
            await until(partial(same, seen, [1, 2, 3]))
            await writer.logs.pop("note", key)
            last = await writer.logs.append("note", key, 4)
            await until(partial(same, seen, [1, 2, 3, 4]))
            tasks.cancel_scope.cancel()
        assert await writer.logs.clear("note", key, expect=last) == 3
        await writer.logs.append("note", key, 5)
        late: list[object] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(follow, reader, key, late, after=2))
            await until(partial(same, late, [LogReset, 5]))
            tasks.cancel_scope.cancel()
        assert await writer.logs.keep("note", key, 5) == 1
        assert await writer.logs.delete("note", key) == 1
