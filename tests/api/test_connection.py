"""Slow, talkative and encrypted connections, against a server in this process."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import pytest
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from coordinator.api.connection import LimitedConnection
from coordinator.api.server import FILES_BESIDE, bind, fitted, serving
from coordinator.api.tls import Certificate, certificate_of
from coordinator.config import Config
from coordinator.errors import ConfigurationError
from coordinator.sidecar.listeners import listeners
from tests.certificate import make_pair
from tests.waiting import DEADLINE_S


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        body = await Request(scope, receive).body()
    except ClientDisconnect:
        return
    await Response(body)(scope, receive, send)


@asynccontextmanager
async def server(certificate: Certificate | None = None, **settings: Any) -> AsyncIterator[int]:
    with bind("127.0.0.1", 0) as listener:
        async with serving(echo, listener, Config(**settings), certificate):
            yield listener.getsockname()[1]


HEAD_BYTES = Config().http_head_bytes
HASTY = {"http_head_s": 0.3, "http_body_s": 0.6}


async def to_the_end(stream: anyio.abc.ByteStream) -> bytes:
    """Return what arrives until the other side closes; that it closes is half of the test."""
    received = b""
    with anyio.fail_after(DEADLINE_S):
        try:
            while True:
                received += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return received


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"])
async def test_a_small_response_is_one_packet(monkeypatch: pytest.MonkeyPatch, ending: bytes) -> None:
    """Its head alone would wake the client, which would wait once more."""
    written: list[bytes] = []
    made = LimitedConnection.connection_made

    def recorded(self: LimitedConnection, transport: Any) -> None:
        def noted(pieces: list[bytes]) -> None:
            written.append(b"".join(pieces))
            transport.write(written[-1])

        made(self, mock.Mock(wraps=transport, writelines=noted, write=lambda piece: noted([piece])))

    monkeypatch.setattr(LimitedConnection, "connection_made", recorded)
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n" + ending + b"\r\nhello")
        with anyio.fail_after(DEADLINE_S):
            assert (await stream.receive()).endswith(b"\r\n\r\nhello")
    assert len(written) == 1


async def test_a_response_without_a_body_arrives() -> None:
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        for ending in (b"", b"Connection: close\r\n"):
            await stream.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n" + ending + b"\r\n")
            with anyio.fail_after(DEADLINE_S):
                assert (await stream.receive()).endswith(b"\r\n\r\n")


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        with anyio.fail_after(DEADLINE_S):
            assert (await stream.receive()).startswith(b"HTTP/1.1 100")
            await stream.send(b"hello")
            received = b""
            while not received.endswith(b"\r\n\r\nhello"):
                received += await stream.receive()


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"GET / HTTP/1.1\r\nX"])
async def test_a_head_that_does_not_arrive_times_out(sent: bytes) -> None:
    async with server(**HASTY) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        if sent:
            await stream.send(sent)
        answer = await to_the_end(stream)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer


async def test_a_head_that_arrives_drop_by_drop_times_out() -> None:
    async with (
        server(**HASTY) as port,
        await anyio.connect_tcp("127.0.0.1", port) as stream,
        anyio.create_task_group() as tasks,
    ):
        await stream.send(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            try:
                while True:
                    await stream.send(b"X-A: b\r\n")
                    await anyio.sleep(0.02)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass

        tasks.start_soon(drip)
        await to_the_end(stream)
        tasks.cancel_scope.cancel()


async def test_a_body_that_does_not_arrive_times_out() -> None:
    async with server(**HASTY) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        assert (await to_the_end(stream)).startswith(b"HTTP/1.1 408 ")


async def test_the_second_request_of_a_connection_has_as_much_time() -> None:
    head_s = 2.0  # for the first request, too
    async with server(http_head_s=head_s) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        assert (await stream.receive()).endswith(b"abc")
        await anyio.sleep(head_s * 1.2)  # idle between two requests: the server's own limit, which is longer
        await stream.send(b"GET / HTTP/1.1\r\n")
        assert (await to_the_end(stream)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("head", [
    b"X: " + b"a" * (HEAD_BYTES + 1),
    b"\r\n".join(b"X-%d: y" % n for n in range(HEAD_BYTES // 6)),
])  # fmt: skip
@pytest.mark.parametrize("end", [b"\r\n\r\n", b""])
async def test_too_large_a_head_is_refused_complete_or_not(head: bytes, end: bytes) -> None:
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + head + end)
        assert (await to_the_end(stream)).startswith(b"HTTP/1.1 431 ")


async def test_a_large_path_is_refused_and_a_head_within_the_limit_is_served() -> None:
    async with server() as port:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await to_the_end(stream)).startswith(b"HTTP/1.1 431 ")
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            fair = b"X: " + b"a" * (HEAD_BYTES - 1000)
            await stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + fair + b"\r\n\r\n")
            assert (await to_the_end(stream)).startswith(b"HTTP/1.1 200 ")


async def test_beyond_the_maximum_a_connection_is_refused_until_another_ends() -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with server(http_connections=2) as port:
        held = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(2)]
        for stream in held:
            await stream.send(request)
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            answer = await to_the_end(stream)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in answer
        await held.pop().aclose()
        with anyio.fail_after(DEADLINE_S):
            while not answer.startswith(b"HTTP/1.1 200 "):
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                        await stream.send(request)
                        answer = await stream.receive()
        await held.pop().aclose()


@pytest.fixture
def files() -> Iterator[tuple[int, int]]:
    """The limits of open files, restored afterwards."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_limit_of_open_files_is_raised_to_fit_the_configured_connections(files: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, files[1]))
    config = Config(http_connections=600, max_connections=10)
    assert fitted(config) == config
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600 + 10 + FILES_BESIDE, files[1])


