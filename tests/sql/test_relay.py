"""The relay's step: order, completeness, partitions, pruning, recovery; with writers that commit late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import anyio
import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.errors import InvalidArgument
from coordinator.model.work import Step
from coordinator.operations import events
from coordinator.operations.work import OutboxPrune, RelayArm, RelayRecover, RelayStep
from tests.waiting import DEADLINE_S, until_blocked


class Bench:
    """A database, its relay, and writers whose transactions the test opens and ends."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self.relay: asyncpg.Connection

    async def open(self) -> asyncpg.Connection:
        connection = await connect(self._url)
        self._stack.push_async_callback(connection.close)
        return connection

    async def begin(self) -> asyncpg.Connection:
        writer = await self.open()
        await writer.execute("begin")
        return writer

    async def emit(self, name: str, on: asyncpg.Connection | None = None) -> None:
        await call(on or self.relay, events.Emit(project="default", type="custom.x", key=name))

    async def step(self, limit: int = 1000) -> Step:
        return await call(self.relay, RelayStep(limit=limit))

    async def drain(self, limit: int = 1000) -> None:
        while (await self.step(limit)).again:
            pass

    async def log(self) -> list[str]:
        rows = await self.relay.fetch("select seq, key from coordinator.events order by seq")
        if rows:
            assert [row["seq"] for row in rows] == list(range(rows[0]["seq"], rows[0]["seq"] + len(rows))), (
                "a gap in seq"
            )
        return [row["key"] for row in rows]


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        bench = Bench(database_url, stack)
        bench.relay = await bench.open()
        yield bench


async def test_a_step_numbers_what_was_committed_in_order(bench: Bench) -> None:
    for name in "abc":
        await bench.emit(name)
    assert await bench.step() == Step(moved=3, head_seq=3, again=False)
    assert await bench.log() == ["a", "b", "c"]
    assert await bench.step() == Step(moved=0, head_seq=3, again=False)


async def test_what_committed_before_another_began_comes_first(bench: Bench) -> None:
    await bench.emit("a")
    await bench.emit("b")
    late = await bench.begin()
    await bench.emit("late", late)
    await bench.emit("c")
    await bench.step()
    assert await bench.log() == ["a", "b", "c"]
    await late.execute("commit")
    await bench.step()
    assert await bench.log() == ["a", "b", "c", "late"]


async def test_events_of_one_transaction_stay_in_their_order_and_together(bench: Bench) -> None:
    one, two = await bench.begin(), await bench.begin()
    for n in range(3):
        await bench.emit(f"1{n}", one)
        await bench.emit(f"2{n}", two)
    await two.execute("commit")
    await one.execute("commit")
    await bench.drain(2)
    assert await bench.log() in (["10", "11", "12", "20", "21", "22"], ["20", "21", "22", "10", "11", "12"])


async def test_an_open_transaction_holds_up_nobody_and_is_not_lost(bench: Bench) -> None:
    late = await bench.begin()
    await bench.emit("late", late)
    for n in range(20):
        await bench.emit(str(n))
        await bench.step()
    await late.execute("commit")
    await bench.step()
    assert await bench.log() == [*map(str, range(20)), "late"]


async def test_a_rolled_back_transaction_leaves_no_event_and_no_gap(bench: Bench) -> None:
    gone = await bench.begin()
    await bench.emit("gone", gone)
    await bench.emit("a")
    await bench.step()
    await gone.execute("rollback")
    await bench.emit("b")
    await bench.step()
    assert await bench.log() == ["a", "b"]


async def test_a_savepoint_that_was_rolled_back_leaves_nothing(bench: Bench) -> None:
    writer = await bench.begin()
    await bench.emit("a", writer)
    await writer.execute("savepoint s")
    await bench.emit("gone", writer)
    await writer.execute("rollback to s")
    await bench.emit("b", writer)
    await writer.execute("commit")
    await bench.step()
    assert await bench.log() == ["a", "b"]


@pytest.mark.parametrize("limit", range(1, 8))
async def test_batches_of_any_size_lose_and_double_nothing_while_writers_come_and_go(bench: Bench, limit: int) -> None:
    writers = [await bench.begin() for _ in range(3)]
    expected = set()
    for turn in range(12):
        for n, writer in enumerate(writers):
            await bench.emit(f"{turn}/{n}", writer)
            expected.add(f"{turn}/{n}")
        await bench.step(limit)
        ending = writers[turn % 3]
        await ending.execute("commit")
        await bench.step(limit)
        await ending.execute("begin")
    for writer in writers:
        await writer.execute("commit")
    await bench.drain(limit)
    log = await bench.log()
    assert len(log) == len(expected)
    assert set(log) == expected


async def test_two_steps_at_once_take_turns(bench: Bench) -> None:
    for n in range(50):
        await bench.emit(str(n))
    relays = [await bench.open() for _ in range(4)]

    async def work(relay: asyncpg.Connection) -> int:
        moved = 0
        while True:
            step = await call(relay, RelayStep(limit=3))
            moved += step.moved
            if not step.again:
                return moved

    assert sum(await asyncio.gather(*map(work, relays))) == 50
    assert await bench.log() == [str(n) for n in range(50)]


