"""Messages, steps, observations, memories and knowledge as parts of transactions: they lock their log or document first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import msgspec
import pytest

from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.model.operation import JsonText, Operation
from coordinator.operations import knowledge, logs, memories, messages, observations, sessions, steps
from coordinator.operations.transactions import Run
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.waiting import until_blocked, while_uncommitted

P = "default"
EXACT = '{"b": 1e16, "a":"\\u0000 \\ud800"}'
SAID = messages.Append(project=P, session="s", content=JsonText(EXACT.encode()), role="user", tokens=3, expect=0)
DONE = steps.Append(project=P, session="s", step=JsonText(b'{"thought":"Look  first."}'), expect=0)
SEEN = observations.Append(project=P, content=JsonText(b'"It rains."'), agent="me", uid="u")
LEARNED = memories.Record(
    project=P, lesson="It rained.", context="weather", tool_name="sky", confidence=60.5, embedding=[0.5, -1e-5]
)
KNOWN = knowledge.Put(project=P, key="rain", content="Water falls.", metadata={"n": 1}, embedding=[1, 0], expect=0)
EACH = {operation.function: operation for operation in (SAID, DONE, SEEN, LEARNED, KNOWN)}


async def test_each_returns_what_it_returns_alone_and_keeps_its_bytes(tx: Transaction) -> None:
    run = Run.of(P, EACH.values(), actor="me")
    receipt, done, seen, learned, known = run.results(await tx.run(run))
    assert [(r.kind, r.key, r.last_seq) for r in (receipt, done, seen)] == [
        ("message", "s", 1),
        ("step", "s", 1),
        ("observation", "me", 1),
    ]
    assert learned == await tx.run(memories.Get(project=P, memory=learned.memory_id))
    assert (learned.confidence, learned.actor) == (60.5, "me")
    assert known == await tx.run(knowledge.Get(project=P, key="rain"))
    (entry,) = await tx.run(logs.Read(project=P, kind="message", key="s"))
    assert bytes(entry.text).decode() == f'{{"role": "user", "content": {EXACT}}}'
    assert (entry.tokens, entry.actor) == (3, "me")
    assert (await tx.run(sessions.Show(project=P, session="s"))).actor == "me"
    assert await tx.connection.fetchval("select count(*) from coordinator.document_embeddings") == 2

    changed = memories.Supersede(project=P, memory=learned.memory_id, lesson="It snowed.")
    forgotten = memories.Forget(project=P, memory=learned.memory_id)
    run = Run.of(P, [changed, forgotten, knowledge.Delete(project=P, key="rain", expect=1)])
    newer, gone, deleted = run.results(await tx.run(run))
    assert (newer.lesson, newer.context, newer.tool_name, gone, deleted) == ("It snowed.", "weather", "sky", True, True)


@pytest.mark.parametrize("verb", ["message_append", "step_append", "knowledge_put"])
async def test_an_expectation_that_does_not_hold_undoes_all_and_says_what_is_there(tx: Transaction, verb: str) -> None:
    await tx.run(EACH[verb])
    others = [operation for operation in EACH.values() if operation is not EACH[verb]]
    error = await refused(tx, Run.of(P, [*others, EACH[verb]]), "ZC301")
    facts = json.loads(error.detail or "")
    assert (facts.get("last_seq", facts.get("version")), facts["write"]) == (1, 4)
    state = "select (select count(*) from coordinator.entries), (select count(*) from coordinator.document_versions)"
    assert sum(await tx.connection.fetchrow(state)) == 1


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"verb": "memory_record", "lesson": "a", "confidence": "high"}, "ZC103"),
        ({"verb": "memory_record", "lesson": "a", "embedding": [1, "x"]}, "ZC103"),
        ({"verb": "memory_record", "lesson": "a", "confidence": 101}, "ZC104"),
        ({"verb": "memory_record"}, "ZC101"),
        ({"verb": "memory_supersede", "memory": "none", "lesson": "a"}, "ZC222"),
        ({"verb": "knowledge_delete", "key": "none"}, "ZC222"),
        ({"verb": "knowledge_put", "key": "", "content": "a"}, "ZC101"),
        ({"verb": "message_append", "session": "", "content": 1, "role": "user"}, "ZC101"),
        ({"verb": "step_append", "session": "s", "step": {}}, "ZC101"),
        ({"verb": "observation_append", "content": 1, "agent": "00000000-0000-0000-0000-000000000000"}, "ZC202"),
    ],
)
async def test_a_malformed_part_is_refused_with_a_hint_and_changes_nothing(
    tx: Transaction, part: Any, code: str
) -> None:
    before = await tx.connection.fetchval("select count(*) from coordinator.events")
    error = await refused(tx, Run(project=P, writes=[{"verb": "signal_set", "key": "k", "value": 1}, part]), code)
    assert error.hint
    assert await tx.connection.fetchval("select count(*) from coordinator.events") == before


async def test_an_archived_session_refuses_its_part(tx: Transaction) -> None:
    await tx.run(SAID)
    await tx.run(sessions.Archive(project=P, session="s"))
    await refused(tx, Run.of(P, [LEARNED, DONE]), "ZC332")


async def test_the_largest_batch_of_a_log_fits_and_a_list_beyond_its_limit_does_not(tx: Transaction) -> None:
    entry = '{"data":"' + "x" * 1_000_000 + '"}'
    batch = "[" + ",".join([entry] * 4) + "]"
    batch = batch[:-1] + " " * (4_194_304 - len(batch)) + "]"
    append = {"verb": "log_append", "kind": "note", "key": "k", "entries_text": batch}
    (outcome,) = await tx.run(Run(project=P, writes=[append]))
    assert outcome.result["last_seq"] == 4  # type: ignore[call-overload, index]
    await refused(tx, Run(project=P, writes=[{**append, "entries_text": batch + " "}]), "ZC102")


# What several sessions do at once.


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[list[asyncpg.Connection]]:
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(3):
            found.append(await connect(database_url))
            stack.push_async_callback(found[-1].close)
            await found[-1].execute("set deadlock_timeout = '100ms'")
        yield found


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("verb", EACH)
async def test_the_log_or_document_of_a_part_is_locked_before_anything_is_written(
    connections: list[asyncpg.Connection], verb: str, *, present: bool
) -> None:
    one, two, watcher = connections
    operation: Operation[Any] = EACH[verb]
    if "expect" in operation.__struct_fields__:
        operation = msgspec.structs.replace(operation, expect=None)
    if present:
        await call(one, operation)
    entering = one.transaction()
    await entering.start()
    await one.execute("select coordinator.transaction_enter('default', $1)", Run.of(P, [operation]).writes)
    task = asyncio.create_task(call(two, operation))
    await until_blocked(watcher, two)
    await entering.rollback()
    assert await task


async def test_transactions_with_their_parts_in_opposite_order_take_turns(
    connections: list[asyncpg.Connection],
) -> None:
    """Each is a part that others may add to, so both are done."""
    again = [
        messages.Append(project=P, session="s", content=JsonText(b'"a"'), role="user"),
        logs.Append(project=P, kind="note", key="a", entries=JsonText(b'[{"data": 1}]')),
        SEEN,
        LEARNED,
        knowledge.Put(project=P, key="rain", content="Water falls."),
    ]
    _, second = await while_uncommitted(*connections, Run.of(P, again), Run.of(P, again[::-1]))
    assert [outcome.write for outcome in second] == [0, 1, 2, 3, 4]  # type: ignore[union-attr]


async def test_logs_and_documents_are_locked_last_whichever_noun_they_belong_to(tx: Transaction) -> None:
    order = await tx.connection.fetch(
        """select entered_by from coordinator.transaction_verbs where entered_by is not null
           group by 1 order by min(ordinal) filter (where keyed_by is null)"""
    )
    assert [name for (name,) in order][-2:] == ["log_enter", "document_enter"]
