"""Agent state behaves alike on PostgreSQL, through a daemon, and through a sidecar on either."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from coordinator.errors import Conflict, InvalidArgument, NotFound
from coordinator.model.log import NewEntry
from coordinator.model.operation import JsonText
from coordinator.operations import knowledge, memories, messages
from tests.waiting import DEADLINE_S

TEXTS = ['{"b": 1,  "a": 1e16}', r'"\u0000 \ud83d"', "[1.0, -0, 1E400]", '{"a": 1, "a": 2}']


def text(value: str) -> JsonText:
    return JsonText(value.encode())


def detail(raised: Any) -> dict[str, Any]:
    return json.loads(raised.value.detail or "{}")  # type: ignore[no-any-return]


async def test_entries_are_numbered_and_returned_byte_for_byte(connect: Any) -> None:
    async with connect() as client:
        first = await client.logs.append("note", "run", *map(text, TEXTS[:2]), expect=0)
        assert (first.first_seq, first.last_seq) == (1, 2)
        second = await client.logs.append("note", "run", text(TEXTS[3]), expect=first)
        assert second.last_seq == 3
        with pytest.raises(Conflict) as raised:
            await client.logs.append("note", "run", 1, expect=first)
        assert detail(raised) == {"last_seq": 3, "epoch": second.epoch}
        entries = [entry async for entry in client.logs.read("note", "run")]
        assert [bytes(entry.text).decode() for entry in entries] == [TEXTS[0], TEXTS[1], TEXTS[3]]
        assert [entry.seq async for entry in client.logs.read("note", "run", last=2)] == [2, 3]


async def test_an_entry_with_a_uid_is_appended_once(connect: Any) -> None:
    async with connect() as client:
        given = NewEntry({"n": 1}, uid="u1")
        receipts = [await client.logs.append("note", "run", given, NewEntry({"n": 2}, uid="u2")) for _ in range(2)]
        assert [(receipt.first_seq, receipt.last_seq, receipt.appended) for receipt in receipts] == [
            (1, 2, 2),
            (1, 2, 0),
        ]
        with pytest.raises(Conflict):
            await client.logs.append("note", "run", NewEntry({"n": 3}, uid="u1"))
        assert (await client.logs.show("note", "run")).count == 2


async def test_a_batch_with_a_bad_entry_appends_nothing_and_names_it(connect: Any) -> None:
    async with connect() as client:
        with pytest.raises(InvalidArgument) as raised:
            await client.logs.append("note", "run", 1, text(TEXTS[2]), 3)
        assert detail(raised)["entry"] == 1
        with pytest.raises(NotFound):
            await client.logs.show("note", "run")


async def test_writers_at_once_leave_whole_batches_in_one_order(connect: Any) -> None:
    async with connect() as client:

        async def write(writer: int) -> None:
            for batch in range(4):
                await client.logs.append("note", "busy", *([writer, batch, part] for part in range(3)))

        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as tasks:
                for writer in range(6):
                    tasks.start_soon(write, writer)
        entries = [entry async for entry in client.logs.read("note", "busy")]
        assert [entry.seq for entry in entries] == list(range(1, 73))
        batches = [tuple(entry.data[:2] for entry in entries[at : at + 3]) for at in range(0, 72, 3)]
        assert all(len(set(map(tuple, batch))) == 1 for batch in batches)
        for writer in range(6):
            assert [batch[0][1] for batch in batches if batch[0][0] == writer] == [0, 1, 2, 3]


async def test_a_session_begins_with_its_first_message_and_ends_with_all_it_has(connect: Any) -> None:
    async with connect() as client:
        await client.logs.append("message", "chat", {"role": "user", "content": "Hello"})
        await client.states.save("chat", {"n": 1})
        assert [row.session async for row in client.sessions.list(status="active", limit=1)] == ["chat"]
        changed = await client.sessions.set("chat", title="Greeting", context={"n": [1, None]})
        assert (changed.title, changed.context) == ("Greeting", {"n": [1, None]})
        await client.sessions.archive("chat")
        for call in (client.logs.append("message", "chat", 1), client.states.save("chat", {})):
            with pytest.raises(Conflict) as raised:
                await call
            assert raised.value.code == "ZC332"
        await client.sessions.delete("chat")
        for read in (client.sessions.show("chat"), client.logs.show("message", "chat"), client.states.load("chat")):
            with pytest.raises(NotFound):
                await read


async def test_a_fork_has_what_the_session_had_and_then_diverges(connect: Any) -> None:
    async with connect() as client:
        for number in (1, 2):
            await client.states.save("chat", {"n": number})
            await client.logs.append("message", "chat", {"role": "user", "content": str(number)})
        copy = (await client.sessions.fork("chat", 1)).session
        assert (await client.states.load(copy)).value == {"n": 1}
        receipt = await client.logs.append("message", copy, {"role": "user", "content": "other"})
        assert receipt.last_seq == 2
        for name, contents in ((copy, ["1", "other"]), ("chat", ["1", "2"])):
            assert [entry.data["content"] async for entry in client.logs.read("message", name)] == contents
        with pytest.raises(Conflict) as raised:
            await client.sessions.fork("chat", 3)
        assert (raised.value.code, detail(raised)) == ("ZC335", {"last_seq": 2})


async def test_documents_have_versions_and_are_returned_as_they_were_put(connect: Any) -> None:
    async with connect() as client:
        first = await client.documents.put("plan", "p", {"steps": 1}, expect=0)
        read = await client.documents.get("plan", "p")
        assert (read.version, read.epoch, read.value) == (1, first.epoch, {"steps": 1})
        second = await client.documents.put("plan", "p", {"steps": 2}, expect=read)
        with pytest.raises(Conflict) as raised:
            await client.documents.put("plan", "p", {"steps": 3}, expect=read)
        assert detail(raised)["version"] == second.version == 2
        assert (await client.documents.get("plan", "p", version=1)).value == {"steps": 1}
        assert (await client.documents.get("plan", "p", path=["steps"])).value == 2
        assert await client.documents.diff("plan", "p", 1) == [{"op": "replace", "path": "/steps", "value": 2}]
        gone = await client.documents.delete("plan", "p")
        with pytest.raises(NotFound):
            await client.documents.get("plan", "p")
        back = await client.documents.restore("plan", "p")
        assert (gone.version, back.version, (await client.documents.get("plan", "p")).value) == (3, 4, {"steps": 2})


async def test_agents_change_items_of_one_list_and_lose_none(connect: Any) -> None:
    items = [{"id": number, "status": "open"} for number in range(12)]
    async with connect() as client:
        await client.documents.put("board", "b", items)

        async def close(number: int) -> None:
            await client.documents.item("board", "b", number, {"status": "done"})

        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as tasks:
                for number in range(12):
                    tasks.start_soon(close, number)
        document = await client.documents.get("board", "b")
        assert (document.version, {item["status"] for item in document.value}) == (13, {"done"})
        with pytest.raises(NotFound):
            await client.documents.item("board", "b", 12, {"status": "done"})


async def test_a_transaction_appends_messages_memories_and_knowledge_or_nothing(connect: Any) -> None:
    async with connect() as client:
        said = messages.Append(project=client.project, session="s", content=text(TEXTS[1]), role="user", expect=0)
        learned = memories.Record(project=client.project, lesson="It rained.", embedding=[0.5, -1])
        known = knowledge.Put(project=client.project, key="rain", content="Water falls.", expect=0)
        receipt, memory, entry = await client.transactions.run(said, learned, known)
        assert (receipt.last_seq, entry.version) == (1, 1)
        assert await client.memories.get(memory.memory_id) == memory
        (message,) = [row async for row in client.logs.read("message", "s")]
        assert bytes(message.text).decode() == f'{{"role": "user", "content": {TEXTS[1]}}}'
        with pytest.raises(Conflict) as raised:
            await client.transactions.run(learned, known)
        assert (detail(raised)["version"], detail(raised)["write"]) == (1, 1)
        assert (await client.memories.get(memory.memory_id)).reinforcements == 1


async def test_lists_and_searches_are_filtered_by_values_of_json(connect: Any) -> None:
    async with connect() as client:
        for number in (1, 2):
            await client.knowledge.put(f"k{number}", "A word", metadata={"n": number, "deep": {"x": [1]}})
            await client.jobs.enqueue("x", {"n": number, "s": "é &=+%"})
        filtered: dict[str, Any] = {"n": 2}
        assert [match.key async for match in client.knowledge.search("word", metadata=filtered)] == ["k2"]
        assert [entry.key async for entry in client.knowledge.list(metadata=filtered)] == ["k2"]
        found = [job async for job in client.jobs.list(payload={"n": 2, "s": "é &=+%"})]
        assert [job.payload for job in found] == [{"n": 2, "s": "é &=+%"}]


async def test_an_export_is_imported_into_another_project(connect: Any, projects: Any) -> None:
    async with connect() as client:
        await client.logs.append("note", "run", *map(text, TEXTS[:2]))
        await client.documents.put("plan", "main", text(TEXTS[0]))
        lines = [row.line async for row in client.projects.export(limit=2)]
        told: list[int] = []
        copy = next(projects)
        done = await client.projects.import_(lines, copy, progress=lambda state: told.append(state.lines))
        assert (done.finished, done.lines, told) == (True, len(lines), [len(lines)])
        assert [row.line async for row in client.projects.export(copy)][1:] == lines[1:]
        with pytest.raises(Conflict):
            await client.projects.import_(lines)
        with pytest.raises(InvalidArgument):
            await client.projects.import_(["[]"], copy)
