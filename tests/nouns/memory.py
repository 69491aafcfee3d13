from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.operations import memories
from tests.conftest import Transaction
from tests.nouns import Known, Pages

LIMITS = {
    "memory_text": [
        "coordinator.memory_record('default', repeat('ü', $1::integer))",
        "coordinator.memory_record('default', 'x', repeat('ü', $1::integer))",
    ],
    "memory_scope": [
        "coordinator.memory_record('default', 'x', p_tool_name => repeat('ü', $1::integer))",
        "coordinator.memory_record('default', 'x', p_memory_scope => repeat('ü', $1::integer))",
    ],
    "embedding": [
        "coordinator.memory_record('default', 'x', p_embedding => array_fill(0.5::double precision, array[$1::integer]))",
    ],
    "search_words": ["count(*) from coordinator.memory_search('default', repeat('ü', $1::integer))"],
    "page": [
        "coordinator.memory_list('default', p_limit => $1::integer)",
        "coordinator.memory_search('default', 'x', p_limit => $1::integer)",
    ],
}

JSON_UNREAD = {
    "memory_confidence": "it computes with what is stored",
}

ARGUMENTS = {
    "lesson": "'learned'",
    "memory": "'{memory}'",
    ("memory_search", "words"): "'x'",
}

PYTHON_LACKS = {
    "memory_list": {"memory_scope": "scope: a class of operations has that name for something else"},
    "memory_record": {"memory_scope": "scope: a class of operations has that name for something else"},
    "memory_search": {"memory_scope": "scope: a class of operations has that name for something else"},
    "memory_supersede": {"memory_scope": "scope: a class of operations has that name for something else"},
}
PYTHON_ADDS = {
    "memory_list": {"scope": "scope: a class of operations has that name for something else"},
    "memory_record": {"scope": "scope: a class of operations has that name for something else"},
    "memory_search": {"scope": "scope: a class of operations has that name for something else"},
    "memory_supersede": {"scope": "scope: a class of operations has that name for something else"},
}
SPELLED = {
    "memory_list": {"memory_scope": "scope"},
    "memory_record": {"memory_scope": "scope"},
    "memory_search": {"memory_scope": "scope"},
    "memory_supersede": {"memory_scope": "scope"},
}


async def drive(tx: Transaction) -> None:
    memory = await tx.run(memories.Record(project="default", lesson="Test first."))
    newer = await tx.run(memories.Supersede(project="default", memory=memory.memory_id, lesson="Test always."))
    await tx.run(memories.Forget(project="default", memory=newer.memory_id))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    record = "select memory_id from coordinator.memory_record($1, 'learned once')"
    known["memory"] = await connection.fetchval(record, project)


async def some_memories(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for lesson in ("a", "Z", "a b", "é", "a/b"):  # all at one instant
        await tx.run(memories.Record(project="default", lesson=f"{lesson} common"))
    await tx.set_clock(timedelta(hours=1))
    await tx.run(memories.Record(project="default", lesson="common common", confidence=80))


PAGES = [
    Pages(some_memories, memories.List(project="default"), 6),
    Pages(some_memories, memories.Search(project="default", words="common"), 6),
]
