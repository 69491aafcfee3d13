from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import anyio
import asyncpg
import pytest
from msgspec import Raw

from coordinator.db.connection import connect
from coordinator.errors import Conflict
from coordinator.model.memory import MemoryEntry
from coordinator.operations import documents, memories, projects
from tests.conftest import Transaction
from tests.sql.refusal import refused

P = "default"


async def record(tx: Transaction, lesson: str = "Test first.", **fields: Any) -> MemoryEntry:
    return await tx.run(memories.Record(**{"project": P, "lesson": lesson, **fields}))


async def lessons(tx: Transaction, **fields: Any) -> list[str]:
    return [memory.lesson for memory in await tx.run(memories.List(project=P, **fields))]


async def found(tx: Transaction, words: str, **fields: Any) -> list[str]:
    return [memory.lesson for memory in await tx.run(memories.Search(project=P, words=words, **fields))]


async def test_a_memory_is_recorded_and_read(tx: Transaction) -> None:
    made = await record(
        tx, context="before a merge", tool_name="pytest", confidence=80, memory_scope="web", actor="coder"
    )
    assert (made.lesson, made.context, made.tool_name, made.scope) == ("Test first.", "before a merge", "pytest", "web")
    assert (made.confidence, made.reinforcements, made.superseded_by, made.actor) == (80, 1, None, "coder")
    assert await tx.run(memories.Get(project=P, memory=made.memory_id)) == made
    assert await tx.run(memories.List(project=P)) == [made]
    (event,) = [event for event in await tx.events() if event["type"] == "memory.recorded"]
    assert (event["key"], event["actor"]) == (made.memory_id, "coder")


async def test_the_same_lesson_is_one_memory_and_is_reinforced(tx: Transaction) -> None:
    first = await record(tx, confidence=50)
    second = await record(tx, confidence=50)
    assert (second.memory_id, second.confidence, second.reinforcements) == (first.memory_id, 75, 2)
    assert second.created_at == first.created_at
    assert (await record(tx, confidence=0)).confidence == 75
    assert (await record(tx, confidence=100)).confidence == 100
    for fields in ({"context": "c"}, {"tool_name": "t"}, {"memory_scope": "s"}, {"lesson": "Test last."}):
        assert (await record(tx, **fields)).memory_id != first.memory_id
    assert len(await lessons(tx)) == 5


async def test_parts_that_only_look_alike_when_joined_are_different_memories(tx: Transaction) -> None:
    made = {
        (await record(tx, "b", context="a")).memory_id,
        (await record(tx, "a", context="b")).memory_id,
        (await record(tx, 'a", "b')).memory_id,
        (await record(tx, "a", tool_name="b")).memory_id,
        (await record(tx, "a", memory_scope="b")).memory_id,
    }
    assert len(made) == 5


async def test_confidence_halves_every_90_days_and_decay_writes_nothing(tx: Transaction) -> None:
    made = await record(tx, confidence=80)
    rows = "select array_agg(d.version) from coordinator.documents d"
    before = await tx.connection.fetchval(rows)
    for days, left in ((0, 80), (45, 56.6), (90, 40), (180, 20), (90_000, 0)):
        await tx.set_clock(timedelta(days=days))
        assert (await tx.run(memories.Get(project=P, memory=made.memory_id))).confidence == left
        assert await tx.connection.fetchval("select confidence from coordinator.memories") == left
    assert await tx.connection.fetchval(rows) == before
    await tx.set_clock(timedelta(days=90))
    assert (await record(tx, confidence=50)).confidence == 70  # 100 - (100 - 40) * (100 - 50) / 100


async def test_a_confident_memory_is_found_before_one_that_decayed(tx: Transaction) -> None:
    await record(tx, "The build is slow on Mondays.", confidence=90)
    await tx.set_clock(timedelta(days=365))
    await record(tx, "The build is slow on Tuesdays.", confidence=60)
    assert await found(tx, "build slow") == ["The build is slow on Tuesdays.", "The build is slow on Mondays."]


