from __future__ import annotations

import random
from typing import TypeVar

import anyio
import pytest
from structlog.testing import capture_logs

from coordinator.backoff import Backoff
from coordinator.db.database import Database
from coordinator.db.session import SessionWake
from coordinator.errors import DatabaseUnavailable, InvalidArgument
from coordinator.model.event import RESET
from coordinator.model.operation import Operation
from coordinator.operations import log_reader
from coordinator.operations.events import Emit, Head, Since
from coordinator.operations.log_reader import LogReader
from coordinator.operations.work import RelayStep
from tests.waiting import DEADLINE_S

R = TypeVar("R")


class Unsteady:
    """The database over a connection that fails, or is slow, on demand."""

    def __init__(self, database: Database) -> None:
        self.asked: list[Operation[object]] = []
        self.failures: list[Exception] = []
        self.delay_s = 0.0
        self.random = random.Random()
        self._database = database

    async def run(self, operation: Operation[R]) -> R:
        self.asked.append(operation)
        if self.failures:
            raise self.failures.pop()
        await anyio.sleep(self.delay_s * self.random.random())
        result = await self._database.run(operation)
        await anyio.sleep(self.delay_s * self.random.random())
        return result


@pytest.fixture
def server(db: Database) -> Unsteady:
    return Unsteady(db)


async def emit(db: Database, *names: str, type: str = "custom.x") -> None:
    for name in names:
        await db.run(Emit(project="default", type=type, key=name))
    await db.run(RelayStep())


async def test_it_hands_out_every_event_once_in_pages_and_then_says_that_it_is_at_the_end(
    db: Database, server: Unsteady
) -> None:
    await emit(db, "a", "b", "c")
    reader = LogReader(limit=2)
    pages = [[event.key for event in await reader.read(server)] for _ in range(2)]
    assert pages == [["a", "b"], ["c"]]
    assert not reader.at_end
    assert await reader.read(server) == []
    assert reader.at_end
    assert reader.after == await db.run(Head())
    await emit(db, "d")
    assert [event.key for event in await reader.read(server)] == ["d"]
    assert not reader.at_end


async def test_what_does_not_match_moves_the_position_and_is_not_handed_out(db: Database, server: Unsteady) -> None:
    reader = LogReader(topics=["custom.wanted"])
    await emit(db, "a", "b")
    assert await reader.read(server) == []
    assert (reader.at_end, reader.after) == (False, await db.run(Head()))


async def test_now_is_when_it_reads_first(db: Database, server: Unsteady) -> None:
    await emit(db, "before")
    reader = LogReader("now")
    assert await reader.read(server) == []
    await emit(db, "after")
    server.failures = [DatabaseUnavailable("away")]
    with pytest.raises(DatabaseUnavailable):
        await reader.read(server)
    assert [event.key for event in await reader.read(server)] == ["after"]


async def test_a_hint_or_the_poll_ends_the_wait_for_more(
    db: Database, server: Unsteady, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, wake = LogReader(), SessionWake()
    await emit(db, "a")
    assert [event.key for event in await reader.next(server, wake)] == ["a"]
    keys: list[str | None] = []

    async def follow() -> None:
        keys.extend([event.key for event in await reader.next(server, wake)])

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            while not reader.at_end:
                await anyio.sleep(0.001)
            await emit(db, "b")
            wake.set()
        monkeypatch.setattr(log_reader, "POLL_S", 0.01)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await emit(db, "c")  # and the hint is lost
    assert keys == ["b", "c"]


async def test_it_waits_out_what_it_is_to_outlast_and_raises_the_rest(db: Database, server: Unsteady) -> None:
    await emit(db, "a")
    patient = LogReader(outlasts=(DatabaseUnavailable,))
    server.failures = [DatabaseUnavailable("away"), DatabaseUnavailable("away")]
    assert [event.key for event in await patient.read(server)] == ["a"]
    assert len(server.asked) == 3
    with pytest.raises(InvalidArgument):
        await LogReader("nonsense", outlasts=(DatabaseUnavailable,)).read(server)


async def test_a_hint_ends_the_back_off(db: Database, server: Unsteady, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restored connection gives a hint, so a long outage does not delay later events."""
    monkeypatch.setattr(log_reader, "Backoff", lambda: Backoff(DEADLINE_S * 10))
    await emit(db, "a")
    reader, wake = LogReader(outlasts=(DatabaseUnavailable,)), SessionWake()
    server.failures = [DatabaseUnavailable("away")]
    wake.set()
    with anyio.fail_after(DEADLINE_S):
        assert [event.key for event in await reader.next(server, wake)] == ["a"]


async def test_where_events_are_gone_it_returns_a_reset_and_continues(db: Database, server: Unsteady) -> None:
    await emit(db, "a")
    reader = LogReader("elsewhere.7")
    assert [(event.type, event.data["reason"]) for event in await reader.read(server)] == [(RESET, "restored")]
    await emit(db, "b")
    assert [event.key for event in await reader.read(server)] == ["b"]


async def test_cancelled_at_any_moment_and_used_again_it_loses_and_repeats_nothing(
    db: Database, server: Unsteady, seed: int
) -> None:
    server.random.seed(seed)
    server.delay_s = 0.01
    names = [f"n{number}" for number in range(60)]
    reader, wake, seen = LogReader(limit=7), SessionWake(), list[str | None]()
    longest_s = 0.04

    async def write() -> None:
        for name in names:
            await emit(db, name)
            wake.set()

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            while len(seen) < len(names):
                longest_s *= 1.1  # a busy machine may need longer for a read
                with anyio.move_on_after(server.random.random() * longest_s):
                    seen += [event.key for event in await reader.next(server, wake)]
                    longest_s = 0.04
    assert seen == names
    assert any(isinstance(operation, Since) for operation in server.asked)


async def test_an_outage_is_one_line_of_the_log_and_its_end_another(db: Database, server: Unsteady) -> None:
    await emit(db, "a")
    reader = LogReader(outlasts=(DatabaseUnavailable,))
    with capture_logs() as logs:
        for outage in (1, 2):
            server.failures = [DatabaseUnavailable("gone") for _ in range(5)]
            await reader.read(server)
            assert [line["event"] for line in logs] == ["log.read_failed", "log.read_resumed"] * outage


async def test_an_event_whose_data_was_replaced_is_logged_by_name(db: Database, server: Unsteady) -> None:
    await db.run(Emit(project="default", type="custom.x", key="a", data={"unreadable": "json"}))
    await emit(db, "b")
    with capture_logs() as logs:
        events = await LogReader().read(server)
    assert [event.key for event in events] == ["a", "b"]
    (line,) = logs
    assert (line["event"], line["key"], line["type"], line["limit"]) == ("event.unreadable", "a", "custom.x", "json")
    assert line["cursor"] == events[0].cursor
