"""coordinator.event_types tells the truth: every type that is emitted, with exactly the names its data really has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import asyncpg

from coordinator.db import schema
from coordinator.model.token import new_secret
from coordinator.operations import agents, directives, events, locks, projects, rules, signals, tokens
from tests.conftest import Transaction

CODE = "\n".join(
    re.sub(r"insert into coordinator\.event_types .*?\);\n\n", "", file.text, flags=re.DOTALL)
    for file in schema.files()
    if file.kind == "functions"
)
HOUR = timedelta(hours=1)


async def drive_projects(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(projects.Delete(project="p"))


async def drive_agents(tx: Transaction) -> None:
    settled = "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    await tx.connection.execute(settled)
    first = await tx.run(agents.Register(project="default", name="a", role="coder"))
    await tx.run(agents.Register(project="default", name="b"))
    await tx.run(signals.Set(project="default", key="here", value=1, agent=first.id, ephemeral=True))
    await tx.run(agents.Deregister(agent=first.id))
    await tx.set_clock(HOUR)
    await tx.run(agents.Reap())


async def drive_signals(tx: Transaction) -> None:
    await tx.run(signals.Set(project="default", key="t/COMPLETED", value=1))
    await tx.run(signals.Set(project="default", key="t/REJECTED", value=1, critical=True))
    await tx.run(signals.Delete(project="default", key="t/REJECTED"))
    await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=1)))
    await tx.set_clock(HOUR)
    await tx.run(signals.Expire())


async def drive_rules(tx: Transaction) -> None:
    await tx.run(rules.Set(project="default", when_set="A", clears=["B"]))
    await tx.run(rules.Delete(project="default", when_set="A"))


async def drive_directives(tx: Transaction) -> None:
    await tx.run(directives.Send(project="default", body="x", to_agent="a", key="k"))
    sent = await tx.run(directives.Send(project="default", body="y", to_agent="a", key="k"))
    await tx.run(directives.Acknowledge(project="default", directive=sent.id, agent="a", status="seen"))
    await tx.run(directives.Acknowledge(project="default", directive=sent.id, agent="a", status="refused", reason="no"))
    await tx.run(directives.Revoke(project="default", directive=sent.id))
    await tx.run(directives.Send(project="default", body="z", everyone=True, ttl=timedelta(seconds=1)))
    await tx.set_clock(HOUR)
    await tx.run(directives.Expire())


async def drive_tokens(tx: Transaction) -> None:
    secret = new_secret()
    made = await tx.run(tokens.Create(name="t", role="agent", hash=secret.hash, prefix=secret.prefix))
    await tx.run(tokens.Revoke(token=made.id))


async def drive_roles(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.role_bind(session_user::text, 'default')")
    await tx.connection.execute("delete from coordinator.role_projects")  # else this very role could not unbind itself
    await tx.connection.execute("insert into coordinator.role_projects values ('r', 'default')")
    await tx.connection.execute("select coordinator.role_unbind('r', 'default')")


async def drive_locks(tx: Transaction) -> None:
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
    await tx.run(agents.Deregister(agent=first.id))
    await acquire(second.id)
    await tx.set_clock(HOUR)
    await tx.run(locks.Expire())


# One for each noun that emits; each drives every change of the noun at least once.
DRIVERS: dict[str, Callable[[Transaction], Awaitable[None]]] = {
    "project": drive_projects,
    "agent": drive_agents,
    "signal": drive_signals,
    "rule": drive_rules,
    "directive": drive_directives,
    "lock": drive_locks,
    "token": drive_tokens,
    "role": drive_roles,
}


async def documented(connection: asyncpg.Connection) -> dict[str, list[str]]:
    return {
        row["type"]: row["data"] for row in await connection.fetch("select type, data from coordinator.event_types")
    }


async def test_every_type_is_emitted_with_exactly_the_documented_names(tx: Transaction) -> None:
    emitted: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for drive in DRIVERS.values():
        savepoint = tx.connection.transaction()
        await savepoint.start()
        await drive(tx)
        for row in await tx.outbox():
            emitted[row["type"]].add(tuple(sorted(row["data"])))
        await savepoint.rollback()
    types = await documented(tx.connection)
    expected = {name: {tuple(sorted(data))} for name, data in types.items() if name.split(".")[0] in DRIVERS}
    assert emitted == expected


async def test_there_is_a_driver_for_every_noun(tx: Transaction) -> None:
    nouns = {name.split(".")[0] for name in await documented(tx.connection)} - {"custom"}
    assert nouns == set(DRIVERS)


async def test_every_type_in_the_functions_is_documented(tx: Transaction) -> None:
    types = await documented(tx.connection)
    nouns = "|".join({name.split(".")[0] for name in types})
    written = set(re.findall(rf"'((?:{nouns})\.[a-z_]+)'", CODE)) | set(
        re.findall(r"outbox_append\(\s*'([^']+)'", CODE)
    )
    assert written == set(types) - {"custom.*"}


async def test_every_function_that_writes_a_table_of_users_emits(catalogue: asyncpg.Connection) -> None:
    """Bar those that say in their comment that there is no event, and the machinery."""
    silent = []
    query = """
      select p.proname, p.prosrc, obj_description(p.oid, 'pg_proc') as comment from pg_proc p
      where p.pronamespace = 'coordinator'::regnamespace and p.provolatile = 'v'"""
    tables = r"coordinator\.(projects|agents|signals|signal_rules|directives|directive_receipts)\b"
    for row in await catalogue.fetch(query):
        writes = re.search(rf"\b(insert into|update|delete from)\s+{tables}", row["prosrc"])
        emits = "outbox_append" in row["prosrc"] or re.search(r"\bNo events?\b", row["comment"])
        if writes and not emits:
            silent.append(row["proname"])
    assert silent == []


async def test_an_event_of_ones_own_carries_what_was_given(tx: Transaction) -> None:
    await tx.run(events.Emit(project="default", type="custom.build_finished", key="b/1", data={"ok": True}, actor="ci"))
    (row,) = await tx.outbox()
    assert (row["type"], row["project"], row["key"], row["actor"]) == ("custom.build_finished", "default", "b/1", "ci")
    assert row["data"] == {"ok": True}
