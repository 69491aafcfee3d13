from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.operations import knowledge
from tests.conftest import Transaction
from tests.nouns import Known, Pages

METADATA = "(select jsonb_object_agg('m' || n, n) from generate_series(1, $1::integer) n)"

LIMITS = {
    "knowledge_content": ["coordinator.knowledge_put('default', 'k', repeat('x', $1::integer))"],
    "knowledge_title": ["coordinator.knowledge_put('default', 'k', 'x', repeat('ü', $1::integer))"],
    "knowledge_type": ["coordinator.knowledge_put('default', 'k', 'x', p_source_type => repeat('ü', $1::integer))"],
    "knowledge_source": ["coordinator.knowledge_put('default', 'k', 'x', p_source_url => repeat('ü', $1::integer))"],
    "knowledge_metadata": [
        f"coordinator.knowledge_put('default', 'k', 'x', p_metadata => {METADATA})",
        f"count(*) from coordinator.knowledge_search('default', 'x', p_metadata => {METADATA})",
        f"count(*) from coordinator.knowledge_list('default', p_metadata => {METADATA})",
    ],
    "key": ["coordinator.knowledge_put('default', repeat('ü', $1::integer), 'x')"],
    "page": [
        "coordinator.knowledge_list('default', p_limit => $1::integer)",
        "coordinator.knowledge_search('default', 'x', p_limit => $1::integer)",
    ],
}

JSON = {
    "knowledge_put": "coordinator.knowledge_put('default', 'k', 'x', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
    "knowledge_list": "from coordinator.knowledge_list('default', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
    "knowledge_search": "from coordinator.knowledge_search('default', 'x', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
}

ARGUMENTS = {
    ("knowledge_search", "words"): "'x'",
}


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.knowledge_put($1, 'k', 'a text')", project)
    known["words"] = "x"


async def some_knowledge(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for key in ("a", "Z", "a b", "é", "a/b"):
        await tx.run(knowledge.Put(project="default", key=key, content="common"))
    await tx.set_clock(timedelta(hours=1))
    await tx.run(knowledge.Put(project="default", key="last", content="common common"))


PAGES = [
    Pages(some_knowledge, knowledge.List(project="default"), 6),
    Pages(some_knowledge, knowledge.Search(project="default", words="common"), 6),
]
