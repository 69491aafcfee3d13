"""The catalogue as users get it: a database made by `schema.apply` alone, without the tests' clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from coordinator.db import schema
from coordinator.db.connection import connect
from tests.conftest import Sessions, admin, with_database


@pytest.fixture(scope="session")
def product_url(server_url: str) -> Iterator[str]:
    name = f"product_{uuid4().hex[:8]}"
    url = with_database(server_url, name)

    async def make() -> None:
        await admin(server_url, f"create database {name}")
        connection = await connect(url)
        try:
            await schema.apply(connection)
            await connection.execute("select coordinator.relay_step()")  # makes the first partition of the log
        finally:
            await connection.close()

    asyncio.run(make())
    yield url
    asyncio.run(admin(server_url, f"drop database {name} with (force)"))


@pytest_asyncio.fixture(loop_scope="session")
async def catalogue(kept: Sessions, product_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with kept.transaction(product_url) as connection:
        yield connection
