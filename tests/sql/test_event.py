"""Reading the log: cursors, filters, resets, bookmarks; and events in the caller's own transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from itertools import groupby

import pytest

from coordinator.errors import ServerBehind
from coordinator.model.event import Event
from coordinator.operations import events, projects, signals
from coordinator.operations.work import RelayStep
from tests.conftest import Transaction
from tests.daemon import opened
from tests.sql.refusal import refused

# relay_step leaves out the events of its own transaction, so the log is filled by hand here.
FILL = """
insert into coordinator.events (xid, id, type, project, key, actor, at, data)
select n::text::xid8, n, case n % 3 when 0 then 'signal.set' when 1 then 'signal.deleted' else 'directive.sent' end,
       case n % 2 when 0 then 'default' else 'other' end, n::text, 'a', now(), jsonb_build_object('n', n)
from generate_series(1, $1::integer) n
"""


async def fill(tx: Transaction, count: int, chunk: int = 7) -> None:
    await tx.connection.execute(FILL, count)
    await tx.connection.execute(
        "insert into coordinator.event_chunks"
        " select min(n), max(n), array_agg(n::text::xid8 order by n), min(n), max(n), false, pg_current_snapshot(), 0, 0, '3', now()"
        " from generate_series(1, $1::integer) n group by (n - 1) / $2",
        count,
        chunk,
    )


@pytest.fixture
async def alone(database_url: str) -> AsyncIterator[Transaction]:
    """A database of the test's own, since the floor is a sequence, which no rollback resets."""
    async with opened(database_url) as connection:
        yield Transaction(connection)


async def prune(tx: Transaction, floor: int) -> None:
    await tx.connection.execute("delete from coordinator.events where id <= $1", floor)
    await tx.connection.execute("delete from coordinator.event_chunks where last_seq <= $1", floor)
    await tx.connection.execute("select setval('coordinator.event_floor', $1)", floor)


async def since(tx: Transaction, **options: object) -> list[Event]:
    return await tx.run(events.Since(**options))  # type: ignore[arg-type]


async def test_an_empty_log_reads_empty_and_has_a_head(tx: Transaction) -> None:
    assert await since(tx) == []
    assert (await tx.run(events.Head())).endswith(".0")


async def test_a_reader_of_an_empty_log_continues_from_there_and_not_from_a_later_head(
    tx: Transaction,
) -> None:
    (bookmark,) = await since(tx, bookmarks=True)
    assert (bookmark.type, bookmark.seq) == ("bookmark", 0)
    await fill(tx, 2)
    assert [e.seq for e in await since(tx, after=bookmark.cursor)] == [1, 2]


async def test_reading_on_from_the_last_cursor_misses_nothing(tx: Transaction) -> None:
    await fill(tx, 10)
    seen, cursor = [], None
    while page := await since(tx, after=cursor, limit=3):
        seen += [event.seq for event in page]
        cursor = page[-1].cursor
    assert seen == list(range(1, 11))
    assert cursor == await tx.run(events.Head())


async def test_now_is_the_head(tx: Transaction) -> None:
    await fill(tx, 10)
    assert await since(tx, after="now") == []


async def test_filters_by_project_and_topics(tx: Transaction) -> None:
    await fill(tx, 12)
    assert [e.seq for e in await since(tx, project="default")] == [2, 4, 6, 8, 10, 12]
    assert [e.seq for e in await since(tx, topics=["signal.set"])] == [3, 6, 9, 12]
    assert [e.seq for e in await since(tx, topics=["signal.*"], project="other")] == [1, 3, 7, 9]
    assert [e.seq for e in await since(tx, topics=["directive.*", "signal.deleted"], limit=3)] == [1, 2, 4]
    assert len(await since(tx, topics=["*"])) == 12
    assert await since(tx, topics=["sign.*"]) == []


async def test_a_sparse_filter_finds_what_lies_far_ahead(tx: Transaction) -> None:
    await fill(tx, 3000)
    await tx.connection.execute("update coordinator.events set type = 'rule.set' where id = 2999")
    assert [e.seq for e in await since(tx, topics=["rule.*"], limit=1)] == [2999]