def test_a_fixed_limit_of_open_files_lowers_the_number_of_connections(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, files[1]))

    def refused(_what: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refused)
        with structlog.testing.capture_logs() as logs:
            found = fitted(Config(max_connections=10, http_connections=700))
            assert fitted(Config(max_connections=10)) == found
    assert found.http_connections == 500 - 10 - FILES_BESIDE
    # A number that was asked for; the default, which few machines allow, is no reason to warn at every start.
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("http.few_files", "warning"),
        ("http.few_files", "debug"),
    ]


async def test_data_that_is_not_http_gets_a_problem() -> None:
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"\x16\x03\x01 hello\r\n\r\n")
        answer = await to_the_end(stream)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"urn:coordinator:malformed-request" in answer


async def test_a_large_body_may_arrive_together_with_its_head() -> None:
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        body = b"x" * 300_000
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        await stream.send(head + body)
        assert (await to_the_end(stream)).endswith(body)


async def subject(port: int, trusted: Path) -> str:
    """Connect, trusting one certificate only; return the name on the presented one."""
    context = ssl.create_default_context(cafile=trusted)
    async with await anyio.connect_tcp("127.0.0.1", port, ssl_context=context, tls_hostname="127.0.0.1") as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await stream.receive()).startswith(b"HTTP/1.1 200")
        found = stream.extra(anyio.streams.tls.TLSAttribute.peer_certificate)  # noqa: S610 - not Django's
        return str(dict(pair for part in found["subject"] for pair in part)["commonName"])


async def test_tls_is_served_and_a_new_certificate_is_loaded_without_a_restart(tmp_path: Path) -> None:
    first, second = make_pair(tmp_path, "first"), make_pair(tmp_path, "second")
    used = (tmp_path / "tls.crt", tmp_path / "tls.key")
    for source, target in zip(first, used, strict=True):
        target.write_bytes(source.read_bytes())
    certificate = certificate_of(Config(tls_certificate=used[0], tls_key=used[1]))
    assert certificate is not None
    async with server(certificate) as port:
        assert await subject(port, first[0]) == "first"
        assert certificate.reload() is False
        # Only half of the new pair is there, so the old one stays in use.
        used[0].write_bytes(second[0].read_bytes())
        with structlog.testing.capture_logs() as logs:
            assert certificate.reload() is False
        assert [line["event"] for line in logs] == ["tls.reload_failed"]
        assert await subject(port, first[0]) == "first"
        used[1].write_bytes(second[1].read_bytes())
        assert certificate.reload() is True
        assert await subject(port, second[0]) == "second"


async def test_the_server_reloads_its_certificate_when_the_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.api.tls.LOOK_S", 0.02)
    used, second = make_pair(tmp_path, "first"), make_pair(tmp_path, "second")
    async with server(Certificate(*used)) as port:
        for source, target in zip(second, used, strict=True):
            target.write_bytes(source.read_bytes())
        with anyio.fail_after(DEADLINE_S):
            while True:
                try:
                    assert await subject(port, second[0]) == "second"
                    break
                except ssl.SSLError:
                    await anyio.sleep(0.02)


async def test_plain_http_gets_nothing_from_a_tls_port(tmp_path: Path) -> None:
    certificate = Certificate(*make_pair(tmp_path, "first"))
    async with server(certificate) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in await to_the_end(stream)


def test_tls_below_1_2_is_refused(tmp_path: Path) -> None:
    assert Certificate(*make_pair(tmp_path, "first")).context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_an_unusable_certificate_is_a_configuration_error_with_a_hint(tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path, "first")
    other = make_pair(tmp_path, "second")[1]
    broken = tmp_path / "broken"
    broken.write_text("secret words")
    for pair in ((certificate, other), (certificate, tmp_path / "nowhere"), (broken, key)):
        with pytest.raises(ConfigurationError) as raised:
            Certificate(*pair)
        assert raised.value.hint
        assert "secret words" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="lacks tls_key"):
        certificate_of(Config(tls_certificate=certificate))
    assert certificate_of(Config()) is None


def test_a_port_in_use_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError):
        bind("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "port", "hint"),
    [("192.0.2.1", 0, "--host"), ("127.0.0.1", None, "--port")],
)
def test_an_address_that_cannot_be_listened_on_gets_the_hint_that_fits(host: str, port: int | None, hint: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError) as failure:
        bind(host, taken.getsockname()[1] if port is None else port)
    assert hint in (failure.value.hint or "")
    assert ("--host" in (failure.value.hint or "")) != ("--port" in (failure.value.hint or ""))


def test_a_sidecar_whose_port_is_taken_names_its_own_option() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError) as failure,
        listeners(f"127.0.0.1:{taken.getsockname()[1]}", None),
    ):
        pass
    assert "--listen" in (failure.value.hint or "")


async def test_what_follows_a_chunked_body_is_not_a_header() -> None:
    seen: list[list[bytes]] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        seen.append([name for name, _ in scope["headers"]])
        await Response(body)(scope, receive, send)

    head = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
    request = (
        head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nAuthorization: Bearer coo_x\r\nOrigin: x\r\n\r\n"
    )
    second = head + b"X-Own: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with bind("127.0.0.1", 0) as listener:
        async with (
            serving(note, listener, Config()),
            await anyio.connect_tcp("127.0.0.1", listener.getsockname()[1]) as stream,
        ):
            await stream.send(request + second)
            answer = await to_the_end(stream)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert seen == [[b"host", b"transfer-encoding"], [b"host", b"x-own", b"content-length", b"connection"]]
