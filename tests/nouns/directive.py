from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.operations import directives
from tests.conftest import Transaction
from tests.nouns import Known, Pages
from tests.nouns.agent import agent

HOUR = timedelta(hours=1)

LIMITS = {
    "name": [
        "coordinator.directive_send('default', 'x', repeat('a', $1::integer))",
    ],
    "key": [
        "coordinator.directive_send('default', 'x', 'a', p_key => repeat('a', $1::integer))",
    ],
    "text": [
        "coordinator.directive_send('default', repeat('ä', $1::integer), 'a')",
    ],
    "reason": [
        "coordinator.directive_revoke('default', (select max(id) from coordinator.directives), repeat('a', $1::integer))",
        "coordinator.directive_acknowledge('default', (select max(id) from coordinator.directives), 'a', 'refused', repeat('a', $1::integer))",
    ],
    "json": [
        "coordinator.directive_send('default', 'x', 'a', p_data => jsonb_build_object('k', repeat('x', $1::integer - 9)))",
    ],
    "ttl_min": [
        "coordinator.directive_send('default', 'x', 'a', p_ttl => make_interval(secs => $1))",
    ],
    "ttl_max": [
        "coordinator.directive_send('default', 'x', 'a', p_ttl => make_interval(secs => $1))",
    ],
    "page": [
        "coordinator.directive_list('default', p_limit => $1::integer)",
        "coordinator.directive_inbox('default', (select id from coordinator.agents limit 1)::text, p_limit => $1::integer)",
        "coordinator.directive_pending('default', p_limit => $1::integer)",
        "coordinator.directive_expire($1::integer)",
        "coordinator.directive_prune(p_limit => $1::integer)",
    ],
    "priority": [
        "coordinator.directive_send('default', 'x', 'a', p_priority => $1::integer)",
        "coordinator.directive_send('default', 'x', 'a', p_priority => -$1::integer)",
    ],
}

JSON = {
    "directive_send": "coordinator.directive_send('default', 'x', 'a', p_data => jsonb_build_object('k', $1::text::jsonb))",
}

ARGUMENTS = {
    "body": "'do it'",
    ("directive_send", "to_agent"): "'a'",
    "directive": "{directive}",
    ("directive_inbox", "agent"): "'a'",
    ("directive_acknowledge", "agent"): "'a'",
    ("directive_list", "directive"): "null",
}

SPELLED = {
    "directive_list": {"open": "all"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(directives.Send(project="default", body="x", to_agent="a", key="k"))
    sent = await tx.run(directives.Send(project="default", body="y", to_agent="a", key="k"))
    await tx.run(directives.Acknowledge(project="default", directive=sent.id, agent="a", status="seen"))
    await tx.run(directives.Acknowledge(project="default", directive=sent.id, agent="a", status="refused", reason="no"))
    await tx.run(directives.Revoke(project="default", directive=sent.id))
    await tx.run(directives.Send(project="default", body="z", everyone=True, ttl=timedelta(seconds=1)))
    await tx.set_clock(HOUR)
    await tx.run(directives.Expire())


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    known["directive"] = await connection.fetchval(
        "select id from coordinator.directive_send($1, 'do it', 'a')", project
    )


async def some_directives(tx: Transaction) -> None:
    for name in ("a", "b", "c"):
        await agent(tx, name, "r")
    for priority in (0, 5, 0, -100, 5, 100, 0):
        await tx.run(directives.Send(project="default", body="x", everyone=True, priority=priority))


PAGES = [
    Pages(some_directives, directives.List(project="default"), 7),
    Pages(some_directives, directives.Inbox(project="default", agent="a"), 7),
    Pages(some_directives, directives.ListPending(project="default"), 21),
]
