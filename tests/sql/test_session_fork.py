"""Sessions are forked with what they had at an entry, and deleted with all that they have."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.db.connection import connect
from coordinator.model.operation import Operation
from coordinator.operations import sessions
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.waiting import until_blocked

P = "default"


async def append(
    tx: Transaction, *data: Any, kind: str = "message", key: str = "s", session: str | None = None
) -> None:
    entries = json.dumps([{"data": one} for one in data])
    await tx.connection.execute(
        "select coordinator.log_append('default', $1, $2, $3::text::json, p_session => $4)", kind, key, entries, session
    )


async def put(tx: Transaction, value: Any, kind: str = "state", key: str = "s", session: str | None = None) -> None:
    await tx.connection.execute(
        "select coordinator.document_put('default', $1, $2, $3::text::json, p_session => $4)",
        kind, key, json.dumps(value), session,
    )  # fmt: skip


async def entries(tx: Transaction, key: str, kind: str = "message") -> list[tuple[int, Any]]:
    rows = await tx.connection.fetch(
        "select seq, data::text from coordinator.entries_live where project = 'default' and kind = $1 and key = $2 order by seq",
        kind, key,
    )  # fmt: skip
    return [(row[0], json.loads(row[1])) for row in rows]


async def documents(tx: Transaction, session: str) -> dict[tuple[str, str], tuple[int, Any]]:
    rows = await tx.connection.fetch(
        "select kind, key, version, value from coordinator.documents_live where session = $1", session
    )
    return {(row["kind"], row["key"]): (row["version"], row["value"]) for row in rows}


async def fork(tx: Transaction, seq: int | None = None, copy: str | None = "t", **fields: Any) -> str:
    return (await tx.run(sessions.Fork(project=P, session="s", seq=seq, copy=copy, **fields))).session


async def lived(tx: Transaction) -> None:
    """A session of four minutes: a message, a step, a note and a state in each."""
    await tx.run(sessions.Create(project=P, session="s", title="Port", mission="m", context={"n": 1}))
    for minute in range(1, 5):
        await tx.set_clock(timedelta(minutes=minute))
        await append(tx, f"message {minute}")
        await append(tx, f"step {minute}", kind="step")
        await append(tx, f"note {minute}", kind="note", key="s/notes", session="s")
        await put(tx, {"minute": minute})
    await put(tx, {"late": True}, kind="plan", key="s/list", session="s")
    await append(tx, "of another session", key="s/not")


async def test_a_fork_has_what_the_session_had_at_the_entry_and_its_numbers(tx: Transaction) -> None:
    await lived(tx)
    made = await tx.run(sessions.Fork(project=P, session="s", seq=2, copy="t", title="Again"))
    assert (made.title, made.mission, made.context, made.status, made.forked_from) == (
        "Again",
        "m",
        {"n": 1},
        "active",
        "s",
    )
    assert await entries(tx, "t") == [(1, "message 1"), (2, "message 2")]
    assert await entries(tx, "t", "step") == [(1, "step 1"), (2, "step 2")]
    assert await entries(tx, "t/notes", "note") == [(1, "note 1"), (2, "note 2")]
    assert await documents(tx, "t") == {("state", "t"): (2, {"minute": 2})}
    assert (
        await tx.connection.fetchval(
            "select count(*) from coordinator.logs where session_id = (select id from coordinator.sessions where key = 't')"
        )
        == 3
    )
    last = (await tx.events())[-1]
    assert (last["type"], last["key"], last["data"]) == (
        "session.forked",
        "t",
        {"session": "s", "kind": "message", "seq": 2},
    )


async def test_neither_changes_the_other_and_both_continue_their_numbers(tx: Transaction) -> None:
    await lived(tx)
    await fork(tx, 2)
    await append(tx, "there", key="t")
    await put(tx, {"there": True}, key="t")
    await append(tx, "here")
    assert await entries(tx, "t") == [(1, "message 1"), (2, "message 2"), (3, "there")]
    assert (await entries(tx, "s"))[-1] == (5, "here")
    assert await documents(tx, "t") == {("state", "t"): (3, {"there": True})}
    assert (await documents(tx, "s"))["state", "s"] == (4, {"minute": 4})
    before = await tx.connection.fetchval(
        "select value::text from coordinator.document_get('default', 'state', 't', 1)"
    )
    assert json.loads(before) == {"minute": 1}


async def test_by_default_a_session_is_forked_as_it_is_under_a_new_uuid(tx: Transaction) -> None:
    await lived(tx)
    copy = await fork(tx, copy=None)
    assert len(copy) == 36
    assert len(await entries(tx, copy)) == 4
    assert (await documents(tx, copy))["plan", f"{copy}/list"] == (1, {"late": True})


async def test_a_session_without_messages_is_forked_at_a_step(tx: Transaction) -> None:
    await append(tx, "one", "two", kind="step")
    await refused(tx, sessions.Fork(project=P, session="s", seq=1), "ZC335")
    await fork(tx, 1, kind="step")
    assert await entries(tx, "t", "step") == [(1, "one")]


async def test_artifacts_that_were_not_stored_since_are_in_the_fork_and_all_end_with_the_session(
    tx: Transaction,
) -> None:
    put_artifact = "select coordinator.artifact_put('default', $1, 'x'::bytea, p_session => 's')"
    await tx.set_clock(timedelta(minutes=1))
    await append(tx, "first")
    await tx.connection.execute(put_artifact, "early")
    await tx.set_clock(timedelta(minutes=2))
    await append(tx, "second")
    await tx.set_clock(timedelta(minutes=3))
    await tx.connection.execute(put_artifact, "late")
    await fork(tx, 2)
    query = "select s.key, a.name from coordinator.artifacts a join coordinator.sessions s on s.id = a.session_id order by 1, 2"
    assert [tuple(row) for row in await tx.connection.fetch(query)] == [("s", "early"), ("s", "late"), ("t", "early")]
    await tx.run(sessions.Delete(project=P, session="s"))
    assert [tuple(row) for row in await tx.connection.fetch(query)] == [("t", "early")]


async def test_a_lesson_of_a_session_is_found_in_its_fork(tx: Transaction) -> None:
    now = "2026-01-01T00:00:00Z"
    lesson = {
        "context": "parsing",
        "lesson": "quote",
        "scope": "",
        "language": "english",
        "confidence": 50,
        "reinforcements": 1,
        "created_at": now,
        "reinforced_at": now,
    }
    await put(tx, lesson, kind="memory", key="s/m", session="s")
    await fork(tx)
    words = await tx.connection.fetch(
        "select d.key from coordinator.document_words w join coordinator.documents d on d.id = w.document_id"
    )
    assert sorted(row["key"] for row in words) == ["s/m", "t/m"]


async def test_content_that_jsonb_refuses_is_copied_byte_for_byte(tx: Transaction) -> None:
    text = '{"b": 1e16,  "a": "\\u0000 \\ud800"}'
    await tx.connection.execute(
        "select coordinator.log_append('default', 'message', 's', ('[{\"data\": ' || $1 || '}]')::json)", text
    )
    await tx.connection.execute("select coordinator.document_put('default', 'state', 's', $1::text::json)", text)
    await fork(tx)
    assert (
        await tx.connection.fetchval("select data::text from coordinator.log_read('default', 'message', 't')") == text
    )
    read = "select value::text from coordinator.document_get('default', 'state', $1)"
    assert await tx.connection.fetchval(read, "t") == await tx.connection.fetchval(read, "s")


@pytest.mark.parametrize("seq", [0, -1, 5, 2**62])
async def test_an_entry_that_is_not_there_is_refused(tx: Transaction, seq: int) -> None:
    await lived(tx)
    error = await refused(tx, sessions.Fork(project=P, session="s", seq=seq), "ZC335")
    assert json.loads(error.detail or "") == {"last_seq": 4}
    assert ("numbers start at 1" in error.message) is (seq < 1)


async def test_what_is_no_longer_kept_is_refused(tx: Transaction) -> None:
    await lived(tx)
    await tx.connection.execute("delete from coordinator.entries where seq = 1")
    await refused(tx, sessions.Fork(project=P, session="s", seq=1), "ZC335")
    await tx.connection.execute("delete from coordinator.document_versions where version < 3")
    error = await refused(tx, sessions.Fork(project=P, session="s", seq=2), "ZC335")
    assert json.loads(error.detail or "") == {"kind": "state", "key": "s"}
    await fork(tx, 3)


async def test_a_document_that_was_deleted_or_not_there_yet_is_not_in_the_fork(tx: Transaction) -> None:
    await lived(tx)
    await tx.set_clock(timedelta(minutes=5))
    await tx.connection.execute("select coordinator.document_delete('default', 'state', 's')")
    await append(tx, "later")
    await fork(tx)
    assert [*(await documents(tx, "t"))] == [("plan", "t/list")]
    await fork(tx, 4, "u")
    assert (await documents(tx, "u"))["state", "u"] == (4, {"minute": 4})


async def test_a_key_that_is_taken_or_was_taken_a_short_time_ago_is_refused(tx: Transaction) -> None:
    await lived(tx)
    await append(tx, "x", key="t")
    await append(tx, "x", kind="note", key="u/notes")
    for copy in ("s", "t", "u"):
        await refused(tx, sessions.Fork(project=P, session="s", copy=copy), "ZC301")
    await tx.run(sessions.Delete(project=P, session="t"))
    await refused(tx, sessions.Fork(project=P, session="s", copy="t"), "ZC301")


async def test_an_archived_session_can_be_forked(tx: Transaction) -> None:
    await lived(tx)
    await tx.run(sessions.Archive(project=P, session="s"))
    await fork(tx)
    await append(tx, "x", key="t")


async def test_a_session_is_deleted_with_all_its_contents_and_no_other(tx: Transaction) -> None:
    await lived(tx)
    await fork(tx)
    assert await tx.run(sessions.Delete(project=P, session="s"))
    await refused(tx, sessions.Show(project=P, session="s"), "ZC215")
    assert await documents(tx, "s") == {}
    left = await tx.connection.fetch(
        "select distinct e.data #>> '{}' as data from coordinator.entries e join coordinator.logs l on l.id = e.log_id where l.key not like 't%' and l.kind <> 'audit'"
    )
    assert [row["data"] for row in left] == ["of another session"]
    versions = await tx.connection.fetch(
        "select d.key from coordinator.document_versions v join coordinator.documents d on d.id = v.document_id"
    )
    assert {row["key"] for row in versions} == {"t", "t/list"}
    assert len(await entries(tx, "t")) == 4
    assert [row["data"] for row in await tx.events() if row["type"] == "session.deleted"] == [{"reason": "deleted"}]


async def test_a_key_that_is_used_again_makes_a_new_session_and_gives_no_number_twice(tx: Transaction) -> None:
    await lived(tx)
    await tx.run(sessions.Delete(project=P, session="s"))
    await append(tx, "new")
    await put(tx, {"new": True})
    assert await entries(tx, "s") == [(5, "new")]
    assert (await tx.run(sessions.Show(project=P, session="s"))).title == ""
    assert await documents(tx, "s") == {("state", "s"): (6, {"new": True})}
    await append(tx, "again")
    await tx.run(sessions.Archive(project=P, session="s"))
    for call in (append(tx, "x"), put(tx, 1)):
        with pytest.raises(asyncpg.PostgresError) as raised:
            async with tx.connection.transaction():
                await call
        assert raised.value.sqlstate == "ZC332"


async def test_a_large_session_is_deleted_in_steps_and_takes_nothing_meanwhile(tx: Transaction) -> None:
    await append(tx, "first")
    await append(tx, "step", kind="step")
    await tx.connection.execute("""
        insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)
        select l.id, n, l.epoch, 'a', now(), '1' from coordinator.logs l, generate_series(2, 20500) n where l.kind = 'message';
        update coordinator.logs set last_seq = 20500, count = 20500 where kind = 'message'""")
    for left in (10500, 500):
        assert not await tx.run(sessions.Delete(project=P, session="s"))
        header = await tx.connection.fetchrow("""
            select count, first_seq, (select count(*) from coordinator.entries e where e.log_id = l.id) as rows,
                   (select min(seq) from coordinator.entries e where e.log_id = l.id) as least
            from coordinator.logs l where kind = 'message'""")
        assert header
        assert (header["count"], header["rows"], header["first_seq"]) == (left, left, header["least"])
        with pytest.raises(asyncpg.PostgresError) as raised:
            async with tx.connection.transaction():
                await append(tx, "x")
        assert raised.value.sqlstate == "ZC332"
    assert await tx.run(sessions.Delete(project=P, session="s"))
    assert (
        await tx.connection.fetchval(
            "select count(*) from coordinator.entries e join coordinator.logs l on l.id = e.log_id where l.kind <> 'audit'"
        )
        == 0
    )


async def test_a_session_with_more_entries_than_a_fork_copies_is_forked_at_an_earlier_one(tx: Transaction) -> None:
    await append(tx, "first")
    await tx.connection.execute("""
        insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)
        select l.id, n, l.epoch, 'a', now(), '1' from coordinator.logs l, generate_series(2, 100001) n;
        update coordinator.logs set last_seq = 100001, count = 100001""")
    await refused(tx, sessions.Fork(project=P, session="s"), "ZC102")
    await fork(tx, 10)


APPEND = """select coordinator.log_append('default', 'message', 's', '[{"data": 1}]'::json)"""
USUAL = APPEND.replace(": 1", ":1")  # without spaces, log_append does all of it itself


async def test_archiving_waits_for_an_append(database_url: str) -> None:
    writer, archiver = await connect(database_url), await connect(database_url)
    try:
        await writer.execute(APPEND)
        async with writer.transaction():
            await writer.execute(APPEND)
            archiving = asyncio.create_task(archiver.execute("select coordinator.session_archive('default', 's')"))
            await until_blocked(writer, archiver)
        await archiving
    finally:
        await writer.close()
        await archiver.close()


@pytest.mark.parametrize("again", [APPEND, USUAL])
async def test_nothing_slips_in_behind_archiving(database_url: str, again: str) -> None:
    writer, archiver = await connect(database_url), await connect(database_url)
    try:
        await writer.execute(APPEND)
        async with archiver.transaction():
            await archiver.execute("select coordinator.session_archive('default', 's')")
            appending = asyncio.create_task(writer.execute(again))
            await until_blocked(archiver, writer)
        with pytest.raises(asyncpg.PostgresError) as raised:
            await appending
        assert raised.value.sqlstate == "ZC332"
        assert await writer.fetchval("select count(*) from coordinator.entries") == 1
    finally:
        await writer.close()
        await archiver.close()


@pytest.mark.parametrize("end", ["session_archive", "session_delete"])
async def test_ending_a_session_waits_for_an_append_that_lets_later_ones_pass(database_url: str, end: str) -> None:
    """Appends after it rely on its look at the session, and its row is not visible before its commit."""
    writer, other = await connect(database_url), await connect(database_url)
    try:
        await writer.execute(APPEND)
        await writer.execute("update coordinator.logs set open_until = null")
        async with writer.transaction():
            await writer.execute(USUAL)
            assert await writer.fetchval("select open_until > now() from coordinator.logs")
            ending = asyncio.create_task(other.execute(f"select coordinator.{end}('default', 's')"))
            await until_blocked(writer, other)
        await ending
        assert await writer.fetchval("select open_until from coordinator.logs") is None
        if end == "session_archive":
            with pytest.raises(asyncpg.PostgresError) as raised:
                await writer.execute(USUAL)
            assert raised.value.sqlstate == "ZC332"
        else:
            await writer.execute(USUAL)  # in another session
            assert await writer.fetchval(
                "select session_id = (select id from coordinator.sessions) from coordinator.logs"
            )
    finally:
        await writer.close()
        await other.close()


@pytest.mark.parametrize(
    "operation",
    [sessions.Fork(project=P, session="no"), sessions.Delete(project=P, session="no")],
    ids=lambda one: one.function,
)
async def test_an_unknown_session_is_not_found(tx: Transaction, operation: Operation[Any]) -> None:
    await refused(tx, operation, "ZC215")
