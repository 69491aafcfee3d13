"""Artifacts as streams over HTTP: whole or not at all, in little memory, and harmless to a browser."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

import coordinator
from coordinator.db.connection import connect
from tests.api.test_memory import MAX_KB, peak_kb
from tests.api.test_problems import problem
from tests.daemon import Daemon, note
from tests.http_client import http_client
from tests.waiting import DEADLINE_S, until

MIB = 1 << 20
DATA = random.Random(7).randbytes(2 * MIB + 5)
SHA256 = hashlib.sha256(DATA).hexdigest()
DIGEST = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
OTHER = base64.b64encode(hashlib.sha256(b"other").digest()).decode()


def path(project: str, name: str = "a", **query: str) -> str:
    return f"/v1/artifacts/{name}?{httpx.QueryParams({'project': project, **query})}"


async def chunks(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def names(http: httpx.AsyncClient, project: str) -> list[str]:
    return [item["artifact"] for item in (await http.get("/v1/artifacts", params={"project": project})).json()["items"]]


async def uploads(url: str, project: str) -> int:
    """Count what is left of uploads in progress."""
    connection = await connect(url)
    try:
        return int(
            await connection.fetchval(
                "select count(*) from coordinator.artifact_blobs b join coordinator.projects p on p.id = b.project_id"
                " where p.name = $1 and b.finished_at is null",
                project,
            )
        )
    finally:
        await connection.close()


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_put_is_returned_with_its_type_and_hash(
    http: httpx.AsyncClient, project: str, streamed: bool
) -> None:
    body: Any = chunks(DATA) if streamed else DATA
    headers = {"Content-Type": "text/html", "Repr-Digest": f"sha-256=:{DIGEST}:"}
    made = await http.put(path(project, "logs/a%20%22b.html"), content=body, headers=headers)
    assert made.status_code == 200, made.text
    assert made.json()["artifact"] == 'logs/a "b.html'
    assert (made.json()["sha256"], made.json()["bytes"], made.headers["etag"]) == (SHA256, len(DATA), f'"{SHA256}"')
    assert made.headers["position"]
    got = await http.get(path(project, "logs/a%20%22b.html"))
    assert got.content == DATA
    assert {
        name: got.headers[name] for name in ("content-type", "content-length", "etag", "x-content-type-options")
    } == {
        "content-type": "text/html",
        "content-length": str(len(DATA)),
        "etag": f'"{SHA256}"',
        "x-content-type-options": "nosniff",
    }
    assert got.headers["content-disposition"] == "attachment; filename=\"a _b.html\"; filename*=UTF-8''a%20%22b.html"
    assert "sandbox" in got.headers["content-security-policy"]
    assert got.headers["repr-digest"] == f"sha-256=:{DIGEST}:"


async def test_a_small_body_and_an_empty_one(http: httpx.AsyncClient, project: str) -> None:
    for data in (b"", b"x"):
        assert (await http.put(path(project), content=data)).json()["media_type"] == "application/octet-stream"
        got = await http.get(path(project))
        assert (got.status_code, got.content) == (200, data)
    problem(await http.get(path(project, "none")), 404, "not-found")


async def test_an_artifact_may_have_the_name_of_a_verb(http: httpx.AsyncClient, project: str) -> None:
    for name in ("begin", "put", "list", "show", "x/../y", "x//y"):
        assert (await http.put(path(project, name.replace(".", "%2E")), content=name.encode())).status_code == 200
        assert (await http.get(path(project, name.replace(".", "%2E")))).content == name.encode()


async def test_ranges_and_conditions(http: httpx.AsyncClient, project: str) -> None:
    await http.put(path(project), content=DATA)
    etag = f'"{SHA256}"'
    for given, first, end in (
        ("bytes=0-0", 0, 1),
        (f"bytes={MIB - 3}-{MIB + 3}", MIB - 3, MIB + 4),
        (f"bytes={2 * MIB}-", 2 * MIB, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        (f"bytes=5-{10**17}", 5, len(DATA)),
    ):
        got = await http.get(path(project), headers={"Range": given})
        assert (got.status_code, got.content) == (206, DATA[first:end]), given
        assert got.headers["content-range"] == f"bytes {first}-{end - 1}/{len(DATA)}"
    for given in ("bytes=0-1,5-6", "bytes=9-3", "lines=1-2", "bytes=x"):
        assert (await http.get(path(project), headers={"Range": given})).status_code == 200, given
    for given in (f"bytes={len(DATA)}-", "bytes=-0"):
        beyond = await http.get(path(project), headers={"Range": given})
        problem(beyond, 416, "range-not-satisfiable")
        assert beyond.headers["content-range"] == f"bytes */{len(DATA)}"
    for headers, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f'"x", W/{etag}'}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-Match": etag}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"Range": "bytes=0-0", "If-Range": etag}, 206),
        ({"Range": "bytes=0-0", "If-Range": '"x"'}, 200),
    ):
        assert (await http.get(path(project), headers=headers)).status_code == status, headers


async def test_head_is_get_without_the_bytes(http: httpx.AsyncClient, project: str) -> None:
    await http.put(path(project), content=DATA, headers={"Content-Type": "text/x"})
    got = await http.get(path(project))
    for headers, status in (
        ({}, 200),
        ({"Range": "bytes=0-0"}, 200),
        ({"If-None-Match": got.headers["etag"]}, 304),
        ({"If-Match": '"x"'}, 412),
    ):
        head = await http.head(path(project), headers=headers)
        assert (head.status_code, head.content) == (status, b""), headers
        if status == 200:
            own = {"date": "", "x-request-id": ""}
            assert {**head.headers, **own} == {**got.headers, **own}
    assert (await http.head(path(project, "none"))).status_code == 404
    assert (await http.head(f"/v1/artifact_details/a?project={project}")).status_code == 405
    assert (await http.get(path(project))).content == DATA  # on the same connection


@pytest.mark.parametrize("header", ["Repr-Digest", "Content-Digest", "Digest"])
async def test_another_hash_than_the_header_says_is_refused_and_leaves_nothing(
    http: httpx.AsyncClient, project: str, api_url: str, header: str
) -> None:
    form = "SHA-256={}" if header == "Digest" else "sha-256=:{}:"
    for body in (DATA, b"small"):
        answer = await http.put(path(project), content=body, headers={header: form.format(OTHER)})
        problem(answer, 409, "conflict")
        assert answer.json()["code"] == "ZC336"
    assert await names(http, project) == []
    assert await uploads(api_url, project) == 0
    assert (await http.put(path(project), content=DATA, headers={header: form.format(DIGEST)})).status_code == 200
    problem(await http.put(path(project), content=b"", headers={header: "sha-256=:x:"}), 422, "invalid-argument")


async def test_bad_uploads_are_refused(http: httpx.AsyncClient, project: str, api_url: str) -> None:
    for answer, status, name in (
        (await http.put(path(project), content=b"x", headers={"Content-Type": "nonsense"}), 422, "invalid-argument"),
        (
            await http.put(path(project), content=b"x", headers={"Content-Encoding": "gzip"}),
            415,
            "unsupported-media-type",
        ),
        (
            await http.put(path(project), content=b"x", headers={"If-None-Match": f'"{SHA256}"'}),
            422,
            "invalid-argument",
        ),
        (await http.put(path(project), content=b"x", headers={"If-Match": '"1"'}), 422, "invalid-argument"),
        (await http.put(path(project, expect="1"), content=b"x"), 422, "invalid-argument"),
        (await http.put(path(project, colour="red"), content=b"x"), 422, "invalid-argument"),
        (await http.put(path("nowhere"), content=DATA), 404, "not-found"),
        (await http.put(path(project), content=chunks(bytes(65 * MIB), MIB)), 413, "too-large"),
        (await http.post(path(project), content=b"x"), 405, "method-not-allowed"),
    ):
        problem(answer, status, name)
    assert await names(http, project) == []
    assert await uploads(api_url, project) == 0


async def test_an_upload_is_for_a_name_without_content_or_with_a_known_one(
    http: httpx.AsyncClient, project: str, api_url: str
) -> None:
    """Small bodies are one call, large ones several: each compares what is there, the large ones before the body is read, too."""
    for name, data in (("small", b"x"), ("large", DATA)):
        problem(
            await http.put(path(project, name), content=data, headers={"If-Match": f'"{SHA256}"'}),
            412,
            "precondition-failed",
        )
        made = await http.put(path(project, name), content=data, headers={"If-None-Match": "*"})
        assert made.status_code == 200, made.text
        taken = await http.put(path(project, name), content=data, headers={"If-None-Match": "*"})
        problem(taken, 412, "precondition-failed")
        assert taken.json()["facts"] == {"sha256": made.json()["sha256"]}
        replaced = await http.put(path(project, name), content=data + b"!", headers={"If-Match": made.headers["etag"]})
        assert replaced.status_code == 200, replaced.text
        problem(await http.put(path(project, name, expect="0"), content=data), 409, "conflict")
        body = {"project": project, "artifact": name, "data": base64.b64encode(b"x").decode()}
        headers = {"If-Match": replaced.headers["etag"]}
        assert (await http.post("/v1/artifacts/put", json=body, headers=headers)).status_code == 200
        problem(await http.post("/v1/artifacts/put", json=body, headers=headers), 412, "precondition-failed")
    assert await uploads(api_url, project) == 0


async def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(daemon: Daemon, project: str) -> None:
    url = urlsplit(daemon.url)
    with socket.create_connection((url.hostname, url.port)) as client:
        head = f"PUT {path(project)} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {64 * MIB + 1}\r\n\r\n"
        client.sendall(head.encode())
        assert (await anyio.to_thread.run_sync(client.recv, 1000)).startswith(b"HTTP/1.1 413")


async def test_a_client_that_disconnects_leaves_nothing(
    daemon: Daemon, http: httpx.AsyncClient, project: str, api_url: str
) -> None:
    url = urlsplit(daemon.url)
    with socket.create_connection((url.hostname, url.port)) as client:
        head = f"PUT {path(project)} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {len(DATA)}\r\n\r\n"
        await anyio.to_thread.run_sync(client.sendall, head.encode() + DATA[:-1])

        async def begun() -> bool:
            return await uploads(api_url, project) == 1

        await until(begun)

    async def gone() -> bool:
        return await uploads(api_url, project) == 0

    await until(gone)
    assert await names(http, project) == []


async def test_a_reader_of_the_old_content_finishes(http: httpx.AsyncClient, project: str) -> None:
    await http.put(path(project), content=DATA)
    async with http.stream("GET", path(project)) as got:
        pieces = got.aiter_raw(1000)
        first = await anext(pieces)
        await http.put(path(project), content=b"new")
        assert first + b"".join([piece async for piece in pieces]) == DATA
    assert (await http.get(path(project))).content == b"new"


def begin_put(daemon: Daemon, project: str, size: int, data: bytes) -> socket.socket:
    """Send the head of an upload and the first bytes of its body."""
    url = urlsplit(daemon.url)
    client = socket.create_connection((url.hostname, url.port))
    head = f"PUT {path(project)} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {size}\r\n\r\n"
    client.sendall(head.encode() + data)
    return client


async def test_beyond_a_number_of_transfers_the_response_asks_clients_to_try_again(database_url: str) -> None:
    with Daemon(database_url, constants={"coordinator.api.transfers.TRANSFERS": 1}) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as http:
            assert (await http.put(path("default"), content=b"x")).status_code == 200
            with begin_put(daemon, "default", len(DATA), b"x"):

                async def begun() -> bool:
                    return await uploads(database_url, "default") == 1

                await until(begun)
                for refused in (await http.get(path("default")), await http.put(path("default"), content=DATA)):
                    problem(refused, 503, "overloaded")
                    assert refused.headers["retry-after"]

            async def free() -> bool:
                return (await http.get(path("default"))).status_code == 200

            await until(free)
            assert await uploads(database_url, "default") == 0


async def test_stalled_clients_are_disconnected(database_url: str) -> None:
    with Daemon(database_url, http_body_s=0.3, http_write_deadline_s=0.3) as daemon:
        await daemon.ready()
        with begin_put(daemon, "default", len(DATA), b"x") as client:
            client.settimeout(DEADLINE_S)
            assert (await anyio.to_thread.run_sync(client.recv, 1000)).startswith(b"HTTP/1.1 408")

        async def gone() -> bool:
            return await uploads(database_url, "default") == 0

        await until(gone)
        async with coordinator.connect(database_url) as direct:
            await direct.artifacts.put("a", bytes(12 * MIB))
        url = urlsplit(daemon.url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(DEADLINE_S)
            client.connect((url.hostname, url.port))
            client.sendall(f"GET {path('default')} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
            assert (await anyio.to_thread.run_sync(client.recv, 15)) == b"HTTP/1.1 200 OK"

            async def over() -> bool:
                return await daemon.metric("coordinator_artifact_transfers") == 0

            await until(over)
            size = 0
            with suppress(ConnectionResetError):
                while data := await anyio.to_thread.run_sync(client.recv, MIB):
                    size += len(data)
            assert size < 12 * MIB


@pytest.mark.slow
@pytest.mark.parametrize(("size", "senders"), [(6, 1), pytest.param(64, 3, marks=pytest.mark.long)])
async def test_the_largest_uploads_and_slow_downloads_keep_a_daemon_small(
    database_url: str, size: int, senders: int
) -> None:
    whole = random.Random(8).randbytes(MIB) * size
    with Daemon(database_url, max_connections=20) as daemon:
        await daemon.ready()
        url = urlsplit(daemon.url)
        async with http_client(daemon.url) as http:
            assert (await http.put(path("default"), content=chunks(whole, MIB))).status_code == 200
            slow = []
            try:
                for number in range(40):  # some read nothing, the others have not sent all
                    client = socket.create_connection((url.hostname, url.port))
                    slow.append(client)
                    if number % 2:
                        client.sendall(f"GET {path('default')} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
                        continue
                    head = f"PUT {path('default', f'b{number}')} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {len(whole)}\r\n\r\n"
                    client.setblocking(False)
                    client.send(head.encode() + whole[:MIB])
                await daemon.ready()
            finally:
                for client in slow:
                    client.close()
            async with anyio.create_task_group() as tasks:

                async def send(number: int) -> None:
                    answer = await http.put(path("default", f"c{number}"), content=chunks(whole, MIB))
                    assert answer.status_code == 200, answer.text
                    got = await http.get(path("default", f"c{number}"))
                    assert got.content == whole

                for number in range(senders):
                    tasks.start_soon(send, number)
        note("peak of the daemon, kB", [peak_kb(daemon)])
        assert peak_kb(daemon) < MAX_KB
