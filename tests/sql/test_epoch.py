"""Epochs: who begins one, and what everybody else sees of it. Real servers that restart and fail over: tests/faults/test_epochs.py."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.errors import ServerBehind
from coordinator.model.event import RESET, epoch_order
from coordinator.operations import events
from coordinator.operations.work import RelayRecover, RelayStep
from tests.conftest import Open
from tests.waiting import until_blocked, until_over, until_true

EPOCH = "select coordinator.event_epoch()"
SET = "select version from coordinator.signal_set('default', $1, '1')"
FORGET = "select setval('coordinator.epoch_mark', 1)"  # as after a start of the server


@pytest.fixture
async def sessions(session: Open) -> list[asyncpg.Connection]:
    return [await session() for _ in range(3)]


async def begin(connection: asyncpg.Connection) -> str:
    """Begin another epoch of the log, with one event; return its cursor."""
    await connection.execute(FORGET)
    await connection.execute("select coordinator.event_emit('default', 'custom.x', 'k')")
    await until_over(connection)
    while (await call(connection, RelayStep())).again:
        pass
    return await call(connection, events.Head())


async def test_callers_who_race_begin_one_epoch(sessions: list[asyncpg.Connection]) -> None:
    watcher, *racers = sessions
    before = await watcher.fetchval(SET, "before")
    await watcher.execute(FORGET)
    await watcher.execute("begin; lock table coordinator.epochs in share row exclusive mode")
    racing = [asyncio.create_task(racer.fetchval(SET, f"k{n}")) for n, racer in enumerate(racers)]
    for racer in racers:
        await until_blocked(watcher, racer)
    await watcher.execute("commit")
    versions = [await each for each in racing]
    assert before < min(versions)
    assert abs(versions[0] - versions[1]) == 1, "the second would have raised the sequence again"
    assert len({await session.fetchval(EPOCH) for session in sessions}) == 1


async def test_the_wait_for_who_begins_an_epoch_is_bounded(
    bounded_waits: None, sessions: list[asyncpg.Connection]
) -> None:
    watcher, caller, _ = sessions
    await watcher.execute(FORGET)
    await watcher.execute("begin; lock table coordinator.epochs in share row exclusive mode")
    with pytest.raises(asyncpg.LockNotAvailableError):
        await caller.fetchval(SET, "k")
    await watcher.execute("rollback")
    assert await caller.fetchval(SET, "k") > 10**12


async def test_a_writer_that_begins_an_epoch_and_a_relay_that_recovers_do_not_wait_for_each_other(
    sessions: list[asyncpg.Connection],
) -> None:
    other, writer, relay = sessions
    await other.execute(f"{FORGET}; update coordinator.relay set identity = 'elsewhere'")
    await other.execute(
        "begin; insert into coordinator.epochs (id, last_seq, ended_at) values ('00000000', 0, clock_timestamp())"
    )
    await writer.execute("begin; select coordinator.event_emit('default', 'custom.x', 'k')")
    recovers = asyncio.create_task(call(relay, RelayRecover()))
    await until_blocked(other, relay)
    begins = asyncio.create_task(writer.fetchval("select coordinator.epoch_stamp()"))
    await until_blocked(other, writer)
    await other.execute("rollback")
    await begins
    await writer.execute("commit")
    assert await recovers


ACQUIRE = (
    "select {} from coordinator.lock_acquire('default', '{}', (select id from coordinator.agents where name = '{}'){})"
)
HAND_OFF = """
with released as materialized (
  select coordinator.lock_release('default', '{a.py}', agent_id, array[fencing_token]) from coordinator.locks)
