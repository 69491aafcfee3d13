"""Logs: numbers, batches, content, repetitions, expectations and reading."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import msgspec
import pytest

from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.model.log import LogEntry, LogReceipt
from coordinator.model.operation import JsonText
from coordinator.operations import logs, transactions
from coordinator.operations import sessions as sessions_
from tests.conftest import Open, Transaction
from tests.sql.refusal import refused
from tests.waiting import until_blocked, while_uncommitted

R = TypeVar("R")

FORGET = "select setval('coordinator.epoch_mark', 1)"  # as after a start of the server
SECOND = timedelta(seconds=1)


def append(*entries: Any, key: str = "k", kind: str = "note", **options: Any) -> logs.Append:
    """Append entries, each given as an object of its fields or as the value of its data."""
    given = [entry if isinstance(entry, dict) else {"data": entry} for entry in entries]
    return logs.Append(project="default", kind=kind, key=key, entries=JsonText(json.dumps(given).encode()), **options)


def exactly(*texts: str) -> logs.Append:
    entries = ", ".join(f'{{"data":{text}}}' for text in texts)
    return logs.Append(project="default", kind="note", key="k", entries=JsonText(f"[{entries}]".encode()))


def read(key: str = "k", kind: str = "note", **options: Any) -> logs.Read:
    return logs.Read(project="default", kind=kind, key=key, **options)


def seqs(entries: list[LogEntry]) -> list[int]:
    return [entry.seq for entry in entries]


@pytest.fixture
async def sessions(session: Open) -> list[asyncpg.Connection]:
    return [await session() for _ in range(16)]


async def test_entries_are_numbered_without_gaps_and_shown_with_what_was_given(tx: Transaction) -> None:
    first = await tx.run(append("a", {"data": {"role": "user"}, "tokens": 3}, actor="ann"))
    assert (first.first_seq, first.last_seq, first.appended) == (1, 2, 2)
    again = await tx.run(append({"data": None, "role": "tool", "needs": -1}, {"data": 1, "needs": 1, "uid": "u"}))
    assert (again.first_seq, again.last_seq) == (3, 4)
    entries = await tx.run(read())
    assert [(e.seq, e.data, e.role, e.tokens, e.needs, e.uid) for e in entries] == [
        (1, "a", None, None, None, None),
        (2, {"role": "user"}, "user", 3, None, None),
        (3, None, "tool", None, 2, None),
        (4, 1, None, None, 1, "u"),
    ]
    assert (entries[0].actor, entries[0].epoch, entries[0].kept) == ("ann", first.epoch, False)
    log = await tx.run(logs.Show(project="default", kind="note", key="k"))
    assert (log.first_seq, log.last_seq, log.count, log.epoch) == (1, 4, 4, first.epoch)
    assert [(row["key"], row["data"]) for row in await tx.events()] == [
        ("note/k", {"kind": "note", "name": "k", "first_seq": 1, "last_seq": 2}),
        ("note/k", {"kind": "note", "name": "k", "first_seq": 3, "last_seq": 4}),
    ]


TEXTS = [
    '{"b": 1e16, "a":1,  "a": -0.0}',
    '"\\u0000 \\ud800 \\udc00\\ud800 \\ud83d\\ude00 \\\\u0000 \\\\\\u0000 \\\\\\\\ud800"',
    '{"\\u0000": "\\uDFFF"}',
    " [ 1 , [ ] ]\t",
    '"\U0001f600 \u2028 \x7f"',
    '"\\u00e9\\/"',
    "1E+2",
    "[" * 64 + "]" * 64,
]


@pytest.mark.parametrize("text", TEXTS)
async def test_content_is_returned_byte_for_byte_and_breaks_no_view(tx: Transaction, text: str) -> None:
    await tx.run(exactly(text))
    (entry,) = await tx.run(read())
    assert bytes(entry.text).decode() == text.strip()
    assert entry.data == json.loads(text)
    await tx.connection.fetch("select data ->> 'x', data #>> '{}', data::jsonb from coordinator.entries_live")
    shown = await tx.connection.fetchval("select coalesce(raw, data::text) from coordinator.entries_live")
    assert shown == text.strip()


@pytest.mark.parametrize(
    ("entries", "code", "place"),
    [
        ("{}", "ZC103", None),
        ("[]", "ZC101", None),
        ('[{"data": 1}, 2]', "ZC103", 1),
        ('[{"data": 1}, {}]', "ZC101", 1),
        ('[{"data": 1}, {"data": 1, "content": 2}]', "ZC105", 1),
        ('[{"data": 1}, {"data": 1e309}]', "ZC104", 1),
        ('[{"data": 1, "x": {}, "data": -1e400}]', "ZC105", 0),
        ('[{"data": {"a": 1e309, "a": 1}}]', "ZC104", 0),
        ('[{"data": 1e-200000}]', "ZC104", 0),
        (f'[{{"data": 0}}, {{"data": {"1" * 401}}}]', "ZC104", 1),
        (f'[{{"data": 0}}, {{"data": {"[" * 65}{"]" * 65}}}]', "ZC102", 1),
        (f'[{{"data": {{"a": {"[" * 64}{"]" * 64}, "a": 1}}}}]', "ZC102", 0),
        ('[{"data": 1, "uid": ""}]', "ZC101", 0),
        ('[{"data": 1, "uid": 7}]', "ZC103", 0),
        ('[{"data": 1, "uid": "a\\u0000"}]', "ZC103", 0),
        ('[{"data": 1, "role": "a\\ud800"}]', "ZC103", 0),
        ('[{"data": 1, "tokens": -1}]', "ZC104", 0),
        ('[{"data": 1, "tokens": 1.5}]', "ZC104", 0),
        ('[{"data": 1, "needs": 0}]', "ZC104", 0),
        ('[{"data": 1}, {"data": 1, "needs": -2}]', "ZC104", 1),
        ('[{"data": 1}, {"data": 1, "needs": 2}]', "ZC104", 1),
        ('[{"data": 1, "uid": "a"}, {"data": 1}, {"data": 1, "uid": "a"}]', "ZC331", 2),
    ],
)
async def test_a_batch_with_a_bad_entry_is_refused_whole_and_names_it(
    tx: Transaction, entries: str, code: str, place: int | None
) -> None:
    operation = logs.Append(project="default", kind="note", key="k", entries=JsonText(entries.encode()))
    error = await refused(tx, operation, code)
    assert (None if error.detail is None else json.loads(error.detail).get("entry")) == place
    assert place is None or error.message.startswith(f"entry {place}: ")
    await refused(tx, read(), "ZC216")


async def test_strings_that_look_like_numbers_and_brackets_are_accepted(tx: Transaction) -> None:
    text = json.dumps({"a": "[" * 1000 + "1e999" + "9" * 500, "b": '\\"[[{' * 50})
    await tx.run(exactly(text))
    assert bytes((await tx.run(read()))[0].text).decode() == text


async def test_a_repetition_returns_the_earlier_numbers_and_appends_what_is_new(tx: Transaction) -> None:
    await tx.run(append("a"))
    given = ({"data": "b", "uid": "b"}, {"data": {"c": "\0"}, "uid": "c"})
    first = await tx.run(append(*given))
    before = await tx.events()
    again = await tx.run(append(*given, expect=1))
    assert (again.first_seq, again.last_seq, again.appended, again.epoch) == (2, 3, 0, first.epoch)
    assert await tx.events() == before
    more = await tx.run(append({"data": "d", "uid": "d"}, *given, {"data": "e", "needs": -1}))
    assert (more.first_seq, more.last_seq, more.appended) == (2, 5, 2)
    entries = await tx.run(read())
    assert [(entry.data, entry.needs) for entry in entries[3:]] == [("d", None), ("e", 4)]
    other = await refused(tx, append("x", {"data": "B", "uid": "b"}), "ZC331")
    assert json.loads(other.detail or "") == {"entry": 1, "seq": 2}
    await tx.run(append({"data": "B", "uid": "b"}, key="another log"))


async def test_an_expectation_is_the_last_number_with_its_epoch(tx: Transaction) -> None:
    await refused(tx, append({"data": 1, "uid": "u"}, expect=1), "ZC301")
    await refused(tx, append(1, expect=-1), "ZC301")
    absent = await refused(tx, append(1, expect=1), "ZC301")
    assert json.loads(absent.detail or "") == {"last_seq": 0, "epoch": None}
    assert str(absent.hint).startswith("Expect 0 to create it. If this number was read,")
    first = await tx.run(append(1, expect=0))
    beyond = await refused(tx, append(1, expect=9), "ZC301")
    assert str(beyond.hint).startswith("Read the log and decide again. If the expected number was read from this log,")
    await refused(tx, append(1, expect=0), "ZC301")
    second = await tx.run(append(2, expect=1, epoch=first.epoch))
    stale = await refused(tx, append(1, expect=1), "ZC301")
    assert json.loads(stale.detail or "") == {"last_seq": 2, "epoch": second.epoch}
    await refused(tx, append(1, expect=2, epoch="00000000"), "ZC301")
    await refused(tx, append(1, expect=2, epoch="x"), "ZC103")
    assert (await tx.run(append(3, expect=2))).last_seq == 3
    await tx.run(logs.Delete(project="default", kind="note", key="k"))
    for never in (-1, 3):
        await refused(tx, append(4, expect=never), "ZC301")
    assert (await tx.run(append(4, expect=0))).last_seq == 4


async def test_entries_are_read_after_before_at_and_from_the_end(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for number in range(1, 8):
        await tx.set_clock(number * SECOND)
        await tx.run(append(number))
    entries = await tx.run(read())
    place = [entries[2].epoch, "3"]
    assert seqs(await tx.run(read(after=place))) == [4, 5, 6, 7]
    assert seqs(await tx.run(read(after=["", "3"], limit=2))) == [4, 5]
    assert seqs(await tx.run(read(before=4))) == [1, 2, 3]
    assert seqs(await tx.run(read(before=99))) == seqs(entries)
    assert seqs(await tx.run(read(last=2))) == [6, 7]
    assert seqs(await tx.run(read(last=2, before=4))) == [2, 3]
    assert seqs(await tx.run(read(last=5, after=place))) == [4, 5, 6, 7]
    assert seqs(await tx.run(read(last=2, after=["", "7"]))) == []
    pages = [seqs(await tx.run(read(last=4, limit=2)))]
    await tx.run(append(8, 9))
    pages.append(seqs(await tx.run(read(last=4, limit=2, after=["", str(pages[0][-1])]))))
    assert pages == [[4, 5], [6, 7]], "what comes between two pages moves nothing"
    await tx.run(logs.Pop(project="default", kind="note", key="k", last=2))
    for number, entry in enumerate(entries, 1):
        assert seqs(await tx.run(read(at=entry.created_at))) == [*range(1, number + 1)]
        assert seqs(await tx.run(read(at=entry.created_at - SECOND / 2, last=1))) == [number - 1][: number - 1]
    assert await tx.run(read(at=datetime(2000, 1, 1, tzinfo=UTC))) == []
    for last in (0, 10_001):
        await refused(tx, read(last=last), "ZC104")
    await refused(tx, read(after=["nonsense", "3"]), "ZC103")


async def test_a_position_of_a_lost_history_is_refused_with_a_reset(tx: Transaction) -> None:
    first = await tx.run(append(1, 2, 3))
    await tx.connection.execute(FORGET)
    second = await tx.run(append(4, 5, 6))
    assert second.epoch != first.epoch
    assert seqs(await tx.run(read(after=[first.epoch, "3"]))) == [4, 5, 6]
    # What the lost history had as 4 is not what is there now.
    for place in (["00000000", "3"], [first.epoch, "4"], [second.epoch, "3"], [second.epoch, "7"], ["", "7"]):
        error = await refused(tx, read(after=place), "ZC218")
        assert json.loads(error.detail or "")["reset"] is True
        assert (error.message == 'log "k" has no entry 7: its last number is 6') is (place[0] == "")
        assert ("was restored to an earlier state" in str(error.hint)) is (place[0] == "")
    await refused(tx, append(7, expect=6, epoch=first.epoch), "ZC301")
    assert (await tx.run(append(7, expect=6, epoch=second.epoch))).last_seq == 7


async def test_logs_are_listed_by_kind_and_prefix(tx: Transaction) -> None:
    for kind, key in (("note", "b"), ("note", "a/1"), ("note", "a/2"), ("x", "a/1")):
        await tx.run(append(1, kind=kind, key=key))

    async def listed(**options: Any) -> list[tuple[str, str]]:
        return [(log.kind, log.key) for log in await tx.run(logs.List(project="default", **options))]

    assert await listed() == [("note", "a/1"), ("note", "a/2"), ("note", "b"), ("x", "a/1")]
    assert await listed(kind="note", prefix="a/") == [("note", "a/1"), ("note", "a/2")]
    assert await listed(prefix="a/") == [("note", "a/1"), ("note", "a/2"), ("x", "a/1")]
    assert await listed(kind="n") == []


async def test_a_log_that_does_not_exist_is_named_with_the_one_that_was_meant(tx: Transaction) -> None:
    await tx.run(append(1, key="session-1"))
    error = await refused(tx, read(key="sesion-1"), "ZC216")
    assert (error.hint or "").startswith('Did you mean "note/session-1"?')
    await refused(tx, logs.Show(project="default", kind="other", key="session-1"), "ZC216")
    await refused(tx, read(kind="Note"), "ZC103")


async def test_logs_of_sessions_have_their_keys_and_are_closed_with_them(tx: Transaction) -> None:
    await tx.run(append(1, kind="message", key="s"))
    shown = await tx.run(sessions_.Show(project="default", session="s"))
    assert shown.status == "active"
    await tx.run(append(1, key="s/plan", session="s"))
    await tx.run(append(1, key="s/plan", session="s"))
    await refused(tx, append(1, key="plan", session="s"), "ZC105")
    await refused(tx, append(1, kind="step", key="s/1", session="s"), "ZC105")
    await tx.run(append(1, key="s/own"))
    await refused(tx, append(1, key="s/own", session="s"), "ZC105")
    await tx.run(sessions_.Archive(project="default", session="s"))
    for kind, key, session in (
        ("message", "s", None),
        ("note", "s/plan", None),
        ("step", "s", None),
        ("note", "s/new", "s"),
    ):
        await refused(tx, append(1, kind=kind, key=key, session=session), "ZC332")
    assert len(await tx.run(read("s/plan"))) == 2


async def test_the_log_of_audits_is_refused_to_callers(tx: Transaction) -> None:
    await refused(tx, append(1, kind="audit"), "42501")


async def test_sixteen_first_writers_of_a_log_race(sessions: list[asyncpg.Connection]) -> None:
    for round_ in range(3):
        receipts = await asyncio.gather(
            *(call(each, append(*[n] * 3, key=f"k{round_}")) for n, each in enumerate(sessions))
        )
        assert sorted(receipt.first_seq for receipt in receipts) == [*range(1, 48, 3)]
        entries = await call(sessions[0], read(f"k{round_}"))
        assert seqs(entries) == [*range(1, 49)]
        batches = [[entry.data for entry in entries[at : at + 3]] for at in range(0, 48, 3)]
        assert sorted(batches) == [[n] * 3 for n in range(16)]


async def test_of_racing_first_writers_with_one_uid_one_appends_and_of_those_that_expect_nothing_one_may(
    sessions: list[asyncpg.Connection],
) -> None:
    for key in map(str, range(5)):
        repeated = append({"data": 1, "uid": "u"}, key=key, expect=0)
        receipts = await asyncio.gather(*(call(each, repeated) for each in sessions))
        assert sorted(receipt.appended for receipt in receipts) == [0] * 15 + [1]
        assert {receipt.last_seq for receipt in receipts} == {1}

    async def first(connection: asyncpg.Connection) -> LogReceipt | str:
        try:
            return await call(connection, append(1, key="new", expect=0))
        except CoordinatorError as error:
            return error.code

    outcomes = await asyncio.gather(*map(first, sessions))
    assert outcomes.count("ZC301") == 15


async def test_twelve_writers_are_read_in_the_order_of_their_commits(sessions: list[asyncpg.Connection]) -> None:
    """A reader that continues after the last number it saw gets every entry once, in order, and batches as a whole."""
    reader, *writers = sessions[:13]
    await call(reader, append("begin"))
    left = len(writers)

    async def write(writer: asyncpg.Connection, name: int) -> None:
        nonlocal left
        for batch in range(10):
            await call(writer, append(*[[name, batch]] * 3))
        left -= 1

    async def follow() -> list[LogEntry]:
        seen: list[LogEntry] = []
        while True:
            ended = left == 0
            after = None if not seen else [seen[-1].epoch, str(seen[-1].seq)]
            page = await call(reader, read(after=after))
            assert len(page) % 3 == (0 if seen else 1)
            seen += page
            if ended and not page:
                return seen

    seen, *_ = await asyncio.gather(follow(), *(write(writer, name) for name, writer in enumerate(writers)))
    assert seqs(seen) == [*range(1, 362)]
    assert seen == await call(reader, read())
    for at in range(1, 361, 3):
        assert seen[at].data == seen[at + 1].data == seen[at + 2].data
    for name in range(12):
        assert [entry.data[1] for entry in seen[1::3] if entry.data[0] == name] == [*range(10)]


def pop(**options: Any) -> logs.Pop:
    return logs.Pop(project="default", kind="note", key="k", **options)


async def test_a_popped_number_is_not_given_again_and_the_entry_is_returned(tx: Transaction) -> None:
    await tx.run(append(1, 2, {"data": "\0", "uid": "u"}))
    (popped,) = await tx.run(pop())
    assert (popped.seq, popped.data, popped.uid) == (3, "\0", "u")
    assert [entry.seq for entry in await tx.run(pop(last=5))] == [1, 2]
    assert await tx.run(pop()) == []
    again = await tx.run(append({"data": "other", "uid": "u"}, expect=3))
    assert again.last_seq == 4
    log = await tx.run(logs.Show(project="default", kind="note", key="k"))
    assert (log.count, log.last_seq) == (1, 4)
    await refused(tx, pop(expect=3), "ZC301")
    await refused(tx, pop(last=0), "ZC104")
    assert [row["data"] for row in await tx.events() if row["type"] == "log.popped"] == [
        {"kind": "note", "name": "k", "first_seq": 3, "last_seq": 3},
        {"kind": "note", "name": "k", "first_seq": 1, "last_seq": 2},
    ]


async def test_readers_of_a_cleared_log_are_reset_unless_they_have_read_it_all(tx: Transaction) -> None:
    first = await tx.run(append(1, 2, 3))
    clear = logs.Clear(project="default", kind="note", key="k")
    assert await tx.run(clear) == 3
    assert await tx.run(read()) == []
    assert await tx.run(read(after=[first.epoch, "3"])) == []
    error = await refused(tx, read(after=[first.epoch, "2"]), "ZC218")
    assert json.loads(error.detail or "") == {"reset": True, "first_seq": 4, "last_seq": 3, "epoch": first.epoch}
    await refused(tx, read(at=datetime(2000, 1, 1, tzinfo=UTC)), "ZC218")
    await tx.run(append(4, expect=3))
    assert seqs(await tx.run(read(after=[first.epoch, "3"]))) == [4]
    await refused(tx, logs.Clear(project="default", kind="note", key="k", expect=3), "ZC301")


async def test_what_is_kept_and_what_that_needs_is_cleared_only_on_demand(tx: Transaction) -> None:
    def clear(**options: Any) -> logs.Clear:
        return logs.Clear(project="default", kind="note", key="k", **options)

    keep = logs.Keep(project="default", kind="note", key="k")
    await tx.run(append(1, 2, {"data": 3, "needs": 2}, 4, 5))
    await tx.run(msgspec.structs.replace(keep, first_seq=3))
    assert await tx.run(clear()) == 3
    assert seqs(await tx.run(read())) == [2, 3]
    assert (await tx.run(append(6, expect=5))).last_seq == 6
    await tx.run(keep)
    before = len(await tx.events())
    assert await tx.run(clear()) == 0
    assert len(await tx.events()) == before, "nothing has changed"
    log = await tx.run(logs.Show(project="default", kind="note", key="k"))
    assert (log.count, log.first_seq, log.kept) == (3, 6, True)
    assert await tx.run(clear(kept=True)) == 3
    log = await tx.run(logs.Show(project="default", kind="note", key="k"))
    assert (log.count, log.first_seq, log.kept) == (0, 7, True)


async def test_a_deleted_log_is_absent_and_a_new_one_continues_its_numbers(tx: Transaction) -> None:
    await tx.run(append(1, 2))
    delete = logs.Delete(project="default", kind="note", key="k")
    assert await tx.run(delete) == 2
    for operation in (read(), delete, pop(), logs.Show(project="default", kind="note", key="k")):
        await refused(tx, operation, "ZC216")
    assert await tx.run(logs.List(project="default", kind="note")) == []
    await refused(tx, append(3, expect=2), "ZC301")
    assert (await tx.run(append(3, expect=0))).last_seq == 3


async def test_entries_and_logs_are_marked_as_kept(tx: Transaction) -> None:
    await tx.run(append(1, 2, 3, 4))

    def keep(**options: Any) -> logs.Keep:
        return logs.Keep(project="default", kind="note", key="k", **options)

    assert await tx.run(keep(first_seq=2, last_seq=3)) == 2
    assert await tx.run(keep(first_seq=3)) == 0
    assert [entry.kept for entry in await tx.run(read())] == [False, True, True, False]
    assert await tx.run(keep(first_seq=2, last_seq=9, kept=False)) == 2
    assert await tx.run(keep()) == 4
    assert (await tx.run(logs.Show(project="default", kind="note", key="k"))).kept
    for options in ({"first_seq": 2, "last_seq": 1}, {"last_seq": 1}, {"first_seq": 1, "last_seq": 10_001}):
        await refused(tx, keep(**options), "ZC104")


async def test_the_audit_trail_is_changed_by_nobody(tx: Transaction) -> None:
    given = {"project": "default", "kind": "audit", "key": "audit"}
    for operation in (logs.Pop(**given), logs.Clear(**given), logs.Delete(**given), logs.Keep(**given)):
        await refused(tx, operation, "42501")


async def test_concurrent_pops_get_different_entries(sessions: list[asyncpg.Connection]) -> None:
    await call(sessions[0], append(*range(40)))
    popped = await asyncio.gather(*(call(each, pop(last=3)) for each in sessions))
    taken = sorted(entry.seq for entries in popped for entry in entries)
    assert taken == [*range(1, 41)]
    for entries in popped:
        assert seqs(entries) == [*range(entries[0].seq, entries[0].seq + len(entries))] if entries else True


@pytest.mark.parametrize("commit", [True, False])
async def test_a_pop_and_a_first_append_wait_for_another_that_is_not_committed(session: Open, *, commit: bool) -> None:
    connections = [await session() for _ in range(3)]
    first, second = await while_uncommitted(*connections, append("first", "too"), append("second"), commit=commit)
    assert (first.first_seq, first.last_seq) == (1, 2)
    assert isinstance(second, LogReceipt)
    assert (second.first_seq, second.last_seq) == ((3, 3) if commit else (1, 1))
    more = await call(connections[0], append("more"))
    popped, other = await while_uncommitted(*connections, pop(), pop(), commit=commit)
    assert not isinstance(other, CoordinatorError)
    assert seqs(popped) == [more.last_seq]
    assert seqs(other) == [more.last_seq - 1 if commit else more.last_seq]


async def test_a_log_that_raced_with_the_end_of_its_project_is_pruned(sessions: list[asyncpg.Connection]) -> None:
    one, two, watcher = sessions[:3]
    await one.execute("select coordinator.project_create('p')")
    log = logs.Append(project="p", kind="note", key="k", entries=JsonText(b'[{"data": 1}]'))
    await call(one, log)
    of_project = "from coordinator.logs l left join coordinator.entries e on e.log_id = l.id where l.kind = 'note'"
    count = f"select count(l.id) + count(e.seq) {of_project}"
    await one.execute("begin; select coordinator.project_delete('p')")
    appending = asyncio.create_task(call(two, log))
    await until_blocked(watcher, two)
    await one.execute("commit")
    await appending
    assert await one.fetchval(count) == 2
    assert await call(one, logs.Prune()) == 1
    assert await call(one, logs.Prune()) == 0
    assert await one.fetchval(count) == 0


async def test_appends_of_transactions_are_whole_exact_and_meet_in_order(sessions: list[asyncpg.Connection]) -> None:
    exact = exactly('{"b": 1e16, "a":"\\u0000 \\ud800"}')
    run = transactions.Run.of("default", [exact, append({"data": 2, "needs": -1}, expect=1)])
    assert len(await call(sessions[0], run)) == 2
    entries = await call(sessions[0], read())
    assert [bytes(entry.text) for entry in entries] == [b'{"b": 1e16, "a":"\\u0000 \\ud800"}', b"2"]
    plain = {"verb": "log_append", "kind": "note", "key": "k", "entries": [{"data": "as JSON"}]}
    await call(sessions[0], transactions.Run(project="default", writes=[plain]))
    stale = transactions.Run.of("default", [append(1, key="other"), append(2, expect=1)])
    with pytest.raises(CoordinatorError) as raised:
        await call(sessions[0], stale)
    assert json.loads(raised.value.detail or "") == {"write": 1, "last_seq": 3, "epoch": entries[0].epoch}
    with pytest.raises(CoordinatorError):
        await call(sessions[0], read("other"))

    async def both(connection: asyncpg.Connection, number: int) -> None:
        parts = [append(number, key=key, kind=kind) for key, kind in (("a", "note"), ("new", "message"), ("b", "note"))]
        await call(connection, transactions.Run.of("default", parts[:: 1 if number % 2 else -1]))

    await asyncio.gather(*(both(each, number) for number, each in enumerate(sessions)))
    orders = [
        [entry.data for entry in await call(sessions[0], read(key, kind))]
        for key, kind in (("a", "note"), ("new", "message"), ("b", "note"))
    ]
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == [*range(16)]


PLAIN = [
    '[{"data":{"role":"user","content":"a"}},{"data": [1, {"role": "user"}]}]',
    '[ {"data":"role"} , {"data":null}, {"data": {"role": {"role": "user"}}}]',
    '[{"data": {"role": "a\\"\\n\\\\", "role": "b"}}, {"data": {"role": ""}}]',
    '[{"data":{"role":"a\\"b"}},{"data":{"role":"a","role":1}},{"data":{"role":"","x":"role"}}]',
    '[{"data":{"role":"a","x":{"role":"b"}}},{"data":{"role":"a\\\\"}},{"data":{"role":"ä"}}]',
    json.dumps([{"data": {"role": "ä" * length}} for length in (200, 201)], ensure_ascii=False),
    '[{"data": "' + "[{1.5e10" * 8 + '"}]',
]
NOT_PLAIN = [
    "[]",
    "{}",
    "null",
    '{"data":1}',
    '[{"data":1},2]',
    '[{"data":1},[]]',
    '[{"data":1,"data":1}]',
    '[{"data":1, "":1}]',
    '[{"":1,"data":22}]',
    '[{"uid":"u","data":1}]',
    '[{"data":1,"needs":-1}]',
    '[{"data":  1}]',
    '[{"data":"\\u0000"}]',
    '[{"data":1e999}]',
    f'[{{"data":{"1" * 500}}}]',
    f'[{{"data":{"[" * 65}{"]" * 65}}}]',
    json.dumps([{"data": 1}] * 1001),
    f'[{{"data":"{"x" * 1048577}"}}]',
]


@pytest.mark.parametrize("kind", ["message", "note"])
async def test_entries_that_have_nothing_but_data_are_read_at_once_as_they_are_one_by_one(
    tx: Transaction, kind: str
) -> None:
    read_at_once = "select to_json(coordinator.log_plain_drafts($1, $2))::text"
    one_by_one = "select to_json(coordinator.log_drafts($1, $2))::text"
    for text in PLAIN:
        found = await tx.connection.fetchval(read_at_once, kind, text.encode())
        assert found is not None, text
        assert found == await tx.connection.fetchval(one_by_one, kind, text.encode())
    for text in NOT_PLAIN:
        assert await tx.connection.fetchval(read_at_once, kind, text.encode()) is None, text[:100]


USUAL = [
    '[{"data":{"role":"user","content":"Hello"}},{"data":{"role":"assistant","content":"Hi"}}]',
    '[{"data":{"role":"user","content":"é 😀 \\" \\\\ [[[{{{"}}]',
    '[{"data":{"role":"critic","x":1}},{"data":{"x":1,"role":"user"}},{"data":{"role":"user","role":"tool"}},{"data":{"role":"us\\"er"}}]',
    '[{"data":{"role":""}},{"data":{"role":7}},{"data":{"role":null}},{"data":{"role":["user"]}},{"data":"\\"role\\""}]',
    '[{"data":{"role":"' + "r" * 201 + '"}},{"data":{"role":"user" }},{"data":{"content":{"role":"user"}}}]',
    '[{"data":null},{"data":1},{"data":1e16},{"data":[]},{"data":""},{"data":"],[{\\"data\\":1}"}]',
    '[{"data":1,"":1},{"data":2},{"data":3}]',
    '[{"data":1,"uid":"u"}]',
    '[{"data":1,"needs":-1,"tokens":3,"role":"tool"}]',
    '[{"data":1},{"uid":1}]',
    '[{"data":1},{}]',
    '[{"data":1},null]',
    '[{"data":1},[{"data":2}]]',
    '[{"data":1,"data":{"a":2}}]',
    '[{"data":1,"date":2}]',
    '[{"data":"\\u0000"},{"data":{"role":"\\ud800"}}]',
    '[{"data":{"ro\\u006ce":"user"}}]',
    '[{"data":1e400}]',
    '[{"data":' + "9" * 40 + "}]",
    '[{"data":' + "[" * 70 + "]" * 70 + "}]",
    '[{"data":{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f"}}]}},{"data":{"role":"tool","tool_call_id":"c"}}]',
    '[{"data":{"type":"reasoning"}},{"data":{"role":"assistant","type":"message"}}]',
    "[" + ",".join(['{"data":1}'] * 1001) + "]",
    '[{"data":"' + "x" * 1_048_577 + '"}]',
    '{"data":1}',
]


@pytest.mark.parametrize("kind", ["message", "note"])
async def test_the_usual_append_does_what_any_other_does(tx: Transaction, kind: str) -> None:
    """A space before the batch makes it unusual, so the other function reads it."""
    stored = "select data::text, raw, uid, role, tokens, needs_seq, links, actor from coordinator.entries where log_id = (select id from coordinator.logs where kind = $1 and key = $2) order by seq"

    async def outcome(key: str, text: str) -> Any:
        operation = logs.Append(project="default", kind=kind, key=key, entries=JsonText(text.encode()), actor="ann")
        try:
            receipt = await tx.run(operation)
        except CoordinatorError as error:
            return error.code, error.message, error.detail, error.hint
        return receipt.first_seq, receipt.last_seq, receipt.appended, receipt.epoch

    for text in USUAL:
        await tx.run(append("first", key="a", kind=kind))
        await tx.run(append("first", key="b", kind=kind))
        assert await outcome("a", text) == await outcome("b", " " + text), text[:200]
    assert await tx.connection.fetch(stored, kind, "a") == await tx.connection.fetch(stored, kind, "b")
    told = [
        msgspec.json.decode(event["data"]) if isinstance(event["data"], bytes | str) else event["data"]
        for event in await tx.events()
    ]
    seen = {key: [(d["first_seq"], d["last_seq"]) for d in told if d.get("name") == key] for key in ("a", "b")}
    assert seen["a"] == seen["b"]
    assert len(seen["a"]) > len(USUAL)


async def test_the_usual_append_is_refused_where_any_other_is(tx: Transaction, database_url: str) -> None:
    def usual(key: str = "s", kind: str = "message", **options: Any) -> logs.Append:
        return logs.Append(project="default", kind=kind, key=key, entries=JsonText(b'[{"data":1}]'), **options)

    await tx.run(usual())
    await tx.run(sessions_.Archive(project="default", session="s"))
    await refused(tx, usual(), "ZC332")
    await tx.run(sessions_.Delete(project="default", session="s"))
    assert (await tx.run(usual())).first_seq == 2  # in a new session, with a number of its own
    assert await tx.connection.fetchval("select session_id is not null from coordinator.logs where key = 's'")
    assert (await tx.run(usual())).first_seq == 3
    await refused(tx, usual(actor="a\nb"), "ZC103")
    await refused(tx, usual(kind="audit"), "42501")


async def test_the_usual_append_looks_at_the_session_once_a_minute_and_at_retention_once_in_256_entries(
    tx: Transaction,
) -> None:
    header = "select open_until, open_to, last_seq from coordinator.logs where key = 's'"

    async def seen() -> Any:
        await tx.run(logs.Append(project="default", kind="message", key="s", entries=JsonText(b'[{"data":1}]')))
        return await tx.connection.fetchval("select updated_at from coordinator.sessions where key = 's'")

    await tx.set_clock(timedelta(0))
    begun = await seen()
    assert await tx.connection.fetchrow(header) == (begun + timedelta(minutes=1), 255, 1)
    await tx.set_clock(timedelta(seconds=59))
    assert await seen() == begun
    await tx.set_clock(timedelta(seconds=61))
    assert await seen() == begun + timedelta(seconds=61)
    assert await seen() == begun + timedelta(seconds=61)
    assert await tx.connection.fetchrow(header) == (begun + timedelta(seconds=121), 255, 4)
    await tx.connection.execute("update coordinator.logs set last_seq = 255, count = 255 where key = 's'")
    await tx.connection.execute("select coordinator.retention_set('default', 'log', 'message', '400 days', 100)")
    await tx.connection.execute("update coordinator.logs set trim_at = null where key = 's'")
    await seen()
    assert await tx.connection.fetchval(
        "select trim_at is not null and open_to = 511 from coordinator.logs where key = 's'"
    )
