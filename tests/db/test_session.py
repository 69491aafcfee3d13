"""A direct connection says once that it is lost, and once that it is back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import asyncpg
import structlog

from coordinator.db.connection import connect
from coordinator.db.session import ServerSession
from coordinator.errors import DatabaseUnavailable
from tests.waiting import until

ATTEMPTS = 3


def true(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return condition()

    return look


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
            await until(true(lambda: len(connections) == 2 and session.connected), "the session is back")
            await until(true(lambda: len(lines) > 1), "the log says so")
    assert refused == ATTEMPTS
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("session.lost", "warning"),
        ("session.back", "info"),
    ]


async def test_a_database_that_is_away_from_the_start_is_one_line(database_url: str) -> None:
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
            await until(true(lambda: session.connected), "the session is connected")
            tasks.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["session.lost", "session.back"]
    assert lines[0]["error"] == "the database is away"
