from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.operations import sessions
from tests.conftest import Transaction
from tests.nouns import Known, Pages

LIMITS = {
    "key": [
        "coordinator.session_create('default', repeat('a', $1::integer))",
    ],
    "session_title": [
        "coordinator.session_create('default', 's', p_title => repeat('a', $1::integer))",
    ],
    "session_mission": [
        "coordinator.session_create('default', 's', p_mission => repeat('a', $1::integer))",
    ],
    "session_status": [
        "coordinator.session_create('default', 's', p_status => repeat('a', $1::integer))",
    ],
    "json": [
        "coordinator.session_create('default', 's', p_context => jsonb_build_object('k', repeat('a', $1::integer - 9)))",
    ],
    "page": [
        "coordinator.session_list('default', p_limit => $1::integer)",
    ],
}

JSON = {
    "session_create": "coordinator.session_create('default', 's', p_context => jsonb_build_object('k', $1::text::jsonb))",
    "session_set": "coordinator.session_set('default', 's', p_context => jsonb_build_object('k', $1::text::jsonb))",
}

ARGUMENTS = {
    "session": "'s'",
    ("session_create", "session"): "'new'",
}

OPTIONS_ADD = {
    "session_delete": {"yes": "instead of the question"},
}
SPELLED = {
    "session_create": {"username": "user"},
    "session_list": {"username": "user"},
    "session_set": {"username": "user"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(sessions.Create(project="default", session="driven"))
    await tx.run(sessions.Set(project="default", session="driven", title="t"))
    await tx.run(sessions.Archive(project="default", session="driven"))
    await tx.connection.execute(
        """select coordinator.log_append('default', 'message', 'forked', '[{"data": 1}]'::json)"""
    )
    await tx.run(sessions.Fork(project="default", session="forked"))
    await tx.run(sessions.Delete(project="default", session="driven"))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.session_create($1, 's')", project)
    await connection.execute("select coordinator.message_append($1, 's', '1', 'user')", project)


async def some_sessions(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for name in ("a", "Z", "a b", "é", "a/b"):  # all at one instant
        await tx.run(sessions.Create(project="default", session=name))
    await tx.set_clock(timedelta(hours=1))
    await tx.run(sessions.Create(project="default", session="last"))


PAGES = [
    Pages(some_sessions, sessions.List(project="default"), 6),
    Pages(some_sessions, sessions.List(project="default", status="active"), 6),
]
