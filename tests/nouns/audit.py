from __future__ import annotations

import asyncpg

from coordinator.operations import audits
from tests.conftest import Transaction
from tests.nouns import Known, Pages

LIMITS = {
    "list": [
        "coordinator.audit_set('default', array_fill('signal.set'::text, array[$1::integer]))",
        "coordinator.audit_list('default', p_topics => array_fill('a'::text, array[$1::integer]))",
    ],
    "page": [
        "coordinator.audit_copy($1::integer)",
        "coordinator.audit_list('default', p_limit => $1::integer)",
        "coordinator.audit_verify('default', p_limit => $1::integer)",
    ],
}

ARGUMENTS = {
    "topics": "'{{token.*}}'",
    ("audit_verify", "hash"): "null",
}

PYTHON_LACKS = {
    "audit_verify": dict.fromkeys(("after", "hash", "limit"), "it reads all, and computes the hashes itself"),
}
PYTHON_ADDS = {
    "audit_list": {"gone": "no project"},
    "audit_show": {"gone": "no project"},
    "audit_verify": {"gone": "no project", "head": "what must be there", "progress": "of reading all"},
}
OPTIONS_LACK = {
    "audit_verify": dict.fromkeys(("after", "hash", "limit"), "it reads all, and computes the hashes itself"),
}
OPTIONS_ADD = {
    "audit_list": {"gone": "no project"},
    "audit_show": {"gone": "no project"},
    "audit_verify": {"gone": "no project", "head": "what must be there"},
}
SPELLED = {
    "audit_list": {"topics": "topic", "actors": "by"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(audits.Set(project="default", topics=["signal.*"]))
    await tx.run(audits.Reset(project="default"))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.audit_set($1, '{token.*}')", project)


async def some_entries(tx: Transaction) -> None:
    await tx.connection.execute(
        "select coordinator.audit_append(coordinator.audit_header(coordinator.project_id('default'), now()),"
        " array_fill('\"event\": {}'::text, array[5]), array_fill('ann'::text, array[5]), now())"
    )


PAGES = [
    Pages(some_entries, audits.List(project="default"), 5),
]
