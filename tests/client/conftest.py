from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest

from coordinator.db.database import Database
from coordinator.relay import Relay


@asynccontextmanager
async def relayed(db: Database) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Relay(db).run_forever)
        yield
        tasks.cancel_scope.cancel()


@pytest.fixture
async def root(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A bare connection to the test's own database, which reaps agents even in the server's first 10 seconds."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "create or replace function coordinator.server_settled() returns boolean "
        "language sql stable parallel safe return true"
    )
    yield connection
    await connection.close()
