"""The relay's step: order, completeness, partitions, pruning, recovery; with writers that commit late; what is notified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import accumulate
from random import Random

import anyio
import asyncpg
import msgspec
import pytest

from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.errors import InvalidArgument, LogFull
from coordinator.model.event import Event
from coordinator.model.work import Step
from coordinator.operations import events, signals
from coordinator.operations.work import RelayArm, RelayRecover, RelayRun, RelayStep
from tests.daemon import LOG
from tests.waiting import DEADLINE_S, until_blocked, until_over


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

    async def step(self, limit: int = 500) -> Step:
        return await call(self.relay, RelayStep(limit=limit))

    async def drain(self, limit: int = 500) -> None:
        while (await self.step(limit)).again:
            pass

    async def log(self) -> list[str]:
        rows = await self.relay.fetch(f"select seq, key from {LOG} order by seq")
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


async def test_a_commit_after_the_step_is_found_although_nobody_has_written_since(bench: Bench) -> None:
    """Its transaction began after the last that the step saw, so the step's snapshot does not list it as in progress."""
    await bench.emit("a")
    late = await bench.begin()
    await bench.emit("late", late)
    assert await bench.step() == Step(moved=1, head_seq=1, again=False)
    assert await bench.step() == Step(moved=0, head_seq=1, again=False)
    await late.execute("commit")
    assert await bench.step() == Step(moved=1, head_seq=2, again=False)
    assert await bench.log() == ["a", "late"]


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


@pytest.mark.slow
@pytest.mark.parametrize("limit", range(1, 8))
async def test_batches_of_any_size_lose_and_repeat_nothing_while_writers_come_and_go(bench: Bench, limit: int) -> None:
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


async def test_a_run_steps_until_every_event_has_a_number(bench: Bench) -> None:
    assert await call(bench.relay, RelayRun()) == [0]
    await bench.relay.execute(
        "do $$ begin for n in 1..1100 loop perform coordinator.event_emit('default', 'custom.x', n::text); commit; end loop; end $$"
    )
    assert await call(bench.relay, RelayRun(duration=timedelta(minutes=1))) == [500, 500, 100, 0]
    assert await bench.log() == [str(n) for n in range(1, 1101)]
    assert (
        await bench.relay.fetchval("select count(distinct xmin::text) from coordinator.event_chunks where last_seq > 0")
        == 3
    )


async def test_a_run_that_begins_an_epoch_also_numbers_the_events(bench: Bench) -> None:
    await bench.emit("a")
    await bench.relay.execute("select setval('coordinator.epoch_mark', 1)")
    assert await call(bench.relay, RelayRun(duration=timedelta(minutes=1))) == [1, 0]


async def test_a_run_ends_after_its_duration_even_if_events_are_left(bench: Bench) -> None:
    for name in "ab":
        await bench.emit(name)
    assert await call(bench.relay, RelayRun(duration=timedelta(0))) == [2]


@pytest.mark.parametrize("limit", [1, 500])
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


async def test_late_transactions_that_do_not_fit_in_one_step_come_with_the_next(bench: Bench) -> None:
    late = [await bench.begin() for _ in range(4)]
    expected = []
    for n, writer in enumerate(late):
        for m in range(3):
            await bench.emit(f"{n}/{m}", writer)
            expected.append(f"{n}/{m}")
    await bench.emit("first")  # it ends after they began, so that the next step knows them as in progress
    await bench.step()
    for writer in reversed(late):
        await writer.execute("commit")
    await bench.emit("last")
    heads = []
    while (step := await bench.step(5)).moved:
        heads.append(step.head_seq)
    assert heads == [4, 7, 10, 14]
    assert await bench.log() == ["first", *expected, "last"]


async def test_an_open_transaction_in_another_database_holds_up_nobody(bench: Bench, server_url: str) -> None:
    elsewhere = await connect(server_url)
    try:
        await elsewhere.execute("begin")
        await elsewhere.execute("select pg_current_xact_id()")
        for n in range(10):
            await bench.emit(str(n))
            assert (await bench.step()).moved == 1
        await elsewhere.execute("rollback")
        assert await bench.step() == Step(moved=0, head_seq=10, again=False)
    finally:
        await elsewhere.close()


