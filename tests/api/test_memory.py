"""With the worst requests of one token, a daemon stays below 300 MB and continues to serve others."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

import coordinator
from coordinator import operations
from coordinator.api.memory import Memory
from coordinator.api.problems import Overloaded
from coordinator.db.call import _plan, statement
from coordinator.model.catalogue import LIMITS
from coordinator.model.page import walk
from coordinator.operations import signals
from tests.conftest import Transaction
from tests.daemon import Daemon, note, opened
from tests.http_client import http_client
from tests.waiting import DEADLINE_S

MAX_KB = 300_000
LARGE = "to_jsonb(repeat(md5(i::text), 8000))"  # 256 kB
NUMBERS = "to_jsonb(array_fill('1e308'::numeric, '{800}'))"  # 249 kB as text, 10 kB as stored


async def fill(database_url: str, count: int, value: str) -> None:
    async with opened(database_url) as connection:
        await connection.execute(
            f"select coordinator.signal_set('default', 'k/' || lpad(i::text, 6, '0'), {value}) from generate_series(1, {count}) i"
        )
        await connection.execute(
            "select coordinator.message_append('default', 's', to_json(repeat('x', 1000000)), 'user') from generate_series(1, 4)"
        )
        while await connection.fetchval("select moved from coordinator.relay_step()"):
            pass


def peak_kb(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


@contextmanager
def unread(http: httpx.AsyncClient, *requests: bytes) -> Iterator[None]:
    """Send requests, each on a connection of its own, and read none of the responses."""
    url = urlsplit(str(http.base_url))
    with ExitStack() as stack:
        for request in requests:
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((url.hostname, url.port))
            client.sendall(request.replace(b"\r\n", f"\r\nHost: {url.netloc}\r\n".encode(), 1))
        yield


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\n\r\n".encode()


@pytest.fixture(params=[(25, LARGE), (25, NUMBERS), pytest.param((2000, LARGE), marks=pytest.mark.long)])
async def daemon(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Daemon]:
    await fill(database_url, *request.param)
    with Daemon(database_url, max_connections=20) as daemon:
        await daemon.ready()
        yield daemon


@pytest.mark.slow
async def test_the_worst_requests_keep_a_daemon_small(daemon: Daemon) -> None:
    body = b'{"key": "b", "value": [' + b"{}," * 340_000 + b"{}]}"
    head = b"POST /v1/signals/set HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with http_client(daemon.url) as http:
        http.timeout = httpx.Timeout(5 * DEADLINE_S)  # a busy machine takes long to refuse so much
        with unread(
            http,
            *[get("/v1/messages/window?session=s&last=10")] * 60,
            *[get("/v1/signals?limit=10000")] * 30,
            *[get("/v1/signals/k/000001")] * 50,
            *[get("/v1/events?limit=10000")] * 30,
            *[get("/v1/events/stream?after=start")] * 50,
            *[head + body[:-10]] * 50,
        ):
            async with anyio.create_task_group() as tasks:

                async def call(path: str) -> None:
                    assert (await http.get(path)).status_code in (200, 503)

                async def send() -> None:
                    response = await http.post(
                        "/v1/signals/set", content=body, headers={"Content-Type": "application/json"}
                    )
                    assert response.status_code in (422, 503), response.text

                for _ in range(4):
                    tasks.start_soon(call, "/v1/signals?limit=10000")
                    tasks.start_soon(call, "/v1/events?limit=10000")
                    tasks.start_soon(call, "/v1/messages/window?session=s&last=10")
                    tasks.start_soon(send)
            small = {"key": "other", "value": 1}
            assert (await http.post("/v1/signals/set", json=small)).status_code == 200
            assert (await http.get("/v1/signals/other")).json()["value"] == 1
            await daemon.ready()
        note("peak of the daemon, kB", [peak_kb(daemon)])
        assert peak_kb(daemon) < MAX_KB


@pytest.mark.slow
async def test_the_largest_batches_uploads_and_password_checks_at_once_keep_a_daemon_small(database_url: str) -> None:
    """40 uploads that stand still with a part each, and meanwhile batches of 4 MiB, and checks of passwords of 32 MiB each."""
    entries = b",".join([b'{"data": [%s 1]}' % (b'{"a": {}},' * 400)] * 1000)
    batch = b'{"kind": "note", "key": "%d", "entries": [' + entries + b"]}"
    assert LIMITS["log_batch_bytes"] - 200_000 < len(batch) < LIMITS["log_batch_bytes"]
    part = bytes(1 << 20)
    with Daemon(database_url, max_connections=20) as daemon, ExitStack() as stack:
        await daemon.ready()
        url = urlsplit(daemon.url)
        for number in range(40):
            client = stack.enter_context(socket.create_connection((url.hostname, url.port)))
            client.setblocking(False)  # what the daemon does not take stays here
            head = f"PUT /v1/artifacts/{number} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {64 << 20}\r\n\r\n"
            client.send(head.encode() + part)
        async with http_client(daemon.url) as http, anyio.create_task_group() as tasks:
            http.timeout = httpx.Timeout(5 * DEADLINE_S)

            async def send(path: str, body: bytes, status: int) -> None:
                headers = {"Content-Type": "application/json"}
                while (answer := await http.post(path, content=body, headers=headers)).status_code == 503:
                    await anyio.sleep(0.05)  # the response asked to try again
                assert answer.status_code == status, answer.text

            for number in range(8):  # all at once, these would take 256 MiB
                if number < 3:
                    tasks.start_soon(send, "/v1/logs/append", batch % number, 200)
                check = b'{"username": "user%d", "password": "%s"}' % (number, b"long " * 199)
                tasks.start_soon(send, "/v1/users/verify", check, 401)
        note("peak of the daemon, kB", [peak_kb(daemon)])
        assert peak_kb(daemon) < MAX_KB


@pytest.mark.slow
async def test_a_list_of_millions_of_items_stays_whole(database_url: str) -> None:
    batches = {
        "projects/import": b'{"project": "default", "export": "%s", "lines": [' % (b"1" * 32)
        + b"1," * 4_100_000
        + b"1]}",
        "jobs/enqueue_many": b'{"jobs": [' + b"1," * 4_100_000 + b"1]}",
    }
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as http:
            http.timeout = httpx.Timeout(5 * DEADLINE_S)
            for verb, body in batches.items():
                response = await http.post(f"/v1/{verb}", content=body, headers={"Content-Type": "application/json"})
                assert response.status_code == 422, response.text
        assert peak_kb(daemon) < MAX_KB


@pytest.mark.slow
async def test_pages_that_end_by_their_size_lead_to_all_rows(database_url: str) -> None:
    await fill(database_url, 10, LARGE)
    with Daemon(database_url) as daemon:
        await daemon.ready()
        page = (await daemon.get("/v1/signals?limit=1000")).json()
        assert 1 < len(page["items"]) < 10
        assert page["cursor"]
        for url in (database_url, daemon.url):
            async with coordinator.connect(url) as client:
                first = await client.signals.list("k/")
                assert len(first) == len(page["items"])
                assert first.cursor
                assert [signal.key[-2:] async for signal in client.signals.list("k/")] == [
                    f"{number:02}" for number in range(1, 11)
                ]
                stream = client.events.stream(after=None, topics=["signal.*"])
                assert [(await anext(stream)).seq for _ in range(10)] == list(range(1, 11))


async def test_bytes_are_held_in_order_and_released() -> None:
    memory = Memory(10, wait_s=0.01)
    order: list[str] = []
    with memory.hold() as first:
        await first.reserve(8)
        with memory.hold() as second, pytest.raises(Overloaded):
            await second.reserve(4)
        first.keep(6)
        with memory.hold() as second:
            await second.reserve(4)
    patient = Memory(10, wait_s=DEADLINE_S)

    async def want(name: str, size: int) -> None:
        with patient.hold() as hold:
            await hold.reserve(size)
            order.append(name)

    async with anyio.create_task_group() as tasks:
        with patient.hold() as all_:
            await all_.reserve(99)  # as much as there is
            tasks.start_soon(want, "large", 9)
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(want, "small", 1)
            await anyio.lowlevel.checkpoint()
            assert order == []
    assert order == ["large", "small"]
    with patient.hold() as hold:
        await hold.reserve(10)
        await hold.reserve(5)  # one request gets through, however large it is


def test_every_list_ends_its_pages_by_size() -> None:
    for kind in operations.every():
        assert ("total" in statement(kind)) == bool(kind.page_by or kind.reads_log), kind.function


async def test_a_row_larger_than_a_page_is_a_page(tx: Transaction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.db.call.PAGE_BYTES", 10)
    statement.cache_clear()
    _plan.cache_clear()
    try:
        for key in "abc":
            await tx.run(signals.Set(project="default", key=key, value="x" * 100))
        pages = [page async for page in walk(tx.run, signals.List(project="default"))]
    finally:
        statement.cache_clear()
        _plan.cache_clear()
    assert [[signal.key for signal in page] for page in pages] == [["a"], ["b"], ["c"]]
    assert [page.cut for page in pages] == [True, True, False]
