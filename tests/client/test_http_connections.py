"""What servers, networks and certificates can do to a connection, and what the caller learns. Each server is a script."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from coordinator.client import http_pool
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
    """Follows a script, which gets the number of the connection; ``open`` and ``most`` count connections."""

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

    async def end(self) -> None:
        """Send no more, and wait until the client has hung up."""
        self._writer.write_eof()
        await self.gone()

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
    await until(lambda: not server.open, "every connection is closed with the executor")


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
        await link.end()

    async with serving(script) as (executor, server):
        assert await executor.run(WRITE) == 7
        closed.set()
        await until(lambda: not server.open, "the client has noticed")
        assert await executor.run(WRITE) == 7
        assert server.links == 2


@pytest.mark.parametrize(
    ("operation", "key", "answers"),
    [(READ, None, True), (WRITE, None, False), (WRITE, "once", True)],
    ids=["read", "write", "write with key"],
)
async def test_a_call_whose_keep_alive_connection_ends_without_a_response_is_repeated_only_if_that_does_no_harm(
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


async def test_a_call_is_repeated_only_once() -> None:
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
async def test_a_response_that_is_cut_in_the_middle_is_an_error_and_the_call_is_not_repeated(part: bytes) -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(part)

    for operation, hint in ((READ, "Try again."), (WRITE, "A write may or may not have succeeded.")):
        async with serving(script) as (executor, server):
            error = await unavailable(executor, operation)
            assert "in the middle" in error.message
            assert error.hint == hint
            assert len(server.asked) == 1


async def test_a_response_that_comes_byte_by_byte_is_read() -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        for byte in answer():
            await link.send(bytes([byte]))
            await asyncio.sleep(0)

    async with serving(script) as (executor, _):
        assert await executor.run(READ) == "a.7"


async def test_a_response_that_trickles_in_does_not_extend_the_deadline() -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(answer())
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await link.send(b"1\r\n \r\n")
            await asyncio.sleep(0.01)

    async with serving(script) as (executor, _):
        await executor.run(READ)  # connecting has a deadline of its own
        executor._timeout_s = 0.2
        assert "no complete response within 0.2 seconds" in (await unavailable(executor)).message


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
async def test_an_endless_response_is_aborted(
    endless: Callable[[Link], Awaitable[None]], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_pool, "MAX_BODY", 1 << 20)

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
async def test_a_malformed_response_is_an_error(nonsense: bytes) -> None:
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
async def test_every_form_of_a_response_is_read(form: bytes) -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.request()
        await link.send(form)

    async with serving(script) as (executor, _):
        assert await executor.run(READ) == "a.7"


@pytest.mark.parametrize("surplus", [b"x", answer(), b"HTTP/1.1 200 OK\r\n"])
async def test_bytes_after_a_response_never_answer_another_request(surplus: bytes) -> None:
    async def script(server: Server, link: Link, number: int) -> None:
        if number > 1:
            await polite(server, link, number)
        await link.request()
        await link.send(answer() + surplus)
        await link.request()
        await link.send(b"content-length: 20\r\n\r\n" + b'{"result":"another"}')
        await link.gone()

    async with serving(script) as (executor, server):
        results = []
        for _ in range(3):
            try:
                results.append(await executor.run(READ))
            except DatabaseUnavailable as error:
                results.append(error.message)
        assert all(result == "a.7" or "is malformed" in result for result in results)
        assert results[-1] == "a.7"
        assert server.links >= 2


@pytest.mark.parametrize("unasked", [b"x", answer(b'{"result":"another"}')])
async def test_a_connection_with_unsolicited_data_is_not_used_again(unasked: bytes) -> None:
    send, sent = asyncio.Event(), asyncio.Event()

    async def script(_server: Server, link: Link, number: int) -> None:
        await link.request()
        await link.send(answer(DONE))
        if number == 1:
            await send.wait()
            await link.send(unasked)
            sent.set()
        await link.gone()

    async with serving(script) as (executor, server):
        assert await executor.run(WRITE) == 7
        connector = executor._pool._kept.connector
        send.set()
        await sent.wait()
        await until(
            lambda: all(protocol.should_close for kept in connector._conns.values() for protocol, _ in kept),
            "it has come",
        )
        assert await executor.run(WRITE) == 7
        assert server.links == 2


async def test_a_repeated_call_uses_a_new_connection_and_not_another_kept_one() -> None:
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


async def test_a_response_after_the_deadline_answers_no_other_call() -> None:
    leave = asyncio.Event()

    async def script(_server: Server, link: Link, number: int) -> None:
        await link.request()
        if number == 1:
            await link.send(answer())
            await link.request()
            await leave.wait()
        await link.send(answer(b'{"result":"a.%d"}' % number))
        await link.gone()

    async with serving(script) as (executor, server):
        await executor.run(READ)  # connecting has a deadline of its own
        executor._timeout_s = 0.5
        assert "within 0.5 seconds" in (await unavailable(executor)).message
        executor._timeout_s = DEADLINE_S
        leave.set()
        assert await executor.run(READ) == "a.2"
        assert len(server.asked) == 3


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    async with serving() as (executor, server):
        assert await executor.run(READ) == "a.7"
        assert server.links == 1


async def test_any_number_of_concurrent_calls_shares_the_maximum_of_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_pool, "MAX_CONNECTIONS", 3)
    async with serving() as (executor, server):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(executor.run, READ)
        assert len(server.asked) == 50
        assert server.most == 3


async def test_a_call_that_gets_no_connection_in_time_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pool, "MAX_CONNECTIONS", 1)

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
    monkeypatch.setattr(http_pool, "KEEP_ALIVE_S", 0.1)
    async with serving() as (executor, server):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(executor.run, READ)
        assert server.most == 3
        await until(lambda: not server.open, "all are closed")
        await executor.run(READ)
        assert server.links == 4


async def test_another_address_of_the_host_is_tried_if_one_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(_host: str, port: int, **_given: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    async with serving() as (_, server), HttpExecutor.open(f"http://two.test:{server.port}", Config()) as executor:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        assert await executor.run(READ) == "a.7"
        assert server.links == 1


async def test_an_invalid_host_is_unavailable(unresolved: None) -> None:
    for host in ("nowhere.invalid", "x" * 64 + ".invalid"):
        async with HttpExecutor.open(f"http://{host}:7420", Config()) as executor:
            assert host in (await unavailable(executor)).message


async def test_a_stream_lasts_while_signs_of_life_come_and_is_opened_again_after_45_silent_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    true_time, skipped_s = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: true_time() + skipped_s)
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    heard: list[bytes] = []
    follow = http_pool.HttpPool.follow

    async def noted(self: http_pool.HttpPool, path: str, hear: Callable[[bytes], None], *given: Any) -> Any:
        def note(piece: bytes) -> None:
            heard.append(piece)
            hear(piece)

        return await follow(self, path, note, *given)

    monkeypatch.setattr(http_pool.HttpPool, "follow", noted)

    async def script(_server: Server, link: Link, number: int) -> None:
        await link.request()
        if number != 2:
            await link.send(b"HTTP/1.1 200 OK\r\n\r\nevent: ready\n\n")
        while piece := await pieces.get():
            await link.send(piece)

    async with serving(script) as (executor, server), executor.wake() as wake:
        assert await wake.wait(DEADLINE_S)
        for _ in range(3):
            skipped_s += 40
            heard.clear()
            pieces.put_nowait(b":\n\n")
            await until(lambda: b":\n\n" in heard, "a sign of life has come")
            skipped_s += 40
            pieces.put_nowait(b"event: x\n\n")
            assert await wake.wait(DEADLINE_S)
        assert server.links == 1
        skipped_s += 46
        await until(lambda: len(server.asked) == 2, "the stream is opened again")
        skipped_s += 46
        await until(lambda: server.links == 3, "the stream is opened a third time")
        for _ in range(3):
            pieces.put_nowait(b"")


async def test_a_stream_wakes_at_every_piece_and_its_end_is_not_an_error() -> None:
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
        await until(lambda: server.links == 2, "the stream is opened again")


@pytest.mark.parametrize("bad", ["a\r\nx: y", "a\0", "\u00fc", "a\nb"])
async def test_a_header_cannot_be_injected(bad: str) -> None:
    async with serving() as (executor, server):
        with pytest.raises(InvalidArgument):
            await executor.run(WRITE, idempotency_key=bad)
        assert not server.asked
    with pytest.raises(ConfigurationError) as raised:
        async with serving(token=bad):
            pytest.fail("entered")
    assert bad not in str(raised.value)


async def test_tls_with_a_private_authority(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with serving(scheme="https", certificate=certificate) as (executor, server):
        for _ in range(3):
            assert await executor.run(READ) == "a.7"
        assert server.links == 1


async def test_tls_with_an_untrusted_certificate_is_an_error_that_says_so_and_sends_nothing(
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


async def test_tls_to_a_plain_port_is_an_error_that_says_so() -> None:
    async def script(_server: Server, link: Link, _number: int) -> None:
        await link.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await link.gone()

    async with serving(script, scheme="https") as (executor, _):
        assert "TLS failed" in (await unavailable(executor)).message