async def test_setting_a_signal_takes_no_more_locks_than_fit_on_the_fast_path(bench: Bench) -> None:
    """Before PostgreSQL 18 a session has 16 places; further locks go through a table that all sessions share."""
    writer = await bench.begin()
    for _ in range(6):  # from then on plans are kept: planning locks all indexes of a table
        await call(writer, signals.Set(project="default", key="k", value=1))
    await writer.execute("commit; begin")
    await call(writer, signals.Set(project="default", key="k", value=1))
    taken = await bench.relay.fetch(
        "select relation::regclass::text as name, fastpath from pg_locks where locktype = 'relation' and pid = $1",
        writer.get_server_pid(),
    )
    assert len(taken) <= 16, sorted(row["name"] for row in taken)
    assert all(row["fastpath"] for row in taken)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_step_in_an_older_snapshot_is_refused(bench: Bench, level: str) -> None:
    one = await bench.open()
    await one.execute(f"begin isolation level {level}")
    with pytest.raises(InvalidArgument) as raised:
        await call(one, RelayStep())
    assert raised.value.code == "ZC105"
    assert raised.value.hint


# --------------------------------------------------------------------------------------------------- partitions


async def jump(bench: Bench, last_id: int) -> None:
    """Let the next event have the id after ``last_id``."""
    await bench.relay.execute("select setval('coordinator.event_ids', $1)", last_id)


async def partitions(bench: Bench) -> list[str]:
    rows = await bench.relay.fetch(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'coordinator.events'::regclass"
    )
    return sorted(row[0].removeprefix("coordinator.") for row in rows)


async def count(bench: Bench, partition: str) -> int:
    return int(await bench.relay.fetchval(f"select count(*) from coordinator.{partition}"))


async def later(bench: Bench) -> None:
    """Move the clock beyond the retention; nothing waits for the audit trails (see test_audit.py)."""
    await bench.relay.execute("update coordinator.audit_cursor set seq = 1000000000")
    await bench.relay.execute("select set_config('coordinator.fake_now', (now() + interval '8 days')::text, false)")


async def two_partitions(bench: Bench) -> None:
    """Number a, b at the end of one partition and c, d at the beginning of the next, a step each for the pairs; and then e."""
    await jump(bench, 999_997)
    for pair in ("ab", "cd", "e"):
        for name in pair:
            await bench.emit(name)
        await until_over(bench.relay)
        await bench.step()


async def test_a_chunk_may_span_two_partitions(bench: Bench) -> None:
    await jump(bench, 999_997)
    for name in "abcd":
        await bench.emit(name)
    assert (await bench.step()).head_seq == 4
    assert [await count(bench, name) for name in ("events_000000", "events_000001")] == [2, 2]
    assert await bench.log() == ["a", "b", "c", "d"]


async def test_a_partition_has_a_comment(bench: Bench) -> None:
    assert (
        await bench.relay.fetchval("select obj_description('coordinator.events_000000'::regclass)")
        == "Events with the ids 0 to 999999, see events."
    )


async def test_partitions_are_created_ahead_and_once(bench: Bench) -> None:
    assert await partitions(bench) == [*(f"events_{n:06}" for n in range(9)), "events_beyond"]
    assert await call(bench.relay, events.Extend(ahead=8)) == 0
    assert "event_extend" not in await bench.relay.fetchval("select coordinator.work_due()")
    await jump(bench, 1_000_000)
    assert "event_extend" in await bench.relay.fetchval("select coordinator.work_due()")
    assert await call(bench.relay, events.Extend()) == 9
    assert "event_extend" not in await bench.relay.fetchval("select coordinator.work_due()")
    assert await bench.relay.fetchval("select coordinator.event_headroom()") == 17_000_000


async def test_without_a_partition_every_change_is_refused_with_a_hint(bench: Bench) -> None:
    await jump(bench, 8_999_999)
    for operation in (
        events.Emit(project="default", type="custom.x"),
        signals.Set(project="default", key="k", value=1),
    ):
        with pytest.raises(LogFull) as raised:
            await call(bench.relay, operation)
        assert "event_extend" in (raised.value.hint or "")
    assert await call(bench.relay, signals.List(project="default")) == []
    assert await call(bench.relay, events.Extend()) > 0
    await bench.emit("a")
    await bench.step()
    assert await bench.log() == ["a"]