async def test_a_second_relay_waits_for_the_first_ones_commit(bench: Bench) -> None:
    await bench.emit("a")
    one, two = await bench.begin(), await bench.open()
    assert (await call(one, RelayStep())).moved == 1
    second = asyncio.create_task(call(two, RelayStep()))
    await until_blocked(bench.relay, two)
    await bench.emit("b")
    await one.execute("commit")
    assert (await second).moved == 1
    assert await bench.log() == ["a", "b"]


async def test_a_step_that_is_rolled_back_is_done_again(bench: Bench) -> None:
    await bench.emit("a")
    one = await bench.begin()
    await call(one, RelayStep())
    await one.execute("rollback")
    assert await bench.step() == Step(moved=1, head_seq=1, again=False)


@pytest.mark.parametrize("limit", [1, 1000])
async def test_what_a_relaying_transaction_emits_itself_comes_with_a_later_step(bench: Bench, limit: int) -> None:
    await bench.emit("a")
    one = await bench.begin()
    await bench.emit("before", one)
    await call(one, RelayStep(limit=limit))
    await bench.emit("after", one)
    await bench.emit("other")
    await call(one, RelayStep(limit=limit))
    await one.execute("commit")
    await bench.drain(limit)
    assert sorted(await bench.log()) == ["a", "after", "before", "other"]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_step_in_an_older_snapshot_is_refused(bench: Bench, level: str) -> None:
    one = await bench.open()
    await one.execute(f"begin isolation level {level}")
    with pytest.raises(InvalidArgument) as raised:
        await call(one, RelayStep())
    assert raised.value.code == "ZC105"
    assert raised.value.hint


# --------------------------------------------------------------------------------------------------- partitions


async def set_head(bench: Bench, seq: int) -> None:
    await bench.relay.execute(
        "insert into coordinator.relay_batches (head_seq, base, stamped_at) "
        "select $1, base, now() from coordinator.relay_batches order by id desc limit 1",
        seq,
    )
    await bench.relay.execute("update coordinator.relay set floor_seq = $1", seq)
    await bench.relay.execute("select coordinator.event_partition_create($1)", seq)


async def partitions(bench: Bench) -> list[str]:
    rows = await bench.relay.fetch(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'coordinator.events'::regclass"
    )
    return sorted(row[0].removeprefix("coordinator.") for row in rows)


async def test_a_batch_may_span_two_partitions(bench: Bench) -> None:
    await set_head(bench, 999_997)
    for name in "abcd":
        await bench.emit(name)
    assert (await bench.step()).head_seq == 1_000_001
    assert await partitions(bench) == ["events_000000", "events_000001"]
    counts = [await bench.relay.fetchval(f"select count(*) from coordinator.{p}") for p in await partitions(bench)]
    assert counts == [2, 2]
    page = await call(bench.relay, events.Since())
    assert [(event.seq, event.key) for event in page] == [
        (999_998, "a"),
        (999_999, "b"),
        (1_000_000, "c"),
        (1_000_001, "d"),
    ]


@pytest.mark.parametrize("head", [999_998, 999_999, 1_000_000])
async def test_single_steps_over_the_border_find_their_partition(bench: Bench, head: int) -> None:
    await set_head(bench, head)
    for n in range(3):
        await bench.emit(str(n))
        await bench.drain(1)
    assert await bench.log() == ["0", "1", "2"]


async def test_a_partition_has_a_comment(bench: Bench) -> None:
    await bench.step()
    assert (
        await bench.relay.fetchval("select obj_description('coordinator.events_000000'::regclass)")
        == "Events 0 to 999999, see events."
    )


async def test_prune_drops_a_whole_old_partition_and_then_rows(bench: Bench) -> None:
    await set_head(bench, 999_997)
    for name in "abcd":
        await bench.emit(name)
    await bench.step()
    first = (await call(bench.relay, events.Since(limit=1)))[0]
    assert await call(bench.relay, events.Prune()) == 0
    await bench.relay.execute("select set_config('coordinator.fake_now', (now() + interval '8 days')::text, false)")
    assert await call(bench.relay, events.Prune()) == 2
    assert await partitions(bench) == ["events_000001"]
    assert await bench.log() == ["c", "d"]
    assert [await call(bench.relay, events.Prune(limit=1)) for _ in range(3)] == [1, 1, 0]
    (reset,) = await call(bench.relay, events.Since(after=first.cursor))
    assert (reset.type, reset.data["reason"], reset.data["floor"]) == ("reset", "pruned", 1_000_001)
    await bench.emit("e")
    assert (await bench.step()).head_seq == 1_000_002