async def test_what_was_superseded_is_found_and_listed_only_where_that_is_asked_for(tx: Transaction) -> None:
    old = await record(tx, "Deploy on Mondays.", context="release", tool_name="deploy", memory_scope="ops")
    new = await tx.run(memories.Supersede(project=P, memory=old.memory_id, lesson="Deploy on any day."))
    assert (new.context, new.tool_name, new.scope) == ("release", "deploy", "ops")
    assert await found(tx, "deploy") == await lessons(tx) == ["Deploy on any day."]
    assert sorted(await found(tx, "deploy", superseded=True)) == sorted(await lessons(tx, superseded=True))
    assert len(await lessons(tx, superseded=True)) == 2
    assert (await tx.run(memories.Get(project=P, memory=old.memory_id))).superseded_by == new.memory_id
    again = await tx.run(memories.Supersede(project=P, memory=old.memory_id, lesson="Deploy on any day."))
    assert (again.memory_id, again.reinforcements) == (new.memory_id, 2)
    error = await refused(tx, memories.Supersede(project=P, memory=old.memory_id, lesson="Never deploy."), "ZC301")
    assert isinstance(error, Conflict)
    assert json.loads(error.detail or "") == {"superseded_by": new.memory_id}
    await refused(tx, memories.Supersede(project=P, memory=new.memory_id, lesson="Deploy on any day."), "ZC105")
    await refused(tx, memories.Supersede(project=P, memory="x", lesson="Never deploy."), "ZC222")


async def test_recording_a_superseded_lesson_leaves_it_superseded_until_its_successor_is_forgotten(
    tx: Transaction,
) -> None:
    old = await record(tx, "Deploy on Mondays.")
    new = await tx.run(memories.Supersede(project=P, memory=old.memory_id, lesson="Deploy on any day."))
    assert (await record(tx, "Deploy on Mondays.")).superseded_by == new.memory_id
    await tx.run(memories.Forget(project=P, memory=new.memory_id))
    assert (await record(tx, "Deploy on Mondays.")).superseded_by is None
    assert await found(tx, "deploy") == ["Deploy on Mondays."]


async def test_a_lesson_that_returns_is_current_again(tx: Transaction) -> None:
    first = await record(tx, "Use tabs.")
    second = await tx.run(memories.Supersede(project=P, memory=first.memory_id, lesson="Use spaces."))
    third = await tx.run(memories.Supersede(project=P, memory=second.memory_id, lesson="Use tabs."))
    assert (third.memory_id, third.superseded_by) == (first.memory_id, None)
    assert await lessons(tx) == ["Use tabs."]


async def test_what_is_forgotten_is_gone_and_begins_again_when_it_is_recorded(tx: Transaction) -> None:
    made = await record(tx, confidence=90)
    assert await tx.run(memories.Forget(project=P, memory=made.memory_id)) is True
    assert await lessons(tx, superseded=True) == await found(tx, "test", superseded=True) == []
    for call in (memories.Get, memories.Forget):
        await refused(tx, call(project=P, memory=made.memory_id), "ZC222")
    again = await record(tx, confidence=50)
    assert (again.memory_id, again.confidence, again.reinforcements) == (made.memory_id, 50, 1)


async def test_scope_and_tool_select(tx: Transaction) -> None:
    await record(tx, "one lesson", memory_scope="web", tool_name="npm")
    await record(tx, "another lesson", memory_scope="web")
    await record(tx, "a lesson", tool_name="npm")
    for select, count in (({}, 3), ({"memory_scope": "web"}, 2), ({"tool_name": "npm"}, 2), ({"memory_scope": "web", "tool_name": "npm"}, 1), ({"memory_scope": ""}, 1), ({"memory_scope": "x"}, 0)):  # fmt: skip
        assert len(await lessons(tx, **select)) == len(await found(tx, "lesson", **select)) == count, select


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"lesson": ""}, "ZC101"),
        ({"confidence": 100.1}, "ZC104"),
        ({"confidence": -1}, "ZC104"),
        ({"confidence": float("nan")}, "ZC104"),
        ({"tool_name": ""}, "ZC101"),
        ({"memory_scope": "a\nb"}, "ZC103"),
    ],
    ids=str,
)
async def test_bad_input_is_refused(tx: Transaction, fields: dict[str, Any], code: str) -> None:
    await refused(tx, memories.Record(**{"project": P, "lesson": "x", **fields}), code)


