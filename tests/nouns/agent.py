from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.model.agent import Agent
from coordinator.operations import agents, signals
from tests.conftest import Transaction
from tests.nouns import Known, Pages

HOUR = timedelta(hours=1)

LIMITS = {
    "name": [
        "coordinator.agent_register('default', repeat('ä', $1::integer))",
        "coordinator.agent_register('default', 'a', repeat('a', $1::integer))",
        "coordinator.agent_register('default', 'a', p_job_types => array[repeat('a', $1::integer)])",
        "coordinator.agent_register('default', 'a', p_labels => array[repeat('a', $1::integer)])",
    ],
    "json": [
        "coordinator.agent_register('default', 'a', p_metadata => jsonb_build_object('k', repeat('x', $1::integer - 9)))",
    ],
    "ttl_min": [
        "coordinator.agent_register('default', 'a', p_ttl => make_interval(secs => $1))",
    ],
    "agent_ttl_max": [
        "coordinator.agent_register('default', 'a', p_ttl => make_interval(secs => $1))",
    ],
    "list": [
        "coordinator.agent_register('default', 'a', p_job_types => array_fill('a'::text, array[$1::integer]))",
        "coordinator.agent_register('default', 'a', p_labels => array_fill('a'::text, array[$1::integer]))",
    ],
    "page": [
        "coordinator.agent_list('default', p_limit => $1::integer)",
        "coordinator.agent_reap($1::integer)",
        "coordinator.agent_prune(p_limit => $1::integer)",
    ],
}

JSON = {
    "agent_join": "coordinator.agent_join('default', 'a', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
    "agent_register": "coordinator.agent_register('default', 'a', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
}

ARGUMENTS = {
    "agent": "'{agent}'",
    ("agent_find", "agent"): "'a'",  # an id is returned as it is
}

PYTHON_LACKS = {
    "agent_join": {"process": "agent run keeps the proof of life", "unreserved": "the gateway sets it"},
    "agent_register": {"process": "connect(agent=…) keeps the proof of life", "unreserved": "the gateway sets it"},
}
OPTIONS_LACK = {
    "agent_join": {"process": "agent run keeps the proof of life", "unreserved": "the gateway sets it"},
    "agent_register": {"process": "a command ends before its agent", "unreserved": "the gateway sets it"},
}
SPELLED = {
    "agent_list": {"ended": "all"},
    "agent_register": {"labels": "label", "job_types": "job_type"},
}


async def drive(tx: Transaction) -> None:
    settled = "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    await tx.connection.execute(settled)
    first = await tx.run(agents.Register(project="default", name="a", role="coder"))
    await tx.run(agents.Register(project="default", name="b"))
    await tx.run(signals.Set(project="default", key="here", value=1, agent=first.id, ephemeral=True))
    await tx.run(agents.Deregister(agent=first.id))
    await tx.set_clock(HOUR)
    await tx.run(agents.Reap())


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    known["agent"] = await connection.fetchval(
        "select id from coordinator.agent_register($1, 'a', 'coder', '{x}')", project
    )


async def agent(tx: Transaction, name: str, role: str | None = None) -> Agent:
    return await tx.run(agents.Register(project="default", name=name, role=role))


async def some_agents(tx: Transaction) -> None:
    for name in ("a", "twin", "twin", "twin", "twin", "twin", "z"):
        await agent(tx, name)


PAGES = [
    Pages(some_agents, agents.List(project="default"), 7),
]