async def test_prune_drops_a_whole_old_partition(bench: Bench) -> None:
    await two_partitions(bench)
    first = (await call(bench.relay, events.Since(limit=1)))[0]
    assert await call(bench.relay, events.Prune()) == 0
    await later(bench)
    assert await call(bench.relay, events.Prune()) == 2
    assert "events_000000" not in await partitions(bench)
    assert await call(bench.relay, events.Prune()) == 0
    assert await bench.log() == ["c", "d", "e"]
    (reset, *rest) = await call(bench.relay, events.Since(after=first.cursor))
    assert (reset.type, reset.data["reason"], reset.data["floor"]) == ("reset", "pruned", 2)
    assert [event.key for event in rest] == ["c", "d", "e"]
    await bench.emit("f")
    assert (await bench.step()).head_seq == 6


async def test_a_partition_whose_events_are_partly_young_or_without_a_number_stays(bench: Bench) -> None:
    late = await bench.begin()
    await jump(bench, 999_997)
    await bench.emit("late", late)
    for name in "abc":
        await bench.emit(name)
        await bench.step()
    await later(bench)
    assert await call(bench.relay, events.Prune()) == 0  # late may still write into it
    await late.execute("commit")
    assert await call(bench.relay, events.Prune()) == 0
    await bench.step()
    assert await bench.log() == ["a", "b", "c", "late"]
    await bench.emit("d")  # a step after the late commit, so that the newest snapshot is beyond it
    await until_over(bench.relay)
    await bench.step()
    assert await call(bench.relay, events.Prune()) == 4
    assert await bench.log() == ["d"]


async def test_a_chunk_that_begins_in_a_dropped_partition_is_dropped_with_it(bench: Bench) -> None:
    await jump(bench, 999_998)
    for name in "abc":
        await bench.emit(name)
    await bench.step()
    await bench.emit("d")
    await until_over(bench.relay)
    await bench.step()
    await later(bench)
    assert await call(bench.relay, events.Prune()) == 3
    assert await bench.log() == ["d"]
    assert [event.key for event in await call(bench.relay, events.Since())] == ["d"]


async def test_plans_that_were_made_while_the_log_was_small_read_by_index(bench: Bench) -> None:
    cursor = await bench.relay.fetchval("select coordinator.event_head()")
    read = """select pg_stat_get_xact_tuples_returned('coordinator.events_000000'::regclass)
                   + pg_stat_get_xact_tuples_returned('coordinator.event_chunks'::regclass)"""
    for _ in range(8):  # more than it takes until a plan is kept
        await bench.emit("a")
        async with bench.relay.transaction():
            before = await bench.relay.fetchval(read)
            await bench.step()
            cursor = (await call(bench.relay, events.Since(after=cursor)))[-1].cursor
            assert await bench.relay.fetchval(read) == before


async def test_a_quiet_log_is_pruned_although_its_partition_is_not_full(bench: Bench) -> None:
    await bench.emit("a")
    await bench.step()
    assert await call(bench.relay, events.Prune()) == 0
    await bench.emit("b")
    await bench.step()
    assert await count(bench, "events_000000") == 2  # young: the partition stays
    writer = await bench.begin()
    await bench.emit("c", writer)
    await later(bench)
    assert await call(bench.relay, events.Prune()) == 0  # without waiting for the writer
    await writer.execute("commit")
    assert await call(bench.relay, events.Prune()) == 0  # turns to the next partition
    assert await call(bench.relay, events.Prune()) == 0  # and only once
    for name in "de":
        await bench.emit(name)
        await until_over(bench.relay)
        await bench.step()
    assert [await count(bench, name) for name in ("events_000000", "events_000001")] == [3, 2]
    assert await bench.log() == ["a", "b", "c", "d", "e"]
    assert await call(bench.relay, events.Prune()) == 4  # c, d are one chunk
    assert await bench.log() == ["e"]


async def test_prune_does_not_wait_for_a_reader_or_writer(bench: Bench) -> None:
    await two_partitions(bench)
    await later(bench)
    reader, writer = await bench.begin(), await bench.begin()
    await call(reader, events.Since())
    await bench.emit("f", writer)
    assert await call(bench.relay, events.Prune()) == 0
    await reader.execute("commit")
    assert await call(bench.relay, events.Prune()) == 0
    await writer.execute("commit")
    assert await call(bench.relay, events.Prune()) == 2