select last_value from coordinator.lock_tokens where (select count(*) from released) = 1"""


@pytest.mark.parametrize(
    "issue",
    [
        SET.replace("$1", "'new'"),
        SET.replace("$1", "'old'"),
        "select version from coordinator.signal_set('default', 'new', '1', p_expect => 0)",
        "select version from coordinator.signal_set('default', 'old', '1', p_expect => (select version from coordinator.signals))",
        ACQUIRE.format("fencing_token", "{b.py}", "ann", ""),
        ACQUIRE.format("fencing_token", "{b.py,c.py}", "ann", ""),
        ACQUIRE.format("ticket", "{a.py,b.py}", "bob", ", p_wait => '1 minute'"),
        HAND_OFF,
    ],
)
async def test_every_first_number_of_an_epoch_is_raised(sessions: list[asyncpg.Connection], issue: str) -> None:
    one, *_ = sessions
    for name in ("ann", "bob", "eve"):
        await one.execute("select coordinator.agent_register('default', $1, p_ttl => '1 hour')", name)
    await one.execute("select coordinator.epoch_begin()")
    await one.execute(SET.replace("$1", "'old'"))
    await one.execute(ACQUIRE.format("1", "{a.py}", "ann", ""))
    if issue == HAND_OFF:
        await one.execute(ACQUIRE.format("1", "{a.py}", "eve", ", p_wait => '1 minute'"))
    for sequence in ("lock_tokens", "lock_tickets", "signal_versions"):
        await one.execute(f"select setval('coordinator.{sequence}', 1000)")
    await one.execute(FORGET)
    assert await one.fetchval(issue) > 10**12


@pytest.mark.parametrize("end", ["rollback", "commit", "terminate"])
async def test_nobody_waits_for_the_transaction_that_began_an_epoch_and_its_end_undoes_nothing(
    sessions: list[asyncpg.Connection], end: str
) -> None:
    one, two, three = sessions
    before = await two.fetchval(SET, "before")
    await two.execute(FORGET)
    await one.execute("begin")
    first = await one.fetchval(SET, "k")
    second = await two.fetchval(SET, "other")
    await two.execute("set statement_timeout = '20s'")
    assert await call(two, RelayRecover()) is True
    epoch = await two.fetchval(EPOCH)
    if end == "terminate":
        one.terminate()
    else:
        await one.execute(end)
    third = await three.fetchval(SET, "third")
    assert before < first < second < third
    assert await three.fetchval(EPOCH) == epoch


async def test_a_caller_that_dies_before_the_epoch_has_begun_leaves_no_trace_of_it(
    sessions: list[asyncpg.Connection],
) -> None:
    one, two, _ = sessions
    before = await two.fetchval(SET, "before")
    await two.execute(FORGET)
    # What it had done: the numbers are raised, and the epoch is not there.
    await one.execute("select setval('coordinator.signal_versions', last_value + 10) from coordinator.signal_versions")
    after = await two.fetchval(SET, "after")
    assert after > before + 10
    assert await two.fetchval("select coordinator.epoch_holds()")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_an_old_snapshot_hides_no_epoch(sessions: list[asyncpg.Connection], isolation: str) -> None:
    old, other, _ = sessions
    await old.execute(f"begin isolation level {isolation}")
    former = await old.fetchval("select epoch from coordinator.relay")
    head = await begin(other)
    newest = await other.fetchval(SET, "other")
    assert await old.fetchval("select epoch from coordinator.relay") == former
    assert await old.fetchval(EPOCH) == head.split(".")[0]
    assert await old.fetchval(SET, "mine") > newest
    await old.execute("commit")


async def test_who_cannot_write_begins_nothing(sessions: list[asyncpg.Connection]) -> None:
    reader, other, _ = sessions
    head = await call(other, events.Head())
    await other.execute(FORGET)
    await reader.execute("begin read only")
    assert await reader.fetchval(EPOCH) == head.split(".")[0]
    assert await call(reader, events.Since()) == []
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await reader.fetchval(SET, "k")
    await reader.execute("rollback")
    assert await other.fetchval("select coordinator.epoch_holds()") is False


async def test_nobody_is_reaped_shortly_after_an_epoch_began(sessions: list[asyncpg.Connection]) -> None:
    """A standby that is promoted may have been started long ago."""
    one, *_ = sessions
    settled = "select coordinator.server_settled()"
    await until_true(one, settled)
    await one.execute(FORGET)
    assert not await one.fetchval(settled), "the relay has not begun an epoch"
    assert await call(one, RelayRecover())
    assert not await one.fetchval(settled)
    await one.execute("update coordinator.epochs set ended_at = ended_at - interval '11 seconds'")
    assert await one.fetchval(settled)


async def test_a_number_that_was_never_issued_and_a_clock_that_is_behind_do_no_harm(
    sessions: list[asyncpg.Connection],
) -> None:
    one, *_ = sessions
    await one.execute("select setval('coordinator.signal_versions', $1)", 2**52)  # from a clock far ahead
    await one.execute("alter sequence coordinator.lock_tickets restart")
    await one.execute(FORGET)
    assert await one.fetchval(SET, "k") == 2**52 + 2
    assert await one.fetchval("select last_value from coordinator.lock_tickets") > 10**12


async def test_a_cursor_of_each_past_epoch_continues_up_to_its_end(sessions: list[asyncpg.Connection]) -> None:
    one, *_ = sessions
    heads = [await begin(one) for _ in range(4)]
    assert len({head.split(".")[0] for head in heads}) == 4
    for head in heads:
        epoch, seq = head.split(".")
        page = await call(one, events.Since(after=head, bookmarks=True))
        assert [event.cursor for event in page if event.type != "bookmark"] == [
            f"{heads[-1].split('.')[0]}.{n}" for n in range(int(seq) + 1, 5)
        ]
        beyond = events.Since(after=f"{epoch}.{int(seq) + 1}", bookmarks=True)
        if head == heads[-1]:
            with pytest.raises(ServerBehind):  # nothing of this epoch can be lost
                await call(one, beyond)
        else:
            assert [(event.type, event.cursor) for event in await call(one, beyond)] == [(RESET, heads[-1])], head
    assert await call(one, events.Since(after=heads[-1], bookmarks=True)) == []
    await one.execute(FORGET)
    assert await call(one, RelayRecover()) is True
    assert await call(one, events.Since(after=heads[-1])) == []
    (mark,) = await call(one, events.Since(after=heads[-1], bookmarks=True))
    assert (mark.type, mark.cursor) == ("bookmark", await call(one, events.Head()))
    assert mark.cursor.split(".")[0] not in {head.split(".")[0] for head in heads}


async def test_an_epoch_is_forgotten_when_all_its_events_are_pruned(sessions: list[asyncpg.Connection]) -> None:
    one, *_ = sessions
    old = await begin(one)
    await one.execute("select setval('coordinator.event_ids', 999999)")
    middle = await begin(one)
    await one.execute("select setval('coordinator.event_ids', 1999999)")
    last = await begin(one)
    await one.execute("select coordinator.event_emit('default', 'custom.x', 'k')")
    await until_over(one)
    assert (await call(one, RelayStep())).moved == 1  # a step for which all that went before is over
    await one.execute(
        "update coordinator.event_chunks set stamped_at = stamped_at - interval '1 year' where last_seq <= 2"
    )
    while await call(one, events.Prune()):
        pass
    floor = await one.fetchval("select last_value from coordinator.event_floor")
    assert floor == 2
    assert [row["last_seq"] for row in await one.fetch("select last_seq from coordinator.epochs order by number")] == [
        2
    ]
    assert [event.type for event in await call(one, events.Since(after=old))][:1] == [RESET]
    page = await call(one, events.Since(after=middle))
    assert [event.cursor for event in page] == [last, await call(one, events.Head())]


async def test_the_first_step_of_an_epoch_begins_it_and_the_next_one_numbers_events(
    sessions: list[asyncpg.Connection],
) -> None:
    one, *_ = sessions
    await one.execute("select coordinator.event_emit('default', 'custom.x', 'k')")
    await one.execute(FORGET)
    step = await call(one, RelayStep())
    assert (step.moved, step.head_seq, step.again) == (0, 0, True)
    assert (await call(one, RelayStep())).moved == 1


async def test_before_the_relay_has_begun_the_epoch_a_cursor_that_a_crash_has_lost_gets_a_reset(
    sessions: list[asyncpg.Connection],
) -> None:
    one, *_ = sessions
    epoch, _, seq = (await begin(one)).partition(".")
    lost = events.Since(after=f"{epoch}.{int(seq) + 1}")
    with pytest.raises(ServerBehind):
        await call(one, lost)
    await one.execute(FORGET)
    later = f"{int(epoch, 16) + 2**20:x}"  # begun by the history that is lost; this run of the server is later
    for after in (lost, events.Since(after=f"{later}.1")):
        (reset,) = await call(one, after)
        assert (reset.type, reset.seq) == (RESET, int(seq))


async def test_epochs_are_in_the_order_in_which_they_began_whatever_the_clock_says(
    sessions: list[asyncpg.Connection],
) -> None:
    one, *_ = sessions
    order = "select coordinator.epoch_order($1)"
    begun = [(await begin(one)).partition(".")[0] for _ in range(3)]
    await one.execute("select setval('coordinator.epoch_begun', coordinator.epoch_place(clock_timestamp() + '1 year'))")
    begun += [(await begin(one)).partition(".")[0] for _ in range(3)]
    orders = [await one.fetchval(order, epoch) for epoch in begun]
    assert orders == sorted(set(orders))
    assert orders == [epoch_order(epoch) for epoch in begun]
    assert [await one.fetchval("select coordinator.epoch_later($1)", epoch) for epoch in begun] == [False] * 6
    for unknown in ("", "3f9c01aa", "zzzzzzzzzz", "f" * 17, None):
        assert not await one.fetchval("select coordinator.epoch_later($1)", unknown)
