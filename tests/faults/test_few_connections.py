"""A daemon whose role may have fewer connections than its pool wants."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

import anyio
import httpx
import pytest

from tests.api.sse import emit
from tests.daemon import Daemon, drained
from tests.db.test_pool import admin, limited_role
from tests.http_client import http_client
from tests.waiting import until

WRITERS = 100
WRITES = 4  # of each writer


@pytest.mark.parametrize("limit", [8, 11])  # a daemon has seven in addition to those for calls
async def test_writes_queue_for_the_connections_that_there_are(server_url: str, database_url: str, limit: int) -> None:
    async with limited_role(server_url, database_url, limit) as (role, url), AsyncExitStack() as stack:
        await admin(database_url, f"select coordinator.schema_grant('{role}')")
        stack.push_async_callback(admin, database_url, f"drop owned by {role}")
        # A slow machine opens a hundred connections before it writes to the first.
        with Daemon(url, max_connections=20, http_head_s=3600, http_queue_s=60) as daemon:
            await (await daemon.ready()).lead()
            async with http_client(daemon.url) as client:
                await emit(client, "default", "first")
            await drained(database_url, 1)  # the relay has its connection
            statuses: Counter[int] = Counter()

            async def write(n: int) -> None:
                async with http_client(daemon.url) as client:  # one pool of many connections spends seconds on itself
                    for _ in range(WRITES):
                        signal = {"project": "default", "key": f"k/{n % 40}", "value": n}
                        statuses[(await client.post("/v1/signals/set", json=signal)).status_code] += 1

            async with anyio.create_task_group() as tasks:
                for n in range(WRITERS):
                    tasks.start_soon(write, n)
            assert statuses == {200: WRITERS * WRITES}
            await daemon.ready()


async def test_a_daemon_without_a_connection_for_its_relay_says_so(server_url: str, database_url: str) -> None:
    async with limited_role(server_url, database_url, 5) as (role, url), AsyncExitStack() as stack:
        await admin(database_url, f"select coordinator.schema_grant('{role}')")
        stack.push_async_callback(admin, database_url, f"drop owned by {role}")
        with Daemon(url, max_connections=20) as daemon:
            await daemon.logged("daemon.started")

            async def says_so() -> bool:
                """Before it leads, it may have another reason."""
                answer = await daemon.get("/readyz")
                said = "events are not numbered" in answer.text and "too many connections" in answer.text
                return said and answer.status_code == httpx.codes.SERVICE_UNAVAILABLE

            await until(says_so, "/readyz says that events are not numbered, and why")