async def test_a_reader_whose_snapshot_is_older_than_the_pruning_gets_a_reset_and_no_wrong_number(bench: Bench) -> None:
    await jump(bench, 999_998)
    for name in "abc":  # one chunk of which pruning takes a part
        await bench.emit(name)
    await bench.step()
    first = (await call(bench.relay, events.Since(limit=1)))[0]
    await bench.emit("d")
    await until_over(bench.relay)
    await bench.step()
    reader = await bench.open()
    await reader.execute("begin isolation level repeatable read")
    await reader.fetch("select * from coordinator.projects")
    await later(bench)
    assert await call(bench.relay, events.Prune()) == 3
    page = await call(reader, events.Since(after=first.cursor))
    assert [(event.type, event.seq, event.key) for event in page] == [("reset", 3, None), ("custom.x", 4, "d")]


async def test_a_partition_is_created_while_transactions_that_read_or_wrote_events_are_open(bench: Bench) -> None:
    await bench.emit("a")
    await bench.step()
    reader, writer = await bench.begin(), await bench.begin()
    await call(reader, events.Since())
    await bench.emit("b", writer)
    assert await call(bench.relay, events.Extend(ahead=9)) == 1
    await bench.emit("c", writer)
    await writer.execute("commit")
    await bench.step()
    assert [event.key for event in await call(reader, events.Since())] == ["a", "b", "c"]


