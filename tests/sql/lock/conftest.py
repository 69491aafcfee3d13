"""Every test of locks runs twice: the general path of acquire and release must do what their fast paths do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.conftest import admin, with_database

# The fast paths are for servers on which no role is kept to projects; only they ask for that.
GENERAL_PATH = """
create or replace function coordinator.roles_unbound() returns boolean language sql volatile return false
"""


@pytest.fixture(scope="session", params=["fast path", "general path"])
def shared_url(server_url: str, template: str, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"lock_{uuid4().hex[:8]}"
    url = with_database(server_url, name)
    asyncio.run(admin(server_url, f"create database {name} template {template}"))
    if request.param == "general path":
        asyncio.run(admin(url, GENERAL_PATH))
    yield url
    asyncio.run(admin(server_url, f"drop database {name} with (force)"))
