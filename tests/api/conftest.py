"""A daemon process that tests share if they do not disturb it; each test has its own project."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest

from tests.conftest import admin, with_database
from tests.daemon import Daemon
from tests.http_client import http_client

# Short, so that no test waits for what is slow on purpose.
LIMITS = {"http_wait_s": 600, "http_heartbeat_s": 1.0, "http_write_deadline_s": 2.0, "http_body_bytes": 100_000}

# Long, so that only an event can end a wait, and a reader that was closed can still read why.
CONSTANTS = {"coordinator.api.calls.POLL_S": 3600, "coordinator.api.stream.LEAVE_S": 600}


@pytest.fixture(scope="session")
def api_url(server_url: str, template: str) -> Iterator[str]:
    name = f"api_{uuid4().hex[:8]}"
    asyncio.run(admin(server_url, f"create database {name} template {template}"))
    yield with_database(server_url, name)
    asyncio.run(admin(server_url, f"drop database {name} with (force)"))


@pytest.fixture(scope="session")
def daemon(api_url: str) -> Iterator[Daemon]:
    with Daemon(api_url, constants=CONSTANTS, **LIMITS, http_queue_s=60) as process:
        asyncio.run(process.ready())
        yield process


@pytest.fixture
async def http(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(daemon.url) as client:
        yield client


@pytest.fixture
async def project(http: httpx.AsyncClient) -> str:
    name = f"p{uuid4().hex[:12]}"
    answer = await http.post("/v1/projects/create", json={"project": name})
    assert answer.status_code == 200, answer.text
    return name
