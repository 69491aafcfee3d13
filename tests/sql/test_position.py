"""Positions: what includes a transaction, and when."""

from __future__ import annotations

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.db.connection import mapped_errors
from coordinator.errors import Conflict, InvalidArgument
from coordinator.operations import events
from coordinator.operations.positions import Included
from coordinator.operations.work import RelayStep
from tests.conftest import Open

EMIT = "select coordinator.event_emit('default', 'custom.x', $1)"
NOW = "select coordinator.position_now()"


@pytest.fixture
async def sessions(session: Open) -> list[asyncpg.Connection]:
    return [await session() for _ in range(3)]


async def included(connection: asyncpg.Connection, position: str) -> tuple[bool, bool]:
    """Return whether the state includes a position, and whether the log does."""
    state, log = [await call(connection, Included(position=position, in_log=in_log)) for in_log in (False, True)]
    return state, log


async def test_a_transaction_that_has_changed_nothing_has_no_position(sessions: list[asyncpg.Connection]) -> None:
    reader, *_ = sessions
    async with reader.transaction():
        await reader.fetch("select * from coordinator.signals_live")
        assert await reader.fetchval(NOW) is None


async def test_state_includes_a_transaction_once_it_commits_and_the_log_once_it_has_numbers(
    sessions: list[asyncpg.Connection],
) -> None:
    writer, reader, late = sessions
    await writer.execute("begin")
    await writer.execute(EMIT, "a")
    position = await writer.fetchval(NOW)
    assert await writer.fetchval(NOW) == position
    assert await included(reader, position) == (False, False)
    await late.execute("begin")
    await late.execute(EMIT, "late")
    open_position = await late.fetchval(NOW)
    await writer.execute("commit")
    assert await included(reader, position) == (True, False)
    await call(reader, RelayStep())
    assert await included(reader, position) == (True, True)
    # One that is open is not included, nor is it included by a step that its commit follows.
    assert await included(reader, open_position) == (False, False)
    await late.execute("commit")
    assert await included(reader, f"{position},{open_position}") == (True, False)
    await call(reader, RelayStep())
    assert await included(reader, f"{position},{open_position}") == (True, True)


async def test_a_transaction_without_events_waits_for_no_step(sessions: list[asyncpg.Connection]) -> None:
    writer, reader, _ = sessions
    await writer.execute("create table own ()")
    await writer.execute("begin")
    await writer.execute("insert into own default values")
    position = await writer.fetchval(NOW)
    assert await included(reader, position) == (False, False)
    await writer.execute("commit")
    assert await included(reader, position) == (True, True)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_a_step_of_few_events_includes_what_it_takes_and_no_more(
    sessions: list[asyncpg.Connection], limit: int
) -> None:
    """A position is included exactly from the step on that numbers the transaction's last event."""
    writer, reader, _ = sessions
    positions = {}
    for name in ("a", "b", "c", "d"):
        async with writer.transaction():
            await writer.execute(EMIT, name)
            positions[name] = await writer.fetchval(NOW)
    while True:
        numbered = {event.key for event in await call(reader, events.Since())}
        assert {name for name, position in positions.items() if (await included(reader, position))[1]} == numbered
        if len(numbered) == len(positions):
            return
        await call(reader, RelayStep(limit=limit))


async def test_a_cursor_is_a_position_too(sessions: list[asyncpg.Connection]) -> None:
    reader, *_ = sessions
    epoch, _, seq = (await call(reader, events.Head())).partition(".")
    assert await included(reader, f"{epoch}.{seq}") == (True, True)
    following = f"{epoch}.{int(seq) + 1}"
    assert await included(reader, following) == (False, False)
    await reader.execute(EMIT, "a")
    await call(reader, RelayStep())
    assert await included(reader, following) == (True, True)


async def test_a_position_that_no_read_will_include_is_an_error(sessions: list[asyncpg.Connection]) -> None:
    writer, reader, _ = sessions
    await writer.execute("begin")
    await writer.execute(EMIT, "a")
    position = await writer.fetchval(NOW)
    await writer.execute("rollback")
    with pytest.raises(Conflict, match="rolled back"):
        await included(reader, position)
    ahead = position.partition(".")[0] + ".x999999999999999999"  # a standby may not have it yet
    assert await included(reader, ahead) == (False, False)


async def test_a_position_of_an_earlier_epoch_is_included_if_the_log_shares_its_events(
    sessions: list[asyncpg.Connection],
) -> None:
    writer, reader, _ = sessions
    positions = []
    for name in ("numbered", "waiting"):
        async with writer.transaction():
            await writer.execute(EMIT, name)
            positions.append(await writer.fetchval(NOW))
        if name == "numbered":
            await call(reader, RelayStep())
    numbered, waiting = positions
    epoch, _, seq = (await call(reader, events.Head())).partition(".")
    await reader.execute("select setval('coordinator.epoch_mark', 1)")  # as after a restart
    assert await included(reader, numbered) == (False, False), "the relay has not begun the epoch"
    async with writer.transaction():
        await writer.execute(EMIT, "new")
        present = await writer.fetchval(NOW)
    assert present.partition(".")[0] != epoch
    assert await included(reader, present) == (True, False)
    while (await call(reader, RelayStep())).again:
        pass
    assert await included(reader, f"{present},{numbered},{epoch}.{seq}") == (True, True)
    for lost in (waiting, f"{epoch}.{int(seq) + 1}", "elsewhere.7"):
        with pytest.raises(Conflict, match="earlier epoch"):
            await included(reader, lost)


@pytest.mark.parametrize(
    "position", ["", ",", "x", "e.", "e.x", "e.-1", "e.x1 ", "E.x1", "e.x1,", "e.x" + "9" * 20, "now"]
)
async def test_a_malformed_position_is_refused(tx: asyncpg.Connection, position: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await call(getattr(tx, "connection", tx), Included(position=position))
    assert refused.value.code == "ZC103"


async def test_a_snapshot_that_may_be_older_is_not_judged(sessions: list[asyncpg.Connection]) -> None:
    reader, *_ = sessions
    with pytest.raises(InvalidArgument, match="read committed"), mapped_errors():
        async with reader.transaction(isolation="repeatable_read"):
            await reader.fetch("select coordinator.position_included('e.x1')")


async def test_neither_takes_a_cursor_for_a_position(sessions: list[asyncpg.Connection]) -> None:
    writer, *_ = sessions
    async with writer.transaction():
        await writer.execute(EMIT, "a")
        position = await writer.fetchval(NOW)
    with pytest.raises(InvalidArgument):
        await call(writer, events.Since(after=position))
