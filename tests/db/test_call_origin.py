"""Where a call comes from, and in which trace, is recorded with its events, by the statement of the call alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordinator import operations
from coordinator.db.call import call, statement
from coordinator.db.database import Database
from coordinator.model.call_origin import CallOrigin, coming_from
from coordinator.model.operation import Operation
from coordinator.operations import agents, events, jobs, signals, transactions
from coordinator.telemetry import tracing
from tests.conftest import Transaction
from tests.daemon import opened

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOKEN = CallOrigin(token=7, name='the "first"', address="192.0.2.4")
SETTINGS = ("origin", "traceparent")
CALLS = [operation for operation in operations.every() if not operation.reads and not operation.procedure]


async def emitted(db: Database, *columns: str) -> list[Any]:
    async with opened(db.dsn) as connection:
        rows = await connection.fetch(f"select {', '.join(columns)} from coordinator.events order by id")
        return [row[0] if len(columns) == 1 else tuple(row) for row in rows]


async def test_every_call_that_changes_something_sends_its_origin(tx: Transaction) -> None:
    for operation in CALLS:
        prepared = await tx.connection.prepare(statement(operation, settings=SETTINGS))
        assert len(prepared.get_parameters()) == len(operation.__struct_fields__) + len(SETTINGS)


@pytest.mark.parametrize(
    "operation",
    [
        signals.Set(project="default", key="k", value=1),  # its first argument is text
        agents.Reap(limit=1),  # it has no text
        jobs.EnqueueMany(project="default", jobs=[{"type": "build"}]),
    ],
    ids=lambda operation: operation.function,
)
async def test_the_settings_are_there_before_the_call_and_end_with_its_transaction(
    db: Database, operation: Operation[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "traceparent", lambda: TRACE)
    async with opened(db.dsn) as connection:
        # Whatever an operation does, its function sees the settings from the beginning.
        name = operation.function
        body = await connection.fetchval("select pg_get_functiondef(oid) from pg_proc where proname = $1", name)
        await connection.execute("create table public.seen (origin text, traceparent text)")
        await connection.execute(
            body.replace(
                "begin\n",
                "begin\n  insert into public.seen values (coordinator.origin(), coordinator.traceparent());\n",
                1,
            )
        )
        with coming_from(TOKEN):
            await call(connection, operation)
        origin, trace = await connection.fetchrow("select * from public.seen")
        assert (json.loads(origin), trace) == ({"token": 7, "name": 'the "first"', "address": "192.0.2.4"}, TRACE)
        assert await connection.fetchval("select coordinator.origin()") is None
        assert await connection.fetchval("select coordinator.traceparent()") is None


async def test_a_call_without_an_origin_has_that_of_its_session_alone(db: Database) -> None:
    with coming_from(TOKEN):
        await db.run(signals.Set(project="default", key="told", value=1))
    await db.run(signals.Set(project="default", key="silent", value=1))
    rows = await emitted(db, "key", "origin", "role = session_user", "address is not distinct from inet_client_addr()")
    assert [(key, origin and json.loads(origin)["token"], *of_session) for key, origin, *of_session in rows] == [
        ("told", 7, True, True),
        ("silent", None, True, True),
    ]


async def test_all_calls_of_a_transaction_have_its_origin(db: Database) -> None:
    writes = [{"verb": "signal_set", "key": key, "value": 1} for key in ("a", "b")]
    with coming_from(TOKEN):
        await db.run(transactions.Run(project="default", writes=writes))
        async with db.transaction() as transaction:
            await transaction.run(signals.Set(project="default", key="c", value=1))
            await transaction.run(events.Emit(project="default", type="custom.d"))
    assert [json.loads(origin)["token"] for origin in await emitted(db, "origin")] == [7] * 4


async def test_what_a_role_claims_does_not_hide_the_role(tx: Transaction) -> None:
    forged = json.dumps({"token": 1, "name": "root"})
    await tx.connection.execute("select set_config('coordinator.origin', $1, true)", forged)
    await tx.run(signals.Set(project="default", key="k", value=1))
    row = await tx.connection.fetchrow(
        "select origin, role = session_user as true_role from coordinator.events where xid = pg_current_xact_id()"
    )
    assert (row["origin"], row["true_role"]) == (forged, True)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (TRACE, TRACE),
        ("", None),
        (TRACE.upper(), None),
        (TRACE[:-1] + '"', None),
        (TRACE + "0", None),
        ("0" * 55, None),
    ],
)
async def test_a_malformed_trace_context_is_dropped(tx: Transaction, given: str, stored: str | None) -> None:
    await tx.connection.execute("select set_config('coordinator.traceparent', $1, true)", given)
    await tx.run(signals.Set(project="default", key="k", value=1))
    assert [event["traceparent"] for event in await tx.events()] == [stored]


async def test_an_origin_is_bounded(tx: Transaction) -> None:
    await tx.connection.execute("select set_config('coordinator.origin', repeat('x', 1000000), true)")
    await tx.run(signals.Set(project="default", key="k", value=1))
    assert [len(event["origin"]) for event in await tx.events()] == [1000]
