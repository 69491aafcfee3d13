"""Waiting for what another connection does: a condition with a deadline, never a pause of some length."""

from __future__ import annotations

import anyio
import asyncpg

__all__ = ["until", "until_blocked"]

DEADLINE_S = 20.0
LOOK_S = 0.005


async def until(connection: asyncpg.Connection, query: str, *values: object) -> None:
    """Return as soon as the query answers true."""
    with anyio.fail_after(DEADLINE_S):
        while not await connection.fetchval(query, *values):
            await anyio.sleep(LOOK_S)


async def until_blocked(connection: asyncpg.Connection, blocked: asyncpg.Connection) -> None:
    """Return as soon as another connection's statement waits for a lock."""
    query = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
    await until(connection, query, blocked.get_server_pid())
