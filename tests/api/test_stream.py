"""The event stream: its frames, filters, limits and end."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from tests.api.sse import emit, stream
from tests.api.test_operations import post
from tests.api.test_problems import problem
from tests.daemon import Daemon
from tests.http_client import http_client
from tests.waiting import DEADLINE_S, until


async def test_a_stream_starts_with_ready_and_sends_what_happens_from_then_on(
    http: httpx.AsyncClient, project: str
) -> None:
    async with stream(http, project=project, topic="custom.*") as earlier:
        await earlier.until("ready")
        await emit(http, project, "before")
        await earlier.events(1)
    async with stream(http, project=project, topic="custom.*") as frames:
        ready = await frames.next()
        assert ready
        assert (ready.event, ready.id) == ("ready", ready.data["cursor"])
        await emit(http, project, "after")
        (frame,) = await frames.until("custom.tick")
        assert frame.id == frame.data["cursor"]
        assert (frame.data["key"], frame.data["project"], frame.data["type"]) == ("after", project, "custom.tick")
    assert frames.response.headers["content-type"].startswith("text/event-stream")


@pytest.mark.slow
async def test_a_stream_after_a_cursor_sends_the_backlog_first_and_misses_nothing(
    http: httpx.AsyncClient, project: str
) -> None:
    keys = [str(number) for number in range(200)]
    await emit(http, project, *keys[:100])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(emit, http, project, *keys[100:])
        async with stream(http, project=project, topic="custom.*", after="start") as frames:
            found = await frames.events(200)
    assert [frame.data["key"] for frame in found] == keys


async def test_last_event_id_overrides_after(http: httpx.AsyncClient, project: str) -> None:
    await emit(http, project, "1", "2", "3")
    async with stream(http, project=project, topic="custom.*", after="start") as frames:
        found = await frames.events(3)
    headers = {"Last-Event-ID": found[1].id or ""}
    async with stream(http, project=project, topic="custom.*", after="start", headers=headers) as frames:
        assert [frame.data["key"] for frame in await frames.events(1)] == ["3"]


async def test_filters_are_by_project_topic_and_actor(http: httpx.AsyncClient, project: str) -> None:
    other = f"{project}-2"
    await post(http, "projects/create", project=other)
    async with (
        stream(http, project=[project, other], topic=["custom.a", "signal.*"], exclude_self="me") as both,
        stream(http, project=other, topic=["custom.*", "signal.*"]) as one,
        stream(http, topic="custom.*") as everything,
    ):
        for frames in (both, one, everything):
            await frames.until("ready")
        await emit(http, project, "1", type="custom.a")
        await emit(http, project, "2", type="custom.ab")
        await emit(http, project, "3", type="custom.a", actor="me")
        await post(http, "signals/set", project=other, key="4", value=1)
        await emit(http, other, "5", type="custom.a")
        await emit(http, project, "6", type="custom.a.b")
        assert [frame.data["key"] for frame in await both.events(3)] == ["1", "4", "5"]
        assert [frame.data["key"] for frame in await one.events(2)] == ["4", "5"]
        assert [frame.data["key"] for frame in await everything.events(5, (project, other))] == [
            "1",
            "2",
            "3",
            "5",
            "6",
        ]


async def test_two_subscribers_with_the_same_filter_see_the_same_bytes(http: httpx.AsyncClient, project: str) -> None:
    async with (
        stream(http, project=project, topic="custom.*") as early,
        stream(http, project=project, topic="custom.*", exclude_self="nobody") as other,
    ):
        await early.until("ready")
        await other.until("ready")
        await emit(http, project, *[str(number) for number in range(50)])
        seen = await early.events(50)
        assert await other.events(50) == seen
        async with stream(http, project=project, topic="custom.*", after="start") as late:
            assert await late.events(50) == seen


async def test_a_filter_that_matches_nothing_gets_bookmarks_and_heartbeats(
    http: httpx.AsyncClient, project: str
) -> None:
    async with stream(http, project=project, topic="custom.never") as frames:
        (ready,) = await frames.until("ready")
        await emit(http, project, "1")
        query = {"project": project, "topic": "custom.*", "after": str(ready.id), "wait": "20s"}
        (event,) = (await http.get("/v1/events", params=query)).json()["items"]
        marked = None
        while marked is None or marked.id is None or int(marked.id.partition(".")[2]) < event["seq"]:
            marked = await frames.next()
            assert marked
            assert marked.event is None
        silent = marked
        while silent.comment is None:
            silent = await frames.next()
            assert silent
            assert silent.event is None
    async with stream(http, project=project, topic="custom.*", headers={"Last-Event-ID": marked.id}) as frames:
        await frames.until("ready")
        await emit(http, project, "2")
        assert [frame.data["key"] for frame in await frames.events(1)] == ["2"]


async def test_a_cursor_of_another_history_gets_a_reset_and_then_what_follows(
    http: httpx.AsyncClient, project: str
) -> None:
    async with stream(http, project=project, topic="custom.*", after="restored.5") as frames:
        (_, reset) = await frames.until("reset")
        assert reset.data["data"]["reason"] == "restored"
        await emit(http, project, "1")
        assert [frame.data["key"] for frame in await frames.events(1)] == ["1"]
        assert frames.last_id != "restored.5"


@pytest.mark.slow
async def test_a_cursor_that_the_server_has_not_reached_gets_an_error_and_no_reset(database_url: str) -> None:
    with Daemon(database_url, constants={"coordinator.api.stream.BEHIND_S": 0.0}) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as http:
            head = (await http.get("/v1/events/head")).json()["result"]
            epoch, _, seq = head.partition(".")
            later = f"{int(epoch, 16) + 2**20:x}.1"
            for after in (f"{epoch}.{int(seq) + 1000}", later):
                page = await http.get("/v1/events", params={"after": after})
                assert (page.status_code, page.json()["code"]) == (503, "ZC710")
                assert "try again" in page.json()["hint"]
                async with stream(http, topic="custom.*", after=after) as frames:
                    *_, bye = await frames.until("bye")
                    assert bye.data["reason"].startswith("behind:")
            async with stream(http, topic="custom.*", after=head) as frames:
                await emit(http, "default", "1")
                assert [frame.data["key"] for frame in await frames.events(1)] == ["1"]


@pytest.mark.slow
async def test_a_small_ring_sends_the_rest_from_the_log(database_url: str) -> None:
    with Daemon(database_url, http_ring_events=10, http_page=7, http_heartbeat_s=1.0) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as http:
            keys = [str(number) for number in range(60)]
            async with stream(http, topic="custom.*") as live:
                await live.until("ready")
                await emit(http, "default", *keys)
                assert [frame.data["key"] for frame in await live.events(60)] == keys
            async with stream(http, topic="custom.*", after="start", exclude_self="x") as late:
                assert [frame.data["key"] for frame in await late.events(60)] == keys


def connect(http: httpx.AsyncClient, query: str) -> socket.socket:
    """Return a subscriber that reads only when the test does."""
    url = urlsplit(str(http.base_url))
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((url.hostname, url.port))
    client.sendall(f"GET /v1/events/stream?{query} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    return client


def read_all(client: socket.socket) -> bytes:
    client.settimeout(DEADLINE_S)
    data = b""
    while part := client.recv(65536):
        data += part
    return data


@pytest.fixture
async def lasting(database_url: str) -> AsyncIterator[Daemon]:
    """A daemon that waits for a slow reader for longer than any test."""
    with Daemon(database_url, http_write_deadline_s=3600) as daemon:
        yield await daemon.ready()


@pytest.mark.slow
async def test_a_stream_that_does_not_read_disturbs_no_other(lasting: Daemon) -> None:
    async with http_client(lasting.url) as http:
        with connect(http, "topic=custom.*"):
            async with stream(http, topic="custom.*") as frames:
                await frames.until("ready")
                for number in range(150):
                    await emit_big(http, "default", number)
                    (frame,) = await frames.events(1)
                    assert frame.data["key"] == str(number)
    assert not await lasting.metric('coordinator_stream_closed_total{reason="slow"}')


async def emit_big(http: httpx.AsyncClient, project: str, number: int) -> None:
    body = {"project": project, "type": "custom.big", "key": str(number), "data": {"text": "x" * 60_000}}
    assert (await http.post("/v1/events/emit", json=body)).status_code == 200


@pytest.mark.slow
async def test_a_stream_that_does_not_read_is_closed_with_a_reason(
    http: httpx.AsyncClient, project: str, daemon: Daemon
) -> None:
    with connect(http, f"project={project}&topic=custom.*") as slow:
        for number in range(150):
            await emit_big(http, project, number)

        async def closed() -> bool:
            return await daemon.metric('coordinator_stream_closed_total{reason="slow"}') >= 1

        await until(closed, "the slow reader is closed")
        data = await anyio.to_thread.run_sync(read_all, slow)
    assert b"event: bye" in data
    assert b'"reason":"slow' in data
    seqs = [int(line.rpartition(b".")[2]) for line in data.split(b"\n") if line.startswith(b"id: ")]
    assert seqs == sorted(seqs)
    assert "request.failed" not in daemon.events()


@pytest.mark.slow
async def test_a_stream_that_reads_slowly_gets_everything_in_order(lasting: Daemon) -> None:
    async with http_client(lasting.url) as http:
        data = await read_slowly(http)
    seqs = [int(seq) for seq in re.findall(rb"id: \w+\.(\d+)\nevent: custom.big", data)]  # without bookmarks
    assert len(seqs) >= 60
    assert seqs == sorted(set(seqs))


async def read_slowly(http: httpx.AsyncClient) -> bytes:
    """Read 60 large events, in small pieces."""
    with connect(http, "topic=custom.*&after=now") as slow:
        slow.settimeout(DEADLINE_S)
        data = await anyio.to_thread.run_sync(slow.recv, 4096)
        assert b"event: ready" in data or b"200 OK" in data
        count = 60

        def read() -> bytes:
            mark, seen, found = b"event: custom.big", 0, bytearray()
            while seen < count:
                part = slow.recv(3000)
                assert part, found[-200:]
                seen += (found[1 - len(mark) :] + part).count(mark)
                found += part
            return bytes(found)

        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                for number in range(count):
                    await emit_big(http, "default", number)

            tasks.start_soon(write)
            return await anyio.to_thread.run_sync(read)


@pytest.fixture
async def own(database_url: str) -> AsyncIterator[Daemon]:
    """A daemon that waits long for connections to end: at shutdown it must end them itself."""
    constants = {"coordinator.api.server.DRAIN_S": 600}
    with Daemon(database_url, constants=constants, http_streams=3, http_heartbeat_s=1.0) as daemon:
        yield await daemon.ready()


@pytest.mark.slow
async def test_beyond_the_limit_of_streams_the_status_is_503(own: Daemon) -> None:
    async with http_client(own.url) as http:
        await post(http, "agents/register", name="a", ttl="1h")
        async with stream(http) as one, stream(http) as two:
            await one.until("ready")
            await two.until("ready")
            async with stream(http) as three:
                await three.until("ready")
                answer = await http.get("/v1/events/stream")
                problem(answer, 503, "overloaded")
                assert answer.headers["retry-after"] == "1"
                problem(await http.get("/v1/directives/inbox?agent=a&wait=5s"), 503, "overloaded")
                assert (await http.get("/v1/directives/inbox?agent=a")).status_code == 200

        async def room() -> bool:
            return await own.metric("coordinator_stream_connections") == 0

        await until(room, "the closed streams are gone")
        async with stream(http) as again:
            await again.until("ready")


@pytest.mark.slow
async def test_at_shutdown_every_stream_gets_bye_and_every_wait_a_response(own: Daemon) -> None:
    async with http_client(own.url) as http, anyio.create_task_group() as tasks:
        answers: list[httpx.Response] = []
        await post(http, "agents/register", name="a", ttl="1h")

        async def wait() -> None:
            answers.append(await http.get("/v1/directives/inbox?agent=a&wait=60s"))

        tasks.start_soon(wait)
        async with stream(http) as frames:
            await frames.until("ready")

            async def waiting() -> bool:
                return await own.metric("coordinator_stream_connections") == 2

            await until(waiting, "the long-poll waits")
            own.send(signal.SIGTERM)
            bye = (await frames.until("bye"))[-1]
            assert bye.data["reason"].startswith("shutdown")
            assert await frames.next() is None
    assert answers[0].json()["items"] == []
    assert await own.ended() == 0
    assert not [line for line in own.lines() if line["level"] == "error"], own.output()
