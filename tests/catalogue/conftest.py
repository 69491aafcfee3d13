"""The catalogue as users get it: a database made by `schema.apply` alone, without the tests' clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.conftest import ADOPT_EPOCH, Sessions, admin, with_database


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
