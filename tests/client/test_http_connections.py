"""What servers, networks and certificates can do to a connection, and what the caller is told. Each server is a script."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import pytest

from coordinator.client import http_connection, http_pool
from coordinator.client.http import HttpExecutor
from coordinator.config import Config
from coordinator.db.session import SessionWake
from coordinator.errors import ConfigurationError, DatabaseUnavailable, InvalidArgument
from coordinator.operations import events, signals
from tests.waiting import DEADLINE_S, until

BODY, DONE = b'{"result":"a.7"}', b'{"result":7}'
READ = events.Head()
WRITE = signals.Delete(project="default", key="k")


class Server:
    """Answers by a script, which is told the number of the connection; ``open`` and ``most`` count connections."""

    def __init__(self, script: Callable[[Server, Link, int], Awaitable[None]]) -> None:
        self.links = self.open = self.most = 0
        self.asked: list[bytes] = []
        self._script = script
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.links += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self._script(self, Link(self, reader, writer), self.links)
        except (EOFError, OSError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()


class Link:
    """One connection, as the server sees it."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """The next request, without its body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = [int(line.partition(b":")[2]) for line in head.splitlines() if line.startswith(b"content-length:")]
        await self._reader.readexactly(sum(size))
        self._server.asked.append(head)
        return head

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the client has hung up."""
        while await self._reader.read(1000):
            pass


def answer(body: bytes = BODY, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), lines, body)


async def polite(_server: Server, link: Link, _number: int) -> None:
    while True:
        await link.request()
        await link.send(answer())


@asynccontextmanager
async def serving(
    script: Callable[[Server, Link, int], Awaitable[None]] = polite,
    *,
    timeout_s: float = DEADLINE_S,
    scheme: str = "http",
    certificate: tuple[Path, Path] | None = None,
    token: str | None = None,
) -> AsyncIterator[tuple[HttpExecutor, Server]]:
    """A server that follows a script, and an executor that calls it."""
    server = Server(script)
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    config = Config(min_connections=1, max_connections=1, call_timeout_s=timeout_s, token=token)
    try:
        async with HttpExecutor.open(f"{scheme}://127.0.0.1:{server.port}", config) as executor:
            yield executor, server
    finally:
        listener.close()
        await listener.wait_closed()

    async def quiet() -> bool:
        return not server.open

    await until(quiet, "every connection is closed with the executor")


async def unavailable(executor: HttpExecutor, operation: Any = READ, **given: Any) -> DatabaseUnavailable:
    with pytest.raises(DatabaseUnavailable) as raised:
        await executor.run(operation, **given)
    assert raised.value.hint
    return raised.value


async def test_calls_one_after_the_other_share_a_connection() -> None:
    async with serving() as (executor, server):
        for _ in range(5):
            assert await executor.run(READ) == "a.7"
        assert server.links == 1


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again() -> None:
    closed = asyncio.Event()

    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(answer(DONE))
        await closed.wait()

    async with serving(script) as (executor, server):
        assert await executor.run(WRITE) == 7
        closed.set()

        async def noticed() -> bool:
            return not executor._pool._open

        await until(noticed, "the client has noticed")
        assert await executor.run(WRITE) == 7
        assert server.links == 2


@pytest.mark.parametrize(
    ("operation", "key", "answers"),
    [(READ, None, True), (WRITE, None, False), (WRITE, "once", True)],
    ids=["read", "write", "write with key"],
)
async def test_a_kept_connection_that_ends_without_an_answer_is_made_good_only_where_that_can_do_no_harm(
    operation: Any, key: str | None, answers: bool
) -> None:
    body = BODY if operation is READ else DONE

    async def script(_server: Server, link: Link, number: int) -> None:
        while True:
            await link.request()
            if number == 1 and len(server.asked) == 2:
                return
            await link.send(answer(body))

    async with serving(script) as (executor, server):
        await executor.run(operation, idempotency_key=key)
        if answers:
            await executor.run(operation, idempotency_key=key)
        else:
            assert "may or may not" in str((await unavailable(executor, operation)).hint)
        assert (len(server.asked), server.links) == ((3, 2) if answers else (2, 1))
        if key:
            assert all(b"idempotency-key: once\r\n" in request for request in server.asked)


async def test_a_second_connection_that_ends_without_an_answer_is_the_last() -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()

    async with serving(script) as (executor, server):
        await unavailable(executor)
        assert server.links == 2


@pytest.mark.parametrize(
    "part",
    [
        b"H",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n",
        answer()[:-1],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n" + BODY,
    ],
)
async def test_an_answer_that_is_cut_in_the_middle_is_an_error_and_never_asked_for_again(part: bytes) -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(part)

    async with serving(script) as (executor, server):
        error = await unavailable(executor)
        assert "in the middle" in error.message
        assert "may or may not" in str(error.hint)
        assert len(server.asked) == 1


async def test_an_answer_that_comes_in_drops_is_read() -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        for byte in answer():
            await link.send(bytes([byte]))
            await asyncio.sleep(0)

    async with serving(script) as (executor, _):
        assert await executor.run(READ) == "a.7"


async def test_drops_do_not_make_the_time_of_a_call_longer() -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await link.send(b"1\r\n \r\n")
            await asyncio.sleep(0.01)

    async with serving(script, timeout_s=0.2) as (executor, _):
        assert "no whole answer within 0.2 seconds" in (await unavailable(executor)).message


async def endless_head(link: Link) -> None:
    await link.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        await link.send(b"x-%d: %b\r\n" % (number, b"x" * 1000))


async def endless_line(link: Link) -> None:
    await link.send(b"HTTP/1.1 200 OK\r\nx: ")
    for _ in range(100_000):
        await link.send(b"x" * 1000)


async def endless_body(link: Link) -> None:
    await link.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(100_000):
        await link.send(b"3e8\r\n%b\r\n" % (b"x" * 1000))


async def endless_trailer(link: Link) -> None:
    await link.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n")
    for number in range(100_000):
        await link.send(b"x-%d: %b\r\n" % (number, b"x" * 1000))


@pytest.mark.parametrize(
    ("endless", "reason"),
    [(endless_head, "head"), (endless_line, "head"), (endless_trailer, "head"), (endless_body, "more than")],
)
async def test_an_answer_without_end_is_given_up(
    endless: Callable[[Link], Awaitable[None]], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "BODY_MOST", 1 << 20)

    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await endless(link)
        pytest.fail("all of it was taken")

    async with serving(script) as (executor, server):
        assert reason in (await unavailable(executor)).message
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: some\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_an_error(nonsense: bytes) -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(nonsense)
        await link.gone()

    async with serving(script) as (executor, server):
        await unavailable(executor)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "form",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer(),
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{"\r\ne\r\nresult":"a.7"}\r\n0\r\n\r\n',
        b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n" + BODY,
    ],
    ids=["announced", "chunked", "to the end", "HTTP/1.0"],
)  # fmt: skip
async def test_every_form_of_an_answer_is_read(form: bytes) -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(form)

    async with serving(script) as (executor, _):
        assert await executor.run(READ) == "a.7"


@pytest.mark.parametrize("surplus", [b"x", answer(), b"HTTP/1.1 200 OK\r\n"])
async def test_a_connection_with_bytes_behind_its_answer_is_not_used_again(surplus: bytes) -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(answer() + surplus)
        await link.gone()

    async with serving(script) as (executor, server):
        assert [await executor.run(READ), await executor.run(READ)] == ["a.7", "a.7"]
        assert server.links == 2


async def test_a_connection_on_which_something_comes_unasked_is_not_used_again() -> None:
    unasked = asyncio.Event()

    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(answer())
        await unasked.wait()
        await link.send(answer(b'{"result":"another"}'))
        await link.gone()

    async with serving(script) as (executor, server):
        assert await executor.run(READ) == "a.7"
        unasked.set()

        async def noticed() -> bool:
            return not executor._pool._open

        await until(noticed, "the client has noticed")
        assert await executor.run(READ) == "a.7"
        assert server.links == 2


async def test_a_repetition_goes_over_a_new_connection_and_not_over_another_that_was_kept() -> None:
    async def script(_server: Server, link: Link, number: int) -> None:
        await link.request()
        await link.send(answer())
        await link.request()
        if number == 3:
            await link.send(answer())

    async with serving(script) as (executor, server):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(executor.run, READ)
        assert server.links == 2
        assert await executor.run(READ) == "a.7"
        assert server.links == 3


async def test_the_connection_of_a_cancelled_call_is_not_used_again() -> None:
    arrived, leave = asyncio.Event(), asyncio.Event()

    async def script(_server: Server, link: Link, number: int) -> None:
        await link.request()
        if number == 1:
            arrived.set()
            await leave.wait()
        await link.send(answer(b'{"result":"a.%d"}' % number))
        await link.gone()

    async with serving(script) as (executor, server):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(executor.run, READ)
            await arrived.wait()
            tasks.cancel_scope.cancel()
        leave.set()
        assert await executor.run(READ) == "a.2"
        assert server.links == 2


async def test_any_number_of_calls_at_once_is_done_over_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pool, "MOST", 3)
    async with serving() as (executor, server):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(executor.run, READ)
        assert len(server.asked) == 50
        assert server.most == 3


async def test_a_call_that_gets_no_connection_in_its_time_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pool, "MOST", 1)

    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\n\r\nevent: ready\n\n")
        await link.gone()

    async with serving(script, timeout_s=0.1) as (executor, server), executor.wake():
        error = await unavailable(executor, WRITE)
        assert "none of 1 connections" in error.message
        assert "may or may not" not in str(error.hint)
        assert len(server.asked) == 1


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (executor, server):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(executor.run, READ)
        assert server.open == 3
        monkeypatch.setattr(http_pool, "KEEP_ALIVE_S", -1)
        await executor.run(READ)

        async def closed() -> bool:
            return not server.open

        await until(closed, "all are closed")
        assert server.links == 4


async def test_another_address_of_the_host_is_tried_where_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(_host: str, port: int, **_given: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    async with serving() as (executor, server):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        assert await executor.run(READ) == "a.7"
        assert server.links == 1


async def test_a_host_that_is_none_is_unavailable() -> None:
    for host in ("nowhere.invalid", "x" * 64 + ".invalid"):
        async with HttpExecutor.open(f"http://{host}:7420", Config()) as executor:
            assert host in (await unavailable(executor)).message


async def test_a_stream_that_is_silent_for_too_long_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    patched = asyncio.Event()

    async def script(_server: Server, link: Link, number: int) -> None:
        await link.request()
        if number != 2:
            await link.send(b"HTTP/1.1 200 OK\r\n\r\nevent: ready\n\n")
        if number == 1:
            await patched.wait()
        else:
            await link.gone()

    async with serving(script) as (executor, server), executor.wake() as wake:
        assert await wake.wait(DEADLINE_S)
        monkeypatch.setattr("coordinator.client.http.SILENT_S", 0.1)
        patched.set()
        assert await wake.wait(DEADLINE_S)
        assert server.links >= 3


async def test_a_stream_may_last_for_as_long_as_it_gives_signs_of_life() -> None:
    connection = http_connection.Connection(set())
    connection.connection_made(mock.Mock(is_closing=lambda: False))
    heard: list[bytes] = []
    following = asyncio.create_task(connection.exchange(b"", heard.append, 1000))
    await asyncio.sleep(0)
    ends_at = []
    for piece in (b"HTTP/1.1 200 OK\r\n\r\n", b":\n\n", b":\n\n"):
        connection.data_received(piece)
        assert connection._reading is not None
        ends_at.append(connection._reading._timer.when())
    assert ends_at[0] < ends_at[1] < ends_at[2]
    assert heard == [b":\n\n", b":\n\n"]
    connection.connection_lost(None)
    assert (await following).status == 200


async def test_a_stream_wakes_at_every_piece_and_its_end_is_no_error() -> None:
    more = asyncio.Event()

    async def script(_server: Server, link: Link, number: int) -> None:
        assert b"GET /v1/events/stream?after=now&topic=a.b" in await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nevent: ready\n\n")
        if number == 1:
            await more.wait()
            await link.send(b"event: x\n\n")
        else:
            await link.gone()

    async def hint(wake: SessionWake) -> None:
        assert await wake.wait(DEADLINE_S)

    async with serving(script) as (executor, server), executor.wake(topics=["a.b"]) as wake:
        await hint(wake)
        more.set()
        await hint(wake)
        await hint(wake)
        assert server.links == 2


@pytest.mark.parametrize("bad", ["a\r\nx: y", "a\0", "\u00fc", "a\nb"])
async def test_a_header_cannot_be_smuggled_in(bad: str) -> None:
    async with serving() as (executor, server):
        with pytest.raises(InvalidArgument):
            await executor.run(WRITE, idempotency_key=bad)
        assert not server.asked
    with pytest.raises(ConfigurationError) as raised:
        async with serving(token=bad):
            pytest.fail("entered")
    assert bad not in str(raised.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    pair = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-out", pair[0], "-keyout", pair[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return pair


async def test_tls_with_an_authority_of_ones_own(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with serving(scheme="https", certificate=certificate) as (executor, server):
        for _ in range(3):
            assert await executor.run(READ) == "a.7"
        assert server.links == 1


async def test_tls_with_a_certificate_that_nobody_trusts_says_so_and_sends_nothing(
    certificate: tuple[Path, Path],
) -> None:
    async with serving(scheme="https", certificate=certificate) as (executor, server):
        error = await unavailable(executor, WRITE)
        assert "certificate is not trusted" in error.message
        assert "SSL_CERT_FILE" in str(error.hint)
        assert not server.asked


async def test_tls_with_a_certificate_for_another_host_says_so(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with (
        serving(certificate=certificate) as (_, server),
        HttpExecutor.open(f"https://localhost:{server.port}", Config()) as executor,
    ):
        assert "localhost" in (await unavailable(executor)).message


async def test_a_plain_port_is_not_taken_for_one_of_tls() -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await link.gone()

    async with serving(script, scheme="https") as (executor, _):
        assert "TLS failed" in (await unavailable(executor)).message
