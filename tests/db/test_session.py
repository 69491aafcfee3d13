"""A direct connection says once that it is lost, and once that it is back."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import asyncpg
import pytest
import structlog

from coordinator.db import session as session_module
from coordinator.db.connection import answers, connect, retire
from coordinator.db.session import ServerSession
from coordinator.errors import DatabaseUnavailable
from coordinator.operations.events import Head
from coordinator.operations.liveness import Liveness
from tests.waiting import DEADLINE_S, until

ATTEMPTS = 3


async def test_an_outage_is_one_line_and_its_end_another(database_url: str) -> None:
    connections: list[asyncpg.Connection] = []
    refused = 0

    async def opened() -> asyncpg.Connection:
        nonlocal refused
        if connections and refused < ATTEMPTS:
            refused += 1
            raise DatabaseUnavailable("the database is away")
        connections.append(await connect(database_url))
        return connections[-1]

    session = ServerSession(opened, (), 5.0)
    with structlog.testing.capture_logs() as lines:
        async with session.kept():
            connections[0].terminate()
            await until(lambda: len(connections) == 2 and session.connected, "the session is back")
            await until(lambda: len(lines) > 1, "the log says so")
    assert refused == ATTEMPTS
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("session.lost", "warning"),
        ("session.reconnected", "info"),
    ]


async def test_a_context_that_ends_at_once_leaves_no_connection(database_url: str) -> None:
    connections: list[asyncpg.Connection] = []

    async def opened() -> asyncpg.Connection:
        connections.append(await connect(database_url))
        return connections[-1]

    async with ServerSession(opened, (), 5.0).kept():
        pass
    assert [connection.is_closed() for connection in connections] == [True]


async def test_a_connection_counts_once_its_work_is_done_and_not_if_it_is_lost_before(database_url: str) -> None:
    connections: list[asyncpg.Connection] = []
    seen: list[bool] = []

    async def opened() -> asyncpg.Connection:
        connections.append(await connect(database_url))
        return connections[-1]

    async def begin(session: ServerSession) -> None:
        seen.append(session.connected)
        if len(connections) == 2:
            connections[1].terminate()
            raise DatabaseUnavailable("it was lost again")

    session = ServerSession(opened, (), 5.0)
    session.on_connect = begin
    changes: list[bool] = []
    session.on_change = lambda: changes.append(session.connected)
    async with session.kept():
        connections[0].terminate()
        await until(lambda: len(changes) == 3, "the session is back")
    assert seen == [False, False, False]
    assert changes[:3] == [True, False, True], "each state is followed by the notice of its change"


async def test_a_connection_that_does_not_answer_is_kept_until_another_one_has_taken_over(database_url: str) -> None:
    """The server may still have its session, with the locks that prove that this process lives."""
    connections: list[asyncpg.Connection] = []
    asked, go = anyio.Event(), anyio.Event()

    async def opened() -> asyncpg.Connection:
        if connections:
            asked.set()
            await go.wait()
        connections.append(await connect(database_url))
        return connections[-1]

    async def take_over(_: ServerSession) -> None:
        assert not connections[0].is_closed()

    session = ServerSession(opened, (), 5.0)
    session.on_connect = take_over
    async with session.kept():
        assert session._link is not None
        session._link.lost.set()
        with anyio.fail_after(DEADLINE_S):
            await asked.wait()
        assert not session.connected
        assert not connections[0].is_closed()
        go.set()
        await until(lambda: session.connected and connections[0].is_closed(), "the other one took over")


async def test_a_connection_that_does_not_answer_goes_if_the_server_has_no_room_for_another(database_url: str) -> None:
    connections: list[asyncpg.Connection] = []

    async def opened() -> asyncpg.Connection:
        if connections and not connections[-1].is_closed():
            raise DatabaseUnavailable("too many connections", code="53300")
        connections.append(await connect(database_url))
        return connections[-1]

    session = ServerSession(opened, (), 5.0)
    async with session.kept():
        assert session._link is not None
        session._link.lost.set()
        await until(lambda: session.connected and len(connections) == 2, "it has another connection")


async def test_a_connection_at_its_age_is_replaced_without_a_gap_in_its_lock_or_its_calls(database_url: str) -> None:
    pids: list[int] = []

    async def opened() -> asyncpg.Connection:
        connection = await connect(database_url)
        pids.append(connection.get_server_pid())
        return connection

    watcher = await connect(database_url)
    session = ServerSession(opened, ("some_channel",), DEADLINE_S, max_age_s=0.1)
    liveness = Liveness(session, "client")
    changes: list[bool] = []
    try:
        async with session.kept():
            first = liveness.process
            session.on_change = lambda: changes.append(session.connected)
            # Whoever finds it free, even for an instant, would reap what depends on this process.
            free = f"select pg_try_advisory_lock(1129267026, {first})"

            async def renewed() -> bool:
                assert not await watcher.fetchval(free), "the lock was free"
                assert await session.run(Head()) is not None
                return len(pids) > 4

            await until(renewed, "connections were replaced", every_s=0)
            assert liveness.process == first
            assert False not in changes, "it was lost"
    finally:
        await watcher.close()


async def test_a_connection_that_cannot_be_replaced_at_its_age_stays_in_use(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has no room, the network is cut, or the new connection is lost while it takes over."""
    monkeypatch.setattr(session_module, "RENEW_AGAIN_S", 0.01)
    connections: list[asyncpg.Connection] = []
    refused = 0

    async def opened() -> asyncpg.Connection:
        nonlocal refused
        if connections and refused < ATTEMPTS:
            refused += 1
            raise DatabaseUnavailable("too many connections", code="53300")
        connections.append(await connect(database_url))
        return connections[-1]

    async def begin(_: ServerSession) -> None:
        if len(connections) == 2:
            connections[1].terminate()
            raise DatabaseUnavailable("it was lost again")

    session = ServerSession(opened, (), DEADLINE_S, max_age_s=0.01)
    session.on_connect = begin
    changes: list[bool] = []
    with structlog.testing.capture_logs() as lines:
        async with session.kept():
            session.on_change = lambda: changes.append(session.connected)

            async def renewed() -> bool:
                assert await session.run(Head()) is not None
                return len(connections) > 2 and connections[0].is_closed()

            await until(renewed, "it was replaced in the end")
            assert False not in changes, "it was lost"
    assert [line["event"] for line in lines][: ATTEMPTS + 1] == ["session.renew_failed"] * (ATTEMPTS + 1)


