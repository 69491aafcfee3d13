"""What a call expects becomes true, or false, after the call has tried and before it looks why it failed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordinator.db.call import call
from coordinator.errors import NotFound
from coordinator.model.json import text_of
from coordinator.model.operation import JsonText, Operation
from coordinator.operations import documents, logs, signals
from tests.conftest import Open
from tests.waiting import until_blocked

PAUSE = "if current_setting('test.pauses', true) = 'on' then perform pg_advisory_xact_lock(4242); end if; "


async def overtaken(session: Open, function: str, line: str, slow: Operation[Any], *quick: Operation[Any]) -> Any:
    """Run `slow`, and the others while it is paused before a line of its function; return its result."""
    one, two, watcher = await session(), await session(), await session()
    source = await watcher.fetchval("select pg_get_functiondef(oid) from pg_proc where proname = $1", function)
    assert source.count(line) == 1
    await watcher.execute(source.replace(line, PAUSE + line))
    await watcher.execute("select pg_advisory_lock(4242)")
    await one.execute("set test.pauses = on")
    task = asyncio.create_task(call(one, slow))
    await until_blocked(watcher, one)
    for operation in quick:
        await call(two, operation)
    await watcher.execute("select pg_advisory_unlock(4242)")
    return await task


def put(**fields: Any) -> documents.Put:
    return documents.Put(project="default", kind="plan", key="k", value=text_of(1), **fields)


@pytest.mark.parametrize(("before", "expect", "version"), [(0, None, 2), (1, 2, 3)])
async def test_a_put_finds_the_document_that_somebody_made_meanwhile(
    session: Open, before: int, expect: int | None, version: int
) -> None:
    for _ in range(before):
        await call(await session(), put())
    header = await overtaken(session, "document_step", "select * into v_present", put(expect=expect), put())
    assert header.version == version


async def test_an_append_succeeds_when_the_entry_that_it_expects_is_committed(session: Open) -> None:
    def append(**fields: Any) -> logs.Append:
        return logs.Append(project="default", kind="note", key="k", entries=JsonText(b'[{"data": 1}]'), **fields)

    await call(await session(), append())
    line = "select l.last_seq, l.epoch into v_log"
    receipt = await overtaken(session, "log_append_any", line, append(expect=2), append())
    assert receipt.last_seq == 3


async def test_a_delete_that_expects_nothing_is_not_refused_for_a_version(session: Open) -> None:
    with pytest.raises(NotFound):
        await overtaken(
            session,
            "signal_delete",
            "select version into v_present",
            signals.Delete(project="default", key="k"),
            signals.Set(project="default", key="k", value=1),
        )