async def test_a_bookmark_says_how_far_nothing_matched(tx: Transaction) -> None:
    await fill(tx, 10)
    (bookmark,) = await since(tx, topics=["rule.set"], bookmarks=True)
    assert (bookmark.type, bookmark.seq, bookmark.data) == ("bookmark", 10, {})
    assert await since(tx, after=bookmark.cursor, topics=["rule.set"], bookmarks=True) == []
    page = await since(tx, topics=["signal.set"], bookmarks=True)
    assert [(e.type, e.seq) for e in page[-2:]] == [("signal.set", 9), ("bookmark", 10)]


async def test_a_full_page_has_no_bookmark_that_would_leap_over_events(tx: Transaction) -> None:
    await fill(tx, 12)
    page = await since(tx, topics=["signal.set"], bookmarks=True, limit=2)
    assert [(e.type, e.seq) for e in page] == [("signal.set", 3), ("signal.set", 6)]


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_pages_with_bookmarks_of_any_size_hold_each_match_once(tx: Transaction, limit: int) -> None:
    await fill(tx, 30)
    seen, cursor = [], None
    while page := await since(tx, after=cursor, topics=["signal.set"], bookmarks=True, limit=limit):
        seen += [event.seq for event in page if event.type != "bookmark"]
        cursor = page[-1].cursor
    assert seen == list(range(3, 31, 3))


async def test_a_cursor_below_the_floor_gets_a_reset_and_what_is_retained(alone: Transaction) -> None:
    tx = alone
    await fill(tx, 10, 4)
    first = (await since(tx, limit=1))[0]
    await prune(tx, 4)
    page = await since(tx, after=first.cursor)
    assert (page[0].type, page[0].data) == ("reset", {"reason": "pruned", "floor": 4, "head": 10})
    assert [event.seq for event in page] == [4, 5, 6, 7, 8, 9, 10]
    assert [event.seq for event in await since(tx, after=page[0].cursor)] == [5, 6, 7, 8, 9, 10]
    assert [event.seq for event in await since(tx)] == [5, 6, 7, 8, 9, 10]
    assert [event.type for event in await since(tx, after=first.cursor, limit=1)] == ["reset"]


async def test_a_cursor_at_the_floor_has_missed_nothing(alone: Transaction) -> None:
    tx = alone
    await fill(tx, 10, 4)
    fourth = (await since(tx, limit=4))[3]
    await prune(tx, 4)
    assert [event.seq for event in await since(tx, after=fourth.cursor)] == [5, 6, 7, 8, 9, 10]


async def test_a_cursor_that_this_server_has_not_reached_loses_nothing(tx: Transaction) -> None:
    await fill(tx, 10)
    await tx.connection.execute("select coordinator.epoch_begin()")
    await tx.connection.execute("update coordinator.relay set epoch = coordinator.epoch_id()")
    epoch = (await tx.run(events.Head())).split(".")[0]
    later = f"{int(epoch, 16) + 2**20:x}"
    for after in (f"{epoch}.11", f"{later}.1", f"{later}.10"):
        with pytest.raises(ServerBehind, match=f'"{after}"'):
            await since(tx, after=after)


async def test_a_cursor_of_an_epoch_that_the_log_does_not_know_gets_a_reset_to_the_head(tx: Transaction) -> None:
    await fill(tx, 10)
    head = await tx.run(events.Head())
    earlier = f"{int(head.split('.')[0], 16) - 2**20:x}"
    for epoch in (earlier, "3f9c01aa", "restored", "f" * 16, "0" * 16):
        (reset,) = await since(tx, after=f"{epoch}.3")
        assert (reset.type, reset.data["reason"], reset.cursor) == ("reset", "restored", head)


async def test_a_cursor_of_another_epoch_gets_a_reset_to_the_head(tx: Transaction) -> None:
    await fill(tx, 10)
    (reset,) = await since(tx, after="abc.3", project="default")
    assert (reset.type, reset.data["reason"], reset.seq, reset.project) == ("reset", "restored", 10, "default")


async def transactions(tx: Transaction, *sizes: int, chunk: int) -> None:
    """Fill the log with transactions of these many events, by the real relay."""
    for size in sizes:
        await tx.connection.execute(
            "select count(coordinator.event_emit('default', case n % 2 when 0 then 'custom.even' else 'custom.odd' end, n::text))"
            " from generate_series(1, $1::integer) n",
            size,
        )
    while (await tx.run(RelayStep(limit=chunk))).again:
        pass


