"""Real daemons and an object store: killed at each step, and without the store."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

import coordinator
from coordinator.config import Config
from tests.api.test_problems import problem
from tests.cli.conftest import Program
from tests.conftest import admin
from tests.daemon import Daemon, opened
from tests.fake_s3 import STORE, FakeS3, Held
from tests.http_client import http_client
from tests.waiting import until, until_true

DATA = random.Random(5).randbytes((1 << 20) + 11)
FAST = {"coordinator.loops.keeper.HEARTBEAT_S": 0.1}
PATH = "/v1/artifacts/a"


def moving_daemon(url: str, store: str | None = STORE) -> Daemon:
    return Daemon(url, constants=FAST, artifact_store=store)


async def count(url: str, table: str) -> int:
    async with opened(url) as connection:
        return int(await connection.fetchval(f"select count(*) from coordinator.{table}"))


async def until_moved(url: str) -> None:
    async with opened(url) as connection:
        await until_true(connection, "select bool_and(stored) from coordinator.artifact_blobs where bytes > 0")


async def until_reached(held: Held) -> None:
    async def reached() -> bool:
        return held.reached.is_set()

    await until(reached, "the daemon has sent the request")


async def request(daemon: Daemon, method: str, content: bytes | None = None, **headers: str) -> httpx.Response:
    async with http_client(daemon.url) as http:
        return await http.request(method, PATH, content=content, headers=headers)


@pytest.mark.slow
async def test_a_daemon_killed_at_any_step_loses_no_content_and_forgets_no_object(
    database_url: str, fake_s3: FakeS3
) -> None:
    written = fake_s3.hold("PUT", done=True)
    with moving_daemon(database_url) as daemon:
        await daemon.ready()
        assert (await request(daemon, "PUT", DATA)).status_code == 200
        await until_reached(written)
        daemon.kill()  # between the object and the row that points to it
    written.go.set()
    (key,) = fake_s3.objects
    assert await count(database_url, "artifact_chunks") == 2
    with moving_daemon(database_url) as daemon:
        await daemon.ready()
        assert (await request(daemon, "GET")).content == DATA
        await until_moved(database_url)
        assert (await request(daemon, "GET")).content == DATA
        assert [*fake_s3.objects] == [key]
        assert await count(database_url, "artifact_chunks") == 0
        deleting = fake_s3.hold("DELETE", done=False)
        async with coordinator.connect(daemon.url) as client:
            await client.artifacts.delete("a")
        await admin(database_url, "update coordinator.artifact_blobs set due_at = now()")  # an hour has passed
        await until_reached(deleting)
        assert (await request(daemon, "PUT", DATA)).status_code == 200  # the same bytes again
        await until_moved(database_url)
        daemon.kill()  # before it hears that the first object was deleted
    deleting.go.set()
    await admin(database_url, "update coordinator.artifact_objects set due_at = now()")  # a minute has passed
    with moving_daemon(database_url) as daemon:
        await daemon.ready()
        async with opened(database_url) as connection:
            await until_true(connection, "select count(*) = 1 from coordinator.artifact_objects")
        (left,) = fake_s3.objects.items()
        assert left[0] != key
        assert left[1] == DATA
        assert (await request(daemon, "GET", Range="bytes=5-8")).content == DATA[5:9]


@pytest.mark.slow
async def test_without_the_store_uploads_go_on_and_reads_of_what_it_has_say_so(
    database_url: str, fake_s3: FakeS3, tmp_path: Path
) -> None:
    with moving_daemon(database_url) as daemon:
        await daemon.ready()
        with fake_s3.failing("PUT"):
            made = await request(daemon, "PUT", DATA)
            assert (made.status_code, made.json()["store"]) == (200, None)

            async def failed() -> bool:
                return await daemon.metric('coordinator_loop_errors_total{loop="artifact_move"}') >= 1

            await until(failed)
            assert STORE in (await daemon.logged("loop.failed"))["error"]
            assert (await request(daemon, "GET")).content == DATA
        await until_moved(database_url)
        assert (await request(daemon, "GET")).content == DATA
        with fake_s3.failing("GET"):
            refused = await request(daemon, "GET")
            problem(refused, 503, "store-unavailable")
            assert refused.headers["retry-after"]
        with moving_daemon(database_url, None) as other:
            await other.ready()
            elsewhere = await request(other, "GET")
            problem(elsewhere, 503, "store-unavailable")
            assert elsewhere.json()["code"] == "ZC801"
    configured: dict[str, Any] = {"config": Config(artifact_store=STORE)}
    async with coordinator.connect(database_url, **configured) as client:
        assert await client.artifacts.get("a") == DATA
    program = Program(tmp_path, {"COORDINATOR_DATABASE_URL": database_url, **fake_s3.environment})
    assert STORE in program.fails(7, "artifact", "get", "a", "copy")["hint"]
    program.environment["COORDINATOR_ARTIFACT_STORE"] = STORE
    assert program.json("artifact", "get", "a", "copy")["store"] == STORE
    assert hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest() == hashlib.sha256(DATA).hexdigest()