@pytest.mark.slow
async def test_partitions_are_created_while_writers_write(bench: Bench) -> None:
    """Neither waits for the other, and no event is lost at the border of two partitions."""
    writers = [await bench.open() for _ in range(3)]
    admin = await bench.open()
    await jump(bench, 999_900)
    done = False

    async def write(n: int) -> None:
        for turn in range(100):
            await bench.emit(f"{n}/{turn}", writers[n])

    async def keep() -> None:
        ahead = 9
        while not done:
            await call(admin, events.Extend(ahead=ahead))
            ahead += 1
            await anyio.sleep(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
        await asyncio.gather(*map(write, range(3)))
        done = True
    await bench.drain()
    assert sorted(await bench.log()) == sorted(f"{n}/{turn}" for n in range(3) for turn in range(100))


async def test_retention_goes_by_the_time_of_numbering_and_not_by_the_producers(bench: Bench) -> None:
    await bench.relay.execute("select set_config('coordinator.fake_now', '2001-01-01', false)")
    await bench.emit("old clock")
    await bench.relay.execute("select set_config('coordinator.fake_now', '', false)")
    await bench.step()
    assert await call(bench.relay, events.Prune()) == 0
    assert await bench.log() == ["old clock"]


# --------------------------------------------------------------------------------------------------- the bell


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
    await bench.relay.execute("select setval('coordinator.epoch_mark', 1)")


async def test_a_restored_database_begins_a_new_epoch_and_loses_nothing(bench: Bench) -> None:
    await call(bench.relay, RelayRecover())
    await bench.emit("a")
    await bench.step()
    old = await call(bench.relay, events.Head())
    await bench.emit("b")
    await bench.relay.execute(
        "update coordinator.events set role = 'old', address = '192.0.2.4', origin = '{}', traceparent = 'x'"
    )
    await pretend_restored(bench)
    assert await call(bench.relay, RelayRecover()) is True
    await bench.emit("c")
    await bench.step()
    where = await bench.relay.fetch(
        f"select key, role, host(address), origin, traceparent from {LOG} order by seq desc limit 2"
    )
    assert tuple(where[1]) == ("b", "old", "192.0.2.4", "{}", "x"), "what is written again comes from where it came"
    assert where[0]["role"] != "old"
    log = await bench.log()
    assert log[0] == "a"
    assert log[-2:] == ["b", "c"]
    assert [event.key for event in await call(bench.relay, events.Since(after=old))] == ["b", "c"]
    assert old.split(".")[0] != (await call(bench.relay, events.Head())).split(".")[0]
    (reset,) = await call(bench.relay, events.Since(after=f"{old.split('.')[0]}.2"))
    assert (reset.type, reset.data["reason"]) == ("reset", "restored")
    assert await call(bench.relay, RelayRecover()) is False


@pytest.mark.parametrize("first_xid", [3, 2**40])
async def test_recovery_numbers_events_of_any_number_whatever_their_transaction_ids(
    bench: Bench, first_xid: int
) -> None:
    await call(bench.relay, RelayRecover())
    await bench.relay.execute(
        "insert into coordinator.events (xid, type, project, key, actor, at, data) "
        "select ($1::bigint + n)::text::xid8, 'custom.x', 'default', n::text, 'a', now(), '{}' from generate_series(1, 1003) n",
        first_xid,
    )
    await pretend_restored(bench)
    assert await call(bench.relay, RelayRecover()) is True
    await bench.drain()
    assert await bench.log() == [str(n) for n in range(1, 1004)]
    await bench.emit("next")
    assert (await bench.step()).head_seq == 1004


async def test_old_events_stay_readable_when_their_transaction_ids_come_again(bench: Bench) -> None:
    """In the new cluster, transaction ids may begin again: the ids of a chunk distinguish its events from new ones."""
    await call(bench.relay, RelayRecover())
    own = int(await bench.relay.fetchval("select pg_current_xact_id()::text"))
    await bench.relay.execute("select setval('coordinator.event_ids', 100)")
    # Numbered by the old cluster, in transactions whose ids this one is about to use.
    await bench.relay.execute(
        "insert into coordinator.events (xid, type, project, key, actor, at, data) "
        "select ($1::bigint + n)::text::xid8, 'custom.x', 'default', 'old' || n, 'a', now(), '{}' from generate_series(1, 40) n",
        own,
    )
    await bench.relay.execute(
        "insert into coordinator.event_chunks "
        "select 1, 40, array_agg(xid order by xid), min(id), max(id), false, '900000:900000:', 100, 100, '899999', now() from coordinator.events"
    )
    await pretend_restored(bench)
    assert await call(bench.relay, RelayRecover()) is True
    for n in range(60):
        await bench.emit(f"new{n}")
        if n % 7 == 0:
            await bench.drain()
    await bench.drain()
    assert await bench.log() == [*(f"old{n}" for n in range(1, 41)), *(f"new{n}" for n in range(60))]


# --------------------------------------------------------------------------------------------------- whole transactions


@pytest.mark.parametrize("sizes", [[3, 1, 2], [7], [5, 5], [1, 12, 1], [6, 6, 6]])
async def test_a_step_ends_between_transactions_and_takes_one_that_exceeds_it_whole(
    bench: Bench, sizes: list[int]
) -> None:
    expected = []
    for n, size in enumerate(sizes):
        writer = await bench.begin()
        for m in range(size):
            await bench.emit(f"{n}/{m}", writer)
            expected.append(f"{n}/{m}")
        await writer.execute("commit")
    ends = list(accumulate(sizes))
    heads = []
    while True:
        step = await bench.step(5)
        heads.append(step.head_seq)
        if not step.again:
            break
    assert set(heads) <= set(ends), "the head lies within a transaction"
    assert await bench.log() == expected
    assert await bench.relay.fetchval("select max(last_seq - first_seq + 1) from coordinator.event_chunks") <= 5


async def test_a_huge_transaction_is_numbered_in_one_step(bench: Bench) -> None:
    await bench.emit("before")
    await bench.relay.execute(
        "select count(coordinator.event_emit('default', 'custom.x', n::text)) from generate_series(1, 1500) n"
    )
    await bench.emit("after")
    heads = [(await bench.step()).head_seq for _ in range(3)]
    assert heads == [1, 1501, 1502]
    log = await bench.log()
    assert log == ["before", *(str(n) for n in range(1, 1501)), "after"]


# --------------------------------------------------------------------------------------------------- notifications


async def told(bench: Bench, payloads: str) -> list[tuple[str, str]]:
    """Number two events with these payloads; return what was notified."""
    heard: list[tuple[str, str]] = []
    await bench.relay.execute("select coordinator.event_configure($1)", payloads)
    await bench.step()
    listener = await bench.open()
    for channel in ("coordinator", "coordinator.default.custom"):
        await listener.add_listener(channel, lambda *got: heard.append((got[2], got[3])))
    await bench.emit("a")
    await bench.emit("b")
    await bench.step()
    with anyio.fail_after(DEADLINE_S):
        while not any(channel == "coordinator" for channel, _ in heard):
            await listener.execute("select 1")
    return heard


async def test_notify_carries_events_pointers_or_the_head_alone(bench: Bench) -> None:
    full = await told(bench, "full")
    assert [channel for channel, _ in full] == ["coordinator.default.custom"] * 2 + ["coordinator"]
    page = (await call(bench.relay, events.Since()))[-2:]
    assert [msgspec.json.decode(payload, type=Event) for _, payload in full[:2]] == page
    pointers = await told(bench, "pointer")
    assert [json.loads(payload)["pointer"] for _, payload in pointers[:2]] == [True, True]
    head = await told(bench, "head")
    assert head == [("coordinator", await call(bench.relay, events.Head()))]


class ChannelReader:
    """Takes the events of one channel from its notifications, by the rule in docs/events.md."""

    def __init__(self, reads: asyncpg.Connection, project: str) -> None:
        self._reads = reads
        self._project = project
        self.position = 0
        self.taken: list[int] = []
        self.reads = 0

    async def take(self, payload: str) -> None:
        event = json.loads(payload)
        if event["previous"] > self.position:
            await self.read_log()
        if event["seq"] > self.position:
            self.taken.append(event["seq"])
            self.position = event["seq"]

    async def read_log(self) -> None:
        self.reads += 1
        after = f"{(await call(self._reads, events.Head())).partition('.')[0]}.{self.position}"
        for event in await call(
            self._reads, events.Since(after=after, project=self._project, topics=["custom.*"], bookmarks=True)
        ):
            self.position = event.seq
            if event.type != "bookmark":
                self.taken.append(event.seq)


async def until_heard(listener: asyncpg.Connection, heard: list[tuple[str, str]], head: str) -> None:
    with anyio.fail_after(DEADLINE_S):
        while ("coordinator", head) not in heard:
            await listener.execute("select 1")


async def listening(bench: Bench, *projects: str) -> tuple[asyncpg.Connection, list[tuple[str, str]]]:
    heard: list[tuple[str, str]] = []
    listener = await bench.open()
    for channel in ("coordinator", *(f"coordinator.{project}.custom" for project in projects)):
        await listener.add_listener(channel, lambda *got: heard.append((got[2], got[3])))
    return listener, heard


async def previous(bench: Bench, heard: list[tuple[str, str]], listener: asyncpg.Connection) -> list[tuple[int, int]]:
    """Return seq and previous of what a step notified."""
    heard.clear()
    await bench.step()
    await until_heard(listener, heard, await call(bench.relay, events.Head()))
    told = [json.loads(payload) for channel, payload in heard if channel != "coordinator"]
    return [(event["seq"], event["previous"]) for event in told]


@pytest.mark.parametrize("payloads", ["full", "pointer"])
async def test_a_notification_names_the_one_before_it_on_its_channel(bench: Bench, payloads: str) -> None:
    await bench.relay.execute("select coordinator.event_configure($1)", payloads)
    await bench.relay.execute("select coordinator.project_create('other')")
    head = (await bench.step()).head_seq
    bench.relay = await bench.open()  # a new session, which remembers nothing
    listener, heard = await listening(bench, "default", "other")
    for project in ("default", "other", "default"):
        await call(bench.relay, events.Emit(project=project, type="custom.x"))
    await signal(bench)
    first, second, third = head + 1, head + 2, head + 3
    assert await previous(bench, heard, listener) == [(first, head), (second, head), (third, first)]
    for project in ("other", "default"):
        await call(bench.relay, events.Emit(project=project, type="custom.x"))
    assert await previous(bench, heard, listener) == [(head + 5, second), (head + 6, third)]


async def signal(bench: Bench) -> None:
    await call(bench.relay, signals.Set(project="default", key="k", value=1))


async def test_what_a_relay_does_not_know_it_says_is_later_than_it_may_be(bench: Bench) -> None:
    listener, heard = await listening(bench, "default")
    await bench.emit("1")
    assert await previous(bench, heard, listener) == [(1, 0)]
    # Another relay's step, which this one's session does not know of.
    first, bench.relay = bench.relay, await bench.open()
    await signal(bench)
    assert await previous(bench, heard, listener) == []
    await bench.emit("3")
    assert await previous(bench, heard, listener) == [(3, 1)]  # what it does not know of is before its first step
    bench.relay = first
    await bench.emit("4")
    assert await previous(bench, heard, listener) == [(4, 3)]
    # A step that is rolled back has sent nothing.
    await bench.emit("5")
    await bench.relay.execute("begin")
    await bench.step()
    await bench.relay.execute("rollback")
    assert await previous(bench, heard, listener) == [(5, 4)]
    # What was not sent is lost.
    await bench.relay.execute("select coordinator.event_configure('head')")
    await bench.emit("7")
    assert await previous(bench, heard, listener) == []
    await bench.relay.execute("select coordinator.event_configure('full')")
    await bench.emit("9")
    assert await previous(bench, heard, listener) == [(9, 7)]
    # A pooler that resets the session, or whoever does.
    await bench.relay.execute("reset all")
    await bench.emit("10")
    assert await previous(bench, heard, listener) == [(10, 9)]


async def test_channels_that_share_a_place_in_the_memory_never_hide_a_lost_notification(bench: Bench) -> None:
    twin = await bench.relay.fetchval(
        "select 'p' || n from generate_series(1, 200000) n where (hashtext('coordinator.p' || n || '.custom')"
        " # hashtext('coordinator.default.custom')) & 16383 = 0 limit 1"
    )
    await bench.relay.execute("select coordinator.project_create($1)", twin)
    await bench.step()
    listener, heard = await listening(bench, "default", twin)
    for project in ("default", twin, "default"):
        await call(bench.relay, events.Emit(project=project, type="custom.x"))
    assert await previous(bench, heard, listener) == [(2, 0), (3, 0), (4, 2)]
    for project, told in ((twin, (5, 4)), ("default", (6, 5))):
        await call(bench.relay, events.Emit(project=project, type="custom.x"))
        assert await previous(bench, heard, listener) == [told]


async def test_a_listener_that_misses_notifications_misses_no_event(bench: Bench, seed: int) -> None:
    """Two relays take turns, some steps notify nobody, and each reader loses every third notification."""
    random = Random(seed)
    projects = ["default", *(f"p{n}" for n in range(3))]
    for project in projects[1:]:
        await bench.relay.execute("select coordinator.project_create($1)", project)
    await bench.step()
    listener, heard = await listening(bench, *projects)
    relays = [bench.relay, await bench.open()]
    readers = {f"coordinator.{project}.custom": ChannelReader(bench.relay, project) for project in projects}
    for _ in range(60):
        for _ in range(random.randint(1, 6)):
            await call(bench.relay, events.Emit(project=random.choice(projects), type="custom.x"))
        bench.relay = random.choice([*relays, relays[0], relays[0]])
        # Only in this round: if no step notified for long, a reader could not miss anything.
        payloads = "head" if random.random() < 0.1 else "full"
        await bench.relay.execute("select coordinator.event_configure($1)", payloads)
        heard.clear()
        await bench.step(random.randint(1, 500))
        await until_heard(listener, heard, await call(bench.relay, events.Head()))
        for channel, payload in heard:
            if channel in readers and random.random() < 2 / 3:
                await readers[channel].take(payload)
    await bench.drain()
    for channel, reader in readers.items():
        before = reader.reads
        await reader.read_log()  # the last ones may be lost
        rows = await bench.relay.fetch(
            f"select seq from {LOG} where project = $1 and type like 'custom.%' order by seq", channel.split(".")[1]
        )
        assert reader.taken == [row["seq"] for row in rows]
        assert 0 < before < len(rows), "it read the log for each event, or never"


@pytest.mark.slow
async def test_no_step_fills_the_notification_queue(bench: Bench) -> None:
    """Events of 8 kB, 80 MB together: the head alone is notified for what exceeds 16 MB."""
    await bench.relay.execute(
        "insert into coordinator.events (type, project, actor, at, data)"
        " select 'custom.x', 'default', 'a', now(), jsonb_build_object('v', repeat(n % 10 || 'y', 3800)) from generate_series(1, 10000) n"
    )
    listener = await bench.begin()
    await listener.execute('listen "coordinator.default.custom"')
    await listener.execute("commit")
    await listener.execute("begin")  # it reads nothing while it is in a transaction
    assert (await bench.step()).head_seq == 10_000
    used = await bench.relay.fetchval(
        "select pg_notification_queue_usage() * 8192 * coalesce(current_setting('max_notify_queue_pages', true)::bigint, 1048576)"
    )
    assert used < 20_000_000


async def test_an_event_whose_text_postgresql_cannot_make_holds_up_nobody(bench: Bench) -> None:
    """These 9,000 numbers take more than 1 GB as text, which is more than a value may have."""
    await bench.relay.execute(
        "insert into coordinator.events (type, project, key, actor, at, data)"
        " select 'custom.x', 'default', 'huge', 'a', now(), jsonb_build_object('v', (select jsonb_agg('1e131071'::jsonb) from generate_series(1, 9000)))"
    )
    await bench.emit("next")
    await bench.drain()
    assert await bench.log() == ["huge", "next"]
    page = await call(bench.relay, events.Since())
    assert page[0].data == {"unreadable": "json_number"}
