from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from coordinator.operations import agents, locks
from tests.conftest import Transaction
from tests.nouns import Known, Pages
from tests.nouns.agent import agent

HOUR = timedelta(hours=1)

AGENT = "(select id from coordinator.agents limit 1)"

LIMITS = {
    "page": [
        "coordinator.lock_list('default', p_limit => $1::integer)",
        "coordinator.lock_waiting('default', 'x', p_limit => $1::integer)",
    ],
    "reason": [
        "coordinator.lock_break('default', 'a', repeat('a', $1::integer)) from (select coordinator.lock_acquire('default', '{a}', (select id from coordinator.agents limit 1)) offset 0) held",
    ],
    "lock_resource": [
        f"coordinator.lock_acquire('default', array[repeat('a', $1::integer)], {AGENT})",
    ],
    "lock_wildcards": [
        f"coordinator.lock_acquire('default', array[repeat('*a', $1::integer)], {AGENT})",
    ],
    "lock_resources": [
        f"coordinator.lock_acquire('default', array(select 'f' || n from generate_series(1, $1::integer) n), {AGENT})",
    ],
    "lock_check": [
        "coordinator.lock_check('default', array(select 'f' || n from generate_series(1, $1::integer) n))",
    ],
    "lock_slots": [
        f"coordinator.lock_acquire('default', '{{name:x}}', {AGENT}, p_slots => $1::integer)",
    ],
    "lock_owner": [
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_owner => repeat('x', $1::integer))",
    ],
    "lock_uses": [
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_owner => 's') from generate_series(1, $1::integer) n",
    ],
    "lock_ttl_max": [
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_ttl => make_interval(secs => $1))",
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_wait => make_interval(secs => $1))",
    ],
    "lock_delay_max": [
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_delay => make_interval(secs => $1))",
    ],
}

ARGUMENTS = {
    "resources": "'{{x.py}}'",
    "resource": "'x.py'",
    "tokens": "array[{token}]",
    "token": "{token}",
    "paths": "'{{x.py}}'",
    "ticket": "{ticket}",
    ("lock_cancel", "agent"): "'{waiter}'",
    ("lock_poll", "agent"): "'{waiter}'",
}

NOT_IN_PYTHON = {
    "lock_cancel": "a wait is cancelled as a task",
    "lock_poll": "acquire polls",
}
NOT_ON_THE_COMMAND_LINE = {
    "lock_cancel": "acquire polls, and cancels when it is interrupted",
    "lock_poll": "acquire polls",
}
PYTHON_LACKS = {
    "lock_acquire": {"within": "the blocks that the task is in"},
}
OPTIONS_LACK = {
    "lock_acquire": {"within": "a command holds nothing while it waits"},
}
OPTIONS_ADD = {
    "lock_check": {"stdin0": "names on standard input"},
}
SPELLED = {
    "lock_renew": {"tokens": "token"},
    "lock_release": {"tokens": "token"},
}


async def drive(tx: Transaction) -> None:
    async def acquire(agent: UUID, wait: timedelta | None = None) -> locks.model.Grant:
        (grant,) = await tx.run(locks.Acquire(project="default", resources=["src/a.py"], agent=agent, wait=wait))
        return grant

    first, second = [await tx.run(agents.Register(project="default", name=name)) for name in "ab"]
    held = await acquire(first.id)
    waiting = await acquire(second.id, HOUR)
    await tx.run(
        locks.Release(project="default", resources=["src/a.py"], agent=first.id, tokens=[held.fencing_token or 0])
    )
    await tx.run(locks.Poll(project="default", ticket=waiting.ticket or 0, agent=second.id))
    await tx.run(locks.Break(project="default", resource="src/a.py", reason="stuck"))
    await acquire(first.id)
    await tx.run(locks.Acquire(project="default", resources=["name:gpu"], agent=second.id, slots=1))
    await tx.run(locks.Resize(project="default", resource="name:gpu", slots=2))
    await tx.run(agents.Deregister(agent=first.id))
    await acquire(second.id)
    await tx.set_clock(HOUR)
    await tx.run(locks.Expire())


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    acquire = "select ticket, fencing_token from coordinator.lock_acquire($1, '{x.py}', $2, p_wait => $3)"
    known["token"] = (await connection.fetchrow(acquire, project, known["agent"], None))["fencing_token"]
    known["waiter"] = await connection.fetchval("select id from coordinator.agent_register($1, 'waiter')", project)
    known["ticket"] = (await connection.fetchrow(acquire, project, known["waiter"], timedelta(hours=1)))["ticket"]
    known["resource"] = "x.py"


async def some_locks(tx: Transaction) -> None:
    holders = [(await agent(tx, "same")).id for _ in range(5)]

    async def lock(holder: UUID, *resources: str, **options: Any) -> None:
        await tx.run(locks.Acquire(project="default", resources=list(resources), agent=holder, **options))

    for holder in holders:
        await lock(holder, "src/shared.py", shared=True)
        await lock(holder, "name:gpu", slots=9)
    await lock(holders[0], "src/a.py", "src/z/", "src/*.md")
    for holder in holders[1:]:  # two resources, one ticket
        await lock(holder, "src/a.py", "src/z/q.py", wait=timedelta(minutes=1))
    await lock((await agent(tx, "late")).id, "src/z/q.py", wait=timedelta(minutes=1))


PAGES = [
    Pages(some_locks, locks.List(project="default"), 13),
    Pages(some_locks, locks.List(project="default", under="src"), 8),
    Pages(some_locks, locks.ListWaiting(project="default", resource="src/"), 9),
]
