"""Probes of a connection and its server, for the doctor; they do not need the schema."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import uuid4

import asyncpg

from coordinator.db.connection import LOST, mapped_errors
from coordinator.errors import CoordinatorError

__all__ = [
    "PoolMode",
    "ServerFacts",
    "pid",
    "pinned",
    "pool_mode",
    "queue_usage",
    "round_trip",
    "server",
    "server_time",
]

CHANNEL = "coordinator.doctor"
ANOTHER_S = 2.0  # for another connection through a pooler that has no room
TURNS = 5

PoolMode = Literal["session", "transaction", "statement"]


class ServerFacts(NamedTuple):
    """A server and one of its databases, as seen by a session."""

    version: str
    major: int
    standby: bool
    database: str
    role: str
    started_at: datetime


async def server(connection: asyncpg.Connection) -> ServerFacts:
    """Return the server and database of a connection."""
    with mapped_errors():
        row = await connection.fetchrow(
            "select current_setting('server_version'), current_setting('server_version_num')::integer / 10000, pg_is_in_recovery(),"
            " current_database(), session_user, pg_postmaster_start_time()"
        )
    return ServerFacts(*row)


async def pid(connection: asyncpg.Connection) -> int:
    """Return the process id of the server's current session."""
    with mapped_errors():
        return int(await connection.fetchval("select pg_backend_pid()"))


async def pinned(connection: asyncpg.Connection) -> bool:
    """Return whether the settings of a connection were sent when it was opened, which a pooler refuses or ignores."""
    with mapped_errors():
        return bool(await connection.fetchval("select current_setting('coordinator.pinned', true) = 'on'"))


async def pool_mode(
    first: asyncpg.Connection, another: Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]
) -> PoolMode | None:
    """Return how a pooler between this connection and the server shares sessions; None: it has no room for another connection.

    Only administrators may ask a pooler, so this compares what two clients see. In session mode, each client has its
    own session of the server. In transaction mode, a client in a transaction takes the session that the other one used
    last, or the other one gets a new session. In statement mode, no transaction can begin.
    """
    try:
        async with asyncio.timeout(ANOTHER_S), another() as second:
            used = await pid(first)
            for _ in range(TURNS):
                try:
                    await second.execute("begin")
                except LOST:
                    await pid(first)  # otherwise the server is gone
                    return "statement"
                if await pid(second) == used or await pid(first) != used:
                    return "transaction"
                await second.execute("rollback")
            return "session"
    except (TimeoutError, CoordinatorError):
        return None


async def server_time(connection: asyncpg.Connection) -> datetime:
    """Return the time by the server's clock."""
    with mapped_errors():
        found: datetime = await connection.fetchval("select clock_timestamp()")
    return found


async def queue_usage(connection: asyncpg.Connection) -> float:
    """Return the used share of the NOTIFY queue. When it is full, NOTIFY fails at the commit."""
    with mapped_errors():
        return float(await connection.fetchval("select pg_notification_queue_usage()"))


async def round_trip(listener: asyncpg.Connection, notifier: asyncpg.Connection, timeout_s: float) -> float | None:
    """Return the seconds until one connection receives a notification of another one; None: not within ``timeout_s``."""
    heard, token = asyncio.Event(), uuid4().hex

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == token:
            heard.set()

    with mapped_errors():
        await listener.add_listener(CHANNEL, hear)
        try:
            began = time.perf_counter()
            await notifier.execute(f"notify \"{CHANNEL}\", '{token}'")
            async with asyncio.timeout(timeout_s):
                await heard.wait()
        except TimeoutError:
            return None
        finally:
            await listener.remove_listener(CHANNEL, hear)
    return time.perf_counter() - began
