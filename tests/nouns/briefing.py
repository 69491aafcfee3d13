from __future__ import annotations

import asyncpg

from coordinator.operations import agents, briefings
from tests.conftest import Transaction
from tests.nouns import Known, Pages

AGENT = "(select id from coordinator.agents limit 1)"

LIMITS = {
    "briefing_patterns": [
        f"coordinator.briefing_subscribe('default', {AGENT}::text, array_fill('a'::text, array[$1::integer]))",
    ],
    "key": [
        f"coordinator.briefing_subscribe('default', {AGENT}::text, array[repeat('a', $1::integer)])",
    ],
    "page": [
        "coordinator.briefing_list('default', p_limit => $1::integer)",
        "coordinator.briefing_prune(p_limit => $1::integer)",
    ],
}

ARGUMENTS = {
    "patterns": "'{{build/*}}'",
    ("briefing_read", "agent"): "'briefed'",
    ("briefing_subscribe", "agent"): "'briefed'",
}


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.agent_register($1, 'briefed')", project)
    await connection.execute("select coordinator.briefing_subscribe($1, 'briefed', '{build/*}')", project)


async def some_briefings(tx: Transaction) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await tx.run(agents.Register(project="default", name=name))
        await tx.run(briefings.Read(project="default", agent=name))


PAGES = [
    Pages(some_briefings, briefings.List(project="default"), 5),
]
