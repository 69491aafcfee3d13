"""The catalogue as users get it: a database made by `schema.apply` alone, without the tests' clock. And a project with one of everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from coordinator.db.connection import connect
from tests.conftest import ADOPT_EPOCH, Sessions, Transaction, admin, with_database
from tests.nouns import Known
from tests.populated import populate


@pytest.fixture(scope="session")
def product_url(server_url: str, pristine: str) -> Iterator[str]:
    name = f"product_{uuid4().hex[:8]}"
    url = with_database(server_url, name)
    asyncio.run(admin(server_url, f"create database {name} template {pristine}"))
    asyncio.run(admin(url, ADOPT_EPOCH, "select coordinator.relay_step()"))  # makes the first partition of the log
    yield url
    asyncio.run(admin(server_url, f"drop database {name} with (force)"))


@pytest_asyncio.fixture(loop_scope="session")
async def catalogue(kept: Sessions, product_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with kept.transaction(product_url) as connection:
        yield connection


class Populated(msgspec.Struct, frozen=True):
    """A database with one of everything, what arguments need to know of it, and when it was made."""

    url: str
    known: Known
    at: str


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def populated(server_url: str, template: str) -> AsyncIterator[Populated]:
    name = f"populated_{uuid4().hex[:8]}"
    url = with_database(server_url, name)
    await admin(server_url, f"create database {name} template {template}")
    connection = await connect(url)
    try:
        await connection.execute(ADOPT_EPOCH)
        await connection.execute("select coordinator.relay_step()")
        known = await populate(connection)
        yield Populated(url, known, await connection.fetchval("select clock_timestamp()::text"))
    finally:
        await connection.close()
        await admin(server_url, f"drop database {name} with (force)")


@pytest_asyncio.fixture(loop_scope="session")
async def full(kept: Sessions, populated: Populated) -> AsyncIterator[Transaction]:
    """A transaction in that database, with a stopped clock, so that nothing in it has expired."""
    async with kept.transaction(populated.url) as connection:
        await connection.execute("select set_config('coordinator.fake_now', $1, true)", populated.at)
        yield Transaction(connection)
