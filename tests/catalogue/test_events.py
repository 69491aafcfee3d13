"""coordinator.event_types lists every type that is emitted, with exactly the names in its data."""

from __future__ import annotations

import re
from collections import defaultdict

import asyncpg

from coordinator.db import schema
from coordinator.operations import events
from tests import nouns
from tests.conftest import Transaction

DRIVERS = dict(nouns.each("drive"))

CODE = "\n".join(
    re.sub(r"insert into coordinator\.event_types .*?\);\n\n", "", file.text, flags=re.DOTALL)
    for file in schema.files()
    if file.kind == "functions"
)


INSERT = r"insert into coordinator\.events \(type, project, key, actor, at, data\)"

# Tables of the product's own machinery; a change to them has no event.
MACHINERY = {
    "event_types", "rights", "limits", "schema_files", "schema_roles", "processes", "leaders", "idempotency_keys",
    "events", "events_beyond", "event_chunks", "relay", "lock_breaks",
}  # fmt: skip


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
        for row in await tx.events():
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
        re.findall(rf"(?:event_append\(|{INSERT}\s*values \()\s*'([^']+)'", CODE)
    )
    assert written == set(types) - {"custom.*"}


async def test_every_function_that_writes_a_table_of_users_emits(catalogue: asyncpg.Connection) -> None:
    """A function emits itself, through a function that it calls, or says in its comment that there is no event."""
    functions = await catalogue.fetch(
        """
        select p.proname, p.prosrc, obj_description(p.oid, 'pg_proc') as comment from pg_proc p
        where p.pronamespace = 'coordinator'::regnamespace and p.provolatile = 'v'"""
    )
    tables = await catalogue.fetch(
        "select relname from pg_class where relnamespace = 'coordinator'::regnamespace and relkind in ('r', 'p')"
    )
    watched = "|".join({row["relname"] for row in tables} - MACHINERY)
    calls = {row["proname"]: set(re.findall(r"coordinator\.(\w+)\(", row["prosrc"])) for row in functions}
    emitting = {row["proname"] for row in functions if "insert into coordinator.events" in row["prosrc"]}
    while more := {name for name, called in calls.items() if called & emitting} - emitting:
        emitting |= more
    silent = [
        row["proname"]
        for row in functions
        if re.search(rf"\b(insert into|update|delete from)\s+coordinator\.({watched})\b", row["prosrc"])
        and row["proname"] not in emitting
        and not re.search(r"\bNo events?\b", row["comment"])
    ]
    assert silent == []


async def test_a_custom_event_carries_what_was_given(tx: Transaction) -> None:
    await tx.run(events.Emit(project="default", type="custom.build_finished", key="b/1", data={"ok": True}, actor="ci"))
    (row,) = await tx.events()
    assert (row["type"], row["project"], row["key"], row["actor"]) == ("custom.build_finished", "default", "b/1", "ci")
    assert row["data"] == {"ok": True}


def test_every_insert_of_an_event_is_the_same() -> None:
    """The hottest functions do not call event_append; what they write instead must not drift from it."""
    inserts = re.findall(r"insert into coordinator\.events\b[^;]*?\)", CODE)
    assert len(inserts) >= 4
    again = INSERT.replace(r"\)", ", role, address, origin, traceparent\\)")  # events that were written before
    assert [insert for insert in inserts if not re.fullmatch(f"{INSERT}|{again}", insert)] == []
