"""Real daemons, sidecars and an object store: killed at each step, and without the store, with a slow one, and without its client."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import coordinator
from coordinator.config import Config
from coordinator.errors import StoreUnavailable
from coordinator.objects import ObjectStore
from tests.api.test_problems import problem
from tests.cli.conftest import Program
from tests.conftest import admin
from tests.daemon import Daemon, opened
from tests.fake_s3 import STORE, FakeS3, Held
from tests.http_client import http_client
from tests.sidecar.conftest import sidecar
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
    await until(held.reached.is_set, "the daemon has sent the request")


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
async def test_without_the_store_uploads_continue_and_reads_of_its_contents_say_so(
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
            await daemon.logged("loop.failed", error=STORE)
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


@pytest.mark.slow
async def test_every_daemon_and_sidecar_stores_and_reads_what_the_leader_moves(
    database_url: str, fake_s3: FakeS3
) -> None:
    """A sidecar reads from the store itself, or through a daemon; one that does not know the store says which setting it lacks."""
    setting = {"COORDINATOR_ARTIFACT_STORE": STORE}
    with moving_daemon(database_url) as one, moving_daemon(database_url) as two:
        await one.ready()
        await two.ready()
        with (
            sidecar(database_url, "--agent", "a", **setting) as beside,
            sidecar(one.url, "--agent", "b") as through,
            sidecar(database_url, "--agent", "c") as without,
        ):
            urls = [one.url, two.url, *[(await found.started()).url for found in (beside, through)]]
            for number, url in enumerate(urls[1:]):
                data = DATA + bytes([number])
                async with coordinator.connect(url) as client:
                    await client.artifacts.put("a", data)
                await until_moved(database_url)
                for other in urls:
                    async with http_client(other) as http:
                        got = await http.get(PATH, headers={"Range": "bytes=-3"})
                        assert (got.status_code, got.content) == (206, data[-3:]), (number, other)
                async with coordinator.connect(urls[-number]) as client:
                    assert await client.artifacts.get("a") == data
            async with http_client((await without.started()).url) as http:
                refused = problem(await http.get(PATH), 503, "store-unavailable")
            assert refused["code"] == "ZC801"
            assert f"COORDINATOR_ARTIFACT_STORE={STORE}" in refused["hint"]


@pytest.mark.slow
async def test_a_slow_store_delays_only_its_own_readers(database_url: str, fake_s3: FakeS3) -> None:
    """It holds a GET, for which a reader waits, and a PUT of the leader, until the end of the test. The daemon has one connection for calls."""
    settings = {"artifact_store": STORE, "call_timeout_s": 600, "max_connections": 1}
    with Daemon(database_url, constants=FAST, **settings) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as http, anyio.create_task_group() as tasks:
            assert (await http.put(PATH, content=DATA)).status_code == 200
            await until_moved(database_url)
            reading, moving = fake_s3.hold("GET", done=True), fake_s3.hold("PUT", done=True)
            read: list[bytes] = []

            async def reader() -> None:
                read.append((await http.get(PATH)).content)

            tasks.start_soon(reader)
            await until_reached(reading)
            assert (await http.post("/v1/projects/create", json={"project": "other"})).status_code == 200
            other = f"{PATH}?project=other"
            assert (await http.put(other, content=b"of another project")).status_code == 200
            await until_reached(moving)
            async with opened(database_url) as connection:
                open_since = "select count(*) from pg_stat_activity where datname = current_database() and backend_xmin is not null and pid <> pg_backend_pid()"
                await until_true(connection, f"select ({open_since}) = 0")
            assert (await http.get(other)).content == b"of another project"  # it is still in the database
            await http.post("/v1/signals/set", json={"project": "other", "key": "k", "value": 1, "ttl": "1h"})
            await admin(database_url, "update coordinator.signals set expires_at = now()")

            async def expired() -> bool:
                return (await http.get("/v1/signals?project=other")).json()["items"] == []

            await until(expired, "the other loops of the leader go on")
            assert not read
            reading.go.set()
            moving.go.set()
        assert read == [DATA]
        await until_moved(database_url)
    fake_s3.silent.set()
    with pytest.raises(StoreUnavailable, match="gave no answer") as raised:
        await ObjectStore(Config(artifact_store=STORE, call_timeout_s=0.1)).read(STORE, "any", 0, 1)
    assert raised.value.hint


def test_without_its_client_a_daemon_a_sidecar_and_a_command_say_what_to_install(
    database_url: str, tmp_path: Path
) -> None:
    """The client is an extra; a process with a configured store does not start without it."""
    (tmp_path / "obstore.py").write_text("raise ImportError")
    program = Program(tmp_path, {"COORDINATOR_DATABASE_URL": database_url, "COORDINATOR_ARTIFACT_STORE": STORE})
    path = f"{tmp_path}{os.pathsep}{program.environment['PYTHONPATH']}"
    for arguments in (["serve", "--port", "0"], ["sidecar", "--agent", "a", "--listen", "127.0.0.1:0"]):
        error = program.fails(78, *arguments, PYTHONPATH=path)
        assert "pip install 'coordinatord[s3]'" in error["hint"]