async def test_a_database_that_is_unavailable_from_the_start_is_logged_in_one_line(database_url: str) -> None:
    refused = 0

    async def opened() -> asyncpg.Connection:
        nonlocal refused
        refused += 1
        if refused <= ATTEMPTS:
            raise DatabaseUnavailable("the database is away")
        return await connect(database_url)

    session = ServerSession(opened, (), 5.0)
    with structlog.testing.capture_logs() as lines:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.run_forever)
            await until(lambda: session.connected, "the session is connected")
            tasks.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["session.lost", "session.reconnected"]
    assert lines[0]["error"] == "the database is away"


class Losing:
    """A connection that is lost in the middle of one method."""

    def __init__(self, connection: asyncpg.Connection, method: str, error: Exception) -> None:
        self._connection = connection
        self._method = method
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return self._lose if name == self._method else getattr(self._connection, name)

    async def _lose(self, *_: object, **__: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"),
        asyncpg.InterfaceError("the connection is closed"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        ConnectionResetError(),
        EOFError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_the_driver_raises_for_a_lost_connection_is_typed(database_url: str, error: Exception) -> None:
    """The loss may come between any two steps of a statement, and the driver has another exception for each."""

    async def losing(method: str) -> Any:
        return Losing(await connect(database_url), method, error)

    with pytest.raises(DatabaseUnavailable):
        async with ServerSession(partial(losing, "add_listener"), ("some_channel",), 5.0).kept():
            pass
    assert not await answers(await losing("execute"))
    assert await retire(await losing("close"))