async def test_prune_does_not_wait_for_a_reader_to_drop_a_partition(bench: Bench) -> None:
    await set_head(bench, 999_997)
    for name in "abcd":
        await bench.emit(name)
    await bench.step()
    reader = await bench.begin()
    await reader.fetch("select * from coordinator.events")
    await bench.relay.execute("select set_config('coordinator.fake_now', (now() + interval '8 days')::text, false)")
    assert await call(bench.relay, events.Prune(limit=1)) == 1
    assert await partitions(bench) == ["events_000000", "events_000001"]
    await reader.execute("commit")
    assert await call(bench.relay, events.Prune(limit=1)) == 1
    assert await partitions(bench) == ["events_000001"]


async def test_retention_goes_by_the_time_of_numbering_and_not_by_the_producers(bench: Bench) -> None:
    await bench.relay.execute("select set_config('coordinator.fake_now', '2001-01-01', false)")
    await bench.emit("old clock")
    await bench.relay.execute("select set_config('coordinator.fake_now', '', false)")
    await bench.step()
    assert await call(bench.relay, events.Prune()) == 0
    assert await bench.log() == ["old clock"]


# --------------------------------------------------------------------------------------------------- the outbox and the bell


async def test_outbox_prune_deletes_what_is_in_the_log_and_keeps_what_is_not(bench: Bench) -> None:
    late = await bench.begin()
    await bench.emit("late", late)
    await bench.emit("a")
    await bench.step()
    start = await call(bench.relay, OutboxPrune())
    await late.execute("commit")
    await bench.step()
    await call(bench.relay, OutboxPrune(start=start))
    assert await bench.relay.fetchval("select count(*) from coordinator.outbox") == 0
    assert await bench.relay.fetchval("select count(*) from coordinator.relay_batches") == 1
    assert await bench.log() == ["a", "late"]


async def test_a_writer_rings_only_while_the_relay_sleeps(bench: Bench) -> None:
    rings: list[str] = []
    await bench.relay.add_listener("coordinator.bell", lambda *heard: rings.append(heard[3]))
    writer = await bench.open()
    await bench.emit("awake", writer)
    await bench.relay.execute("select 1")
    assert rings == []
    assert await call(bench.relay, RelayArm())
    await bench.emit("asleep", writer)
    with anyio.fail_after(DEADLINE_S):
        while not rings:
            await bench.relay.execute("select 1")
    await bench.step()
    await bench.emit("awake again", writer)
    await bench.relay.execute("select 1")
    assert rings == [""]


async def test_a_bell_that_was_armed_by_a_relay_that_died_stops_ringing(bench: Bench) -> None:
    rings: list[str] = []
    await bench.relay.add_listener("coordinator.bell", lambda *heard: rings.append(heard[3]))
    await call(bench.relay, RelayArm(duration=timedelta(seconds=-1)))
    await bench.emit("a")
    await bench.relay.execute("select 1")
    assert rings == []


async def test_arming_is_unsafe_while_a_writer_is_under_way_that_may_not_have_seen_it(bench: Bench) -> None:
    writer = await bench.begin()
    await bench.emit("a", writer)
    assert not await call(bench.relay, RelayArm())
    await writer.execute("commit")
    assert await call(bench.relay, RelayArm())


# --------------------------------------------------------------------------------------------------- restored elsewhere


async def test_the_first_relay_writes_down_where_it_is(bench: Bench) -> None:
    head = await call(bench.relay, events.Head())
    assert await call(bench.relay, RelayRecover()) is False
    assert await call(bench.relay, RelayRecover()) is False
    assert await call(bench.relay, events.Head()) == head


async def pretend_restored(bench: Bench) -> None:
    """As after pg_restore into another cluster: the rows are there, transaction ids and snapshots mean nothing."""
    await bench.relay.execute("update coordinator.relay set identity = 'elsewhere'")


async def test_a_restored_database_begins_a_new_epoch_and_loses_nothing(bench: Bench) -> None:
    await call(bench.relay, RelayRecover())
    await bench.emit("a")
    await bench.step()
    old = await call(bench.relay, events.Head())
    await bench.emit("b")
    await pretend_restored(bench)
    assert await call(bench.relay, RelayRecover()) is True
    await bench.emit("c")
    await bench.step()
    log = await bench.log()
    assert log[0] == "a"
    assert log[-2:] == ["b", "c"]
    (reset,) = await call(bench.relay, events.Since(after=old))
    assert (reset.type, reset.data["reason"]) == ("reset", "restored")
    assert await call(bench.relay, RelayRecover()) is False


@pytest.mark.parametrize("first_xid", [3, 2**40])
async def test_recovery_numbers_an_outbox_of_any_size_whatever_its_transaction_ids(
    bench: Bench, first_xid: int
) -> None:
    await call(bench.relay, RelayRecover())
    await bench.relay.execute(
        "insert into coordinator.outbox (xid, type, project, key, actor, at, data) "
        "select ($1::bigint + n)::text::xid8, 'custom.x', 'default', n::text, 'a', now(), '{}' from generate_series(1, 10003) n",
        first_xid,
    )
    await pretend_restored(bench)
    assert await call(bench.relay, RelayRecover()) is True
    assert await bench.log() == [str(n) for n in range(1, 10004)]
    await bench.emit("next")
    assert (await bench.step()).head_seq == 10004
