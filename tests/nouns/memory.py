from __future__ import annotations

from coordinator.operations import memories
from tests.conftest import Transaction

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


async def drive(tx: Transaction) -> None:
    memory = await tx.run(memories.Record(project="default", lesson="Test first."))
    newer = await tx.run(memories.Supersede(project="default", memory=memory.memory_id, lesson="Test always."))
    await tx.run(memories.Forget(project="default", memory=newer.memory_id))
