"""Artifacts in Python: from memory, files and streams, on the database, through a daemon and through a sidecar."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import coordinator
from coordinator.client.artifacts import media_type_of
from coordinator.errors import Conflict, NotFound
from coordinator.operations import artifacts
from tests.conftest import admin
from tests.daemon import Daemon
from tests.http_client import http_client
from tests.sidecar.conftest import sidecar
from tests.waiting import until

MIB = 1 << 20
DATA = random.Random(1).randbytes(2 * MIB + 7)


async def pieces(data: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture(params=["database", "daemon", "sidecar", "upstream"])
async def url(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[str]:
    if request.param == "database":
        yield database_url
        return
    if request.param == "sidecar":
        with sidecar(database_url, "--agent", "a") as beside:
            yield (await beside.started()).url
        return
    with Daemon(database_url) as daemon:
        await daemon.ready()
        if request.param == "daemon":
            yield daemon.url
            return
        with sidecar(daemon.url, "--agent", "a") as beside:
            yield (await beside.started()).url


async def test_bytes_a_file_and_a_stream_are_returned_in_every_form(url: str, tmp_path: Path) -> None:
    file = tmp_path / "in.html"
    file.write_bytes(DATA)
    async with coordinator.connect(url) as client:
        moved: list[tuple[int, int | None]] = []
        made = await client.artifacts.put("a.html", DATA, moved=lambda *both: moved.append(both))
        assert (made.bytes, made.media_type, moved[-1]) == (len(DATA), "text/html", (len(DATA), len(DATA)))
        for name, source in (("b", file), ("c", pieces(DATA))):
            assert (await client.artifacts.put(name, source, session="s")).sha256 == made.sha256
        assert (await client.artifacts.put("small", b"x", media_type="text/plain")).media_type == "text/plain"
        assert await client.artifacts.get("a.html") == DATA
        assert await client.artifacts.get("b", tmp_path / "out", session="s") == b""
        assert (tmp_path / "out").read_bytes() == DATA
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.html", "out"]
        assert b"".join([part async for part in client.artifacts.stream("c", session="s")]) == DATA
        assert [a.artifact async for a in client.artifacts.list(session="s")] == ["b", "c"]
        assert (await client.artifacts.keep("small")).kept
        with pytest.raises(Conflict):
            await client.artifacts.put("small", b"y", expect=0)
        with pytest.raises(Conflict):
            await client.artifacts.put("small", DATA, expect=made)
        small = await client.artifacts.show("small")
        assert (await client.artifacts.put("small", b"y", expect=small)).sha256 != small.sha256
        assert await client.artifacts.delete("small")
        with pytest.raises(NotFound):
            await client.artifacts.show("small")
    if url.startswith("http"):
        async with http_client(url) as http:
            stored = await http.put("/v1/artifacts/raw", content=pieces(DATA), headers={"Content-Type": "text/x-raw"})
            assert (stored.status_code, stored.json()["sha256"]) == (200, made.sha256)
            got = await http.get("/v1/artifacts/raw", headers={"Range": f"bytes={MIB - 1}-"})
            assert (got.status_code, got.content, got.headers["content-type"]) == (206, DATA[MIB - 1 :], "text/x-raw")


async def test_an_upload_continues_where_it_ended(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with coordinator.connect(database_url) as client:
        ran: list[object] = []
        run = client.artifacts._runner.run

        async def failing(operation: artifacts.Write) -> object:
            if isinstance(operation, artifacts.Write):
                ran.append(operation.number)
                if ran == [1, 2]:
                    raise OSError("the network is down")
            return await run(operation)

        monkeypatch.setattr(client.artifacts._runner, "run", failing)
        with pytest.raises(OSError, match="down"):
            await client.artifacts.put("a", DATA)
        assert await client.artifacts.list() == []
        await client.artifacts.put("a", DATA)
        assert ran == [1, 2, 2, 3]
        assert await client.artifacts.get("a") == DATA
        await client.artifacts.put("b", DATA)  # the project has these bytes
        assert ran == [1, 2, 2, 3]


async def test_a_download_continues_where_it_ended_and_verifies_what_it_has(database_url: str, tmp_path: Path) -> None:
    async with coordinator.connect(database_url) as client:
        made = await client.artifacts.put("a", DATA)
        partial = tmp_path / f".out.{made.sha256[:16]}.part"
        for begun in (DATA[: MIB + 3], DATA, DATA + b"more", b"wrong"):
            partial.write_bytes(begun)
            if DATA.startswith(begun):
                await client.artifacts.get("a", tmp_path / "out")
                assert (tmp_path / "out").read_bytes() == DATA
                continue
            with pytest.raises(Conflict):
                await client.artifacts.get("a", tmp_path / "out")
            assert not partial.exists()


async def test_a_stream_that_fails_or_lies_leaves_nothing(database_url: str) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise OSError("the disk is gone")

    async with coordinator.connect(database_url) as client:
        with pytest.raises(OSError, match="gone"):
            await client.artifacts.put("a", broken())
        with pytest.raises(Conflict) as raised:
            await client.artifacts.put("a", pieces(DATA), sha256=hashlib.sha256(b"").hexdigest())
        assert raised.value.code == "ZC336"
        with pytest.raises(Conflict):
            await client.artifacts.put("a", b"x", sha256=hashlib.sha256(b"").hexdigest())
        assert await client.artifacts.list() == []
    await admin(database_url, "do $$ begin assert (select count(*) from coordinator.artifact_chunks) = 0; end $$")


async def test_a_daemon_that_is_killed_during_an_upload_leaves_nothing_that_readers_see(database_url: str) -> None:
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with coordinator.connect(daemon.url) as client:

            async def until_killed() -> AsyncIterator[bytes]:
                yield DATA
                daemon.process.kill()
                daemon.process.wait()
                client.artifacts._caller._timeout_s = 0.5  # no server returns
                yield DATA

            with pytest.raises(coordinator.errors.DatabaseUnavailable):
                await client.artifacts.put("a", until_killed())
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with coordinator.connect(daemon.url) as client, coordinator.connect(database_url) as direct:
            assert await client.artifacts.list() == []

            async def left() -> int:
                connection = direct._caller.executor
                async with connection._pool.taken(60) as taken:  # type: ignore[attr-defined]
                    return int(await taken.fetchval("select count(*) from coordinator.artifact_blobs"))

            assert await left() == 1
            await admin(database_url, "update coordinator.artifact_blobs set due_at = now()")  # an hour has passed

            async def gone() -> bool:
                return await left() == 0

            await until(gone)


def test_a_name_suggests_a_media_type() -> None:
    assert media_type_of("logs/build.txt") == media_type_of("logs/build.log") == "text/plain"
    assert media_type_of("logs/build.txt.gz") == media_type_of("build") == "application/octet-stream"
