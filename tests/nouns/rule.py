from __future__ import annotations

import asyncpg

from coordinator.operations import rules
from tests.conftest import Transaction
from tests.nouns import Known, Pages

LIMITS = {
    "key": [
        "coordinator.rule_set('default', repeat('a', $1::integer), '{X}')",
    ],
    "list": [
        "coordinator.rule_set('default', 'A', array_fill('a'::text, array[$1::integer]))",
    ],
    "page": [
        "coordinator.rule_list('default', p_limit => $1::integer)",
    ],
}

ARGUMENTS = {
    "when_set": "'SET'",
    "clears": "'{{CLEARED}}'",
}


async def drive(tx: Transaction) -> None:
    await tx.run(rules.Set(project="default", when_set="A", clears=["B"]))
    await tx.run(rules.Delete(project="default", when_set="A"))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.rule_set($1, 'SET', '{CLEARED}')", project)


async def some_rules(tx: Transaction) -> None:
    for when_set, everywhere in (("A", True), ("A", False), ("B", True), ("B", False), ("C", False)):
        await tx.run(rules.Set(project="default", when_set=when_set, clears=["X"], everywhere=everywhere))


PAGES = [
    Pages(some_rules, rules.List(project="default"), 5),
]