async def test_an_event_names_its_transaction_and_says_whether_more_of_it_follow(alone: Transaction) -> None:
    await transactions(alone, 1, 3, 2, 7, chunk=5)
    page = await since(alone)
    groups = [list(group) for _, group in groupby(page, key=lambda event: event.transaction)]
    assert [len(group) for group in groups] == [1, 3, 2, 7]
    assert [[event.more for event in group] for group in groups] == [[True] * (n - 1) + [False] for n in (1, 3, 2, 7)]
    filtered = await since(alone, topics=["custom.odd"])
    assert [(event.seq, event.more) for event in filtered] == [
        (event.seq, event.more) for event in page if event.type == "custom.odd"
    ]


@pytest.mark.parametrize("topics", [None, ["custom.even"], ["custom.odd"]])
@pytest.mark.parametrize("limit", range(1, 12))
async def test_a_page_ends_between_transactions_unless_one_exceeds_it(
    alone: Transaction, limit: int, topics: list[str] | None
) -> None:
    await transactions(alone, 2, 3, 1, 4, 2, 2, 9, 1, 3, chunk=10)
    whole = await since(alone, topics=topics)
    sizes = Counter(event.transaction for event in whole)
    seen: list[Event] = []
    while page := await since(alone, after=seen[-1].cursor if seen else None, topics=topics, limit=limit):
        assert len(page) <= limit
        seen += page
        if len(seen) < len(whole) and whole[len(seen)].transaction == page[-1].transaction:
            assert {event.transaction for event in page} == {page[-1].transaction}, "cut, and not the only one"
            assert sizes[page[-1].transaction] > limit
    assert seen == whole


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        *(
            (events.Since(after=cursor), "ZC103")
            for cursor in ("", "x", "1", "a.b", "a.-1", "a.1 ", "A.1", "a." + "9" * 19)
        ),
        *(
            (events.Since(topics=[topic]), "ZC103")
            for topic in ("signal", "*.set", "a.*.b", "Signal.set", "a..b", "a.*", "(a|b)*", "s*")[1:5]
        ),
        (events.Since(topics=["a'b"]), "ZC103"),
        (events.Since(topics=[""]), "ZC101"),
        (events.Since(project="a\n"), "ZC103"),
        (events.Since(limit=0), "ZC104"),
        (events.Emit(project="default", type="signal.set"), "ZC103"),
        (events.Emit(project="default", type="custom."), "ZC103"),
        (events.Emit(project="default", type="custom.A"), "ZC103"),
        (events.Emit(project="default", type="custom." + "a" * 200), "ZC103"),
        (events.Emit(project="default", type="custom.x", key=""), "ZC101"),
        (events.Emit(project="no", type="custom.x"), "ZC201"),
    ],
)
async def test_bad_input_is_refused(tx: Transaction, operation: object, code: str) -> None:
    await refused(tx, operation, code)  # type: ignore[arg-type]


async def test_an_event_of_ones_own_is_rolled_back_with_its_transaction(tx: Transaction) -> None:
    savepoint = tx.connection.transaction()
    await savepoint.start()
    await tx.run(events.Emit(project="default", type="custom.x"))
    await savepoint.rollback()
    assert await tx.events() == []


async def test_the_members_of_an_event_are_in_order_and_utc(tx: Transaction) -> None:
    text = await tx.connection.fetchval(
        "select coordinator.event_members('e', 7, 't', 'p', null, 'a', '2026-01-31 13:00:00.5+01', '{\"k\": 1}', '9', true, '00-1-2-01')"
    )
    assert text == (
        '"cursor": "e.7", "seq": 7, "type": "t", "project": "p", "key": null, "actor": "a", '
        '"at": "2026-01-31T12:00:00.500000Z", "data": {"k": 1}, "transaction": "9", "more": true, "traceparent": "00-1-2-01"'
    )


async def test_every_change_emits_with_its_project_key_actor_and_time(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p", actor="boss"))
    made = await tx.run(signals.Set(project="p", key="k", value=1, actor="boss"))
    created, set_ = await tx.events()
    assert (created["type"], created["project"], created["key"], created["actor"]) == (
        "project.created",
        "p",
        "p",
        "boss",
    )
    assert (set_["type"], set_["project"], set_["key"], set_["at"]) == ("signal.set", "p", "k", made.updated_at)
    assert set_["data"]["version"] == made.version


async def test_relay_step_says_nothing_of_its_own_transaction(tx: Transaction) -> None:
    await tx.run(events.Emit(project="default", type="custom.x"))
    assert (await tx.run(RelayStep())).moved == 0