WRITTEN = {
    "lesson": "l", "context": "", "scope": "", "language": "english", "created_at": "2026-01-01T00:00:00Z",
    "reinforced_at": "2026-01-01T00:00:00Z", "confidence": 1, "reinforcements": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"lesson": 1}, {"lesson": None}, {"created_at": "now"}, {"created_at": "2026-02-31T00:00:00Z"}, {"reinforced_at": "infinity"}, {"confidence": 1000},
     {"confidence": "1"}, {"reinforcements": 0}, {"reinforcements": 1.5}, {"reinforcements": 10**9}, {"language": "klingon"}, {"superseded_by": 1}],
    ids=str,
)  # fmt: skip
async def test_a_document_that_is_not_a_memory_is_refused(tx: Transaction, change: dict[str, Any]) -> None:
    for value in (WRITTEN | change, [WRITTEN], {}, 1):
        call = documents.Put(project=P, kind="memory", key="k", value=Raw(json.dumps(value).encode()))
        await refused(tx, call, "ZC105")
    await tx.run(documents.Put(project=P, kind="memory", key="k", value=Raw(json.dumps(WRITTEN).encode())))
    assert await lessons(tx) == ["l"]


async def test_projects_have_memories_of_their_own(tx: Transaction) -> None:
    await tx.run(projects.Create(project="other"))
    made = await record(tx)
    other = await tx.run(memories.Record(project="other", lesson="Test first."))
    assert (other.memory_id, other.reinforcements) == (made.memory_id, 1)
    await tx.run(memories.Forget(project="other", memory=other.memory_id))
    assert await lessons(tx) == ["Test first."]
    assert [memory.project for memory in await tx.run(memories.Search(project=P, words="test"))] == [P]


async def test_16_agents_that_learn_the_same_at_once_reinforce_one_memory(database_url: str) -> None:
    connections = [await connect(database_url) for _ in range(16)]

    async def learn(connection: asyncpg.Connection) -> None:
        for lesson in ("first", "second", "third"):
            await connection.execute("select coordinator.memory_record('default', $1, p_confidence => 10)", lesson)

    try:
        async with anyio.create_task_group() as tasks:
            for connection in connections:
                tasks.start_soon(learn, connection)
        rows = await connections[0].fetch("select reinforcements, confidence from coordinator.memories")
        assert [tuple(row) for row in rows] == [(16, round(100 - 100 * 0.9**16, 1))] * 3
    finally:
        for connection in connections:
            await connection.close()


async def test_agents_that_supersede_each_others_memories_at_once_do_not_deadlock(database_url: str) -> None:
    connections = [await connect(database_url) for _ in range(8)]
    outcomes: list[str] = []
    try:
        ids = [
            await connections[0].fetchval("select memory_id from coordinator.memory_record('default', $1)", lesson)
            for lesson in ("a", "b")
        ]

        async def swap(connection: asyncpg.Connection, old: str, lesson: str) -> None:
            for _ in range(5):
                try:
                    await connection.fetchval("select coordinator.memory_supersede('default', $1, $2)", old, lesson)
                except asyncpg.PostgresError as error:
                    outcomes.append(error.sqlstate or "")

        async with anyio.create_task_group() as tasks:
            for place, connection in enumerate(connections):
                tasks.start_soon(swap, connection, *((ids[0], "b") if place % 2 else (ids[1], "a")))
        assert outcomes == []
        left = await connections[0].fetch("select memory_id from coordinator.memories where superseded_by is null")
        assert len(left) == 1
    finally:
        for connection in connections:
            await connection.close()
