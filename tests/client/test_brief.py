"""The client of short programs: HTTP without an event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.brief import finish, opened, pause
from coordinator.config import Config
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable, NotFound
from coordinator.model.operation import Operation
from coordinator.operations import signals
from tests.daemon import Daemon

GET = signals.Get(project="default", key="k")
SET = signals.Set(project="default", key="k", value="v")
DELETE = signals.Delete(project="default", key="k")
ANSWER = b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"result":7}'
HANG_UP = b""


def run(url: str, *operations: Operation[Any], config: Config | None = None) -> list[Any]:
    """Run operations on one connection; the last error is the last result."""

    async def all_of_them() -> list[Any]:
        results: list[Any] = []
        async with opened(url, config or Config()) as runner:
            for operation in operations:
                try:
                    results.append(await runner.run(operation))
                except CoordinatorError as error:
                    results.append(error)
                await pause(url, 0)
        return results

    return finish(url, all_of_them())


@contextmanager
def server(
    *connections: list[bytes],
    family: int = socket.AF_INET,
    address: Any = ("127.0.0.1", 0),
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Any]:
    """Accept connections one after the other, and answer each request on them with the next bytes; HANG_UP: with the end."""
    requests: list[bytes] = []

    def accepted(connection: socket.socket) -> socket.socket:
        if certificate is None:
            return connection
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        return context.wrap_socket(connection, server_side=True)

    def serve() -> None:
        for answers in connections:
            try:
                connection = accepted(listener.accept()[0])
            except (ssl.SSLError, ConnectionError):  # it trusts nobody
                continue
            with connection:
                for answer in answers:
                    requests.append(_request(connection))
                    if answer == HANG_UP:
                        break
                    with suppress(OSError):  # the client has had enough
                        connection.sendall(answer)

    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        place = listener.getsockname()
        scheme = "http" if certificate is None else "https"
        url = f"unix://{place}" if family == socket.AF_UNIX else f"{scheme}://{place[0]}:{place[1]}"
        yield url, requests
        thread.join()


def _request(connection: socket.socket) -> bytes:
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(65536)
    head, _, body = read.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


async def test_operations_give_what_they_give_everywhere(database_url: str) -> None:
    with Daemon(database_url) as daemon:
        await daemon.ready()
        for url in (daemon.url, database_url):
            absent, made, found, version = await asyncio.to_thread(run, url, GET, SET, GET, DELETE)
            assert isinstance(absent, NotFound)
            assert absent.code == "ZC203"
            assert absent.hint
            assert made == found
            assert found.value == "v"
            assert version == found.version


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"result":7}',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\n{"res\r\n7\r\nult":7}\r\n0\r\nX: y\r\n\r\n',
        b'HTTP/1.0 200 OK\r\n\r\n{"result":7}',
    ],
)
def test_a_response_is_read_in_each_of_its_forms(answer: bytes) -> None:
    with server([answer]) as (url, requests):
        assert run(url, DELETE) == [7]
    assert requests[0].startswith(b"POST /v1/signals/delete HTTP/1.1\r\nHost: 127.0.0.1:")
    assert requests[0].endswith(b'"k","expect":null,"actor":null}')


def test_a_path_before_the_routes_and_a_token_are_sent() -> None:
    with server([ANSWER]) as (url, requests):
        assert run(f"{url}/base/", DELETE, config=Config(token="coo_x")) == [7]  # noqa: S106
    assert requests[0].startswith(b"POST /base/v1/signals/delete HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer coo_x\r\n" in requests[0]


def test_a_unix_socket_is_an_address(short_path: Path) -> None:
    with server([ANSWER, ANSWER], family=socket.AF_UNIX, address=str(short_path / "s")) as (url, requests):
        assert run(url, DELETE, DELETE) == [7, 7]
    assert requests[1].startswith(b"POST /v1/signals/delete HTTP/1.1\r\nHost: localhost\r\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HANG_UP, "closed connection without response"),
        (ANSWER[:-3], "lost in the middle of the response"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "has more than"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "lost in the middle"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000, "not HTTP: got more than 65536 bytes"),
    ],
)
def test_what_is_not_a_whole_response_may_have_been_a_write(answer: bytes, said: str) -> None:
    with server([answer], [answer]) as (url, _):
        errors = run(url, DELETE, GET)
    for error, hint in zip(errors, ("A write may or may not have succeeded.", "Try again."), strict=True):
        assert isinstance(error, DatabaseUnavailable)
        assert said in error.message
        assert error.hint == hint


def test_tls_trusts_the_authorities_of_the_environment(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with server([ANSWER, ANSWER], certificate=certificate) as (url, _):
        assert run(url, DELETE, DELETE) == [7, 7]


def test_an_untrusted_certificate_is_an_error_that_says_so_and_nothing_is_sent(certificate: tuple[Path, Path]) -> None:
    with server([ANSWER], certificate=certificate) as (url, requests):
        (error,) = run(url, DELETE)
    assert "certificate is not trusted" in error.message
    assert "SSL_CERT_FILE" in str(error.hint)
    assert not requests


def test_tls_to_a_plain_port_is_an_error_that_says_so() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def plain() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=plain)
        thread.start()
        (error,) = run(f"https://127.0.0.1:{listener.getsockname()[1]}", DELETE)
        thread.join()
    assert "TLS failed" in error.message


def test_a_call_ends_in_its_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel accepts
        (error,) = run(f"http://127.0.0.1:{silent.getsockname()[1]}", GET, config=Config(call_timeout_s=0.1))
    assert isinstance(error, DatabaseUnavailable)
    assert "within 0.1 seconds" in error.message


def test_a_server_that_responds_byte_by_byte_takes_no_longer() -> None:
    over = threading.Event()

    def drip() -> None:
        with listener.accept()[0] as connection, suppress(OSError):
            for byte in ANSWER * 10:
                connection.send(bytes([byte]))
                over.wait(0.05)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=drip)
        thread.start()
        (error,) = run(f"http://127.0.0.1:{listener.getsockname()[1]}", GET, config=Config(call_timeout_s=0.3))
        over.set()
        thread.join()
    assert "within 0.3 seconds" in error.message


def test_a_token_that_no_header_can_carry_is_refused() -> None:
    with server([]) as (url, _):
        (error,) = run(url, GET, config=Config(token="coo_x\r\nhost: evil"))  # noqa: S106
    assert isinstance(error, ConfigurationError)
    assert "coo_x" not in str(error)


def test_nobody_at_the_address_means_that_nothing_was_sent() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        (error,) = run(f"http://127.0.0.1:{nobody.getsockname()[1]}", SET)
    assert isinstance(error, DatabaseUnavailable)
    assert "Is the server running" in str(error.hint)


def test_on_a_kept_connection_that_was_closed_a_read_is_repeated_and_a_write_is_not() -> None:
    absent = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"
    with server([ANSWER, HANG_UP], [absent]) as (url, requests):
        assert [type(result).__name__ for result in run(url, DELETE, GET)] == ["int", "SchemaMismatch"]
    assert len(requests) == 3
    with server([ANSWER, HANG_UP]) as (url, requests):
        first, second = run(url, DELETE, DELETE)
    assert (first, type(second)) == (7, DatabaseUnavailable)
    assert len(requests) == 2


def test_a_short_program_on_the_database_imports_neither_metrics_nor_http() -> None:
    code = "import coordinator.client.brief, coordinator.db.single, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.split()}
    assert "asyncpg" in loaded
    assert {"prometheus_client", "http.client", "anyio", "structlog", "opentelemetry"}.isdisjoint(loaded)


def test_a_server_that_closes_gets_the_next_call_on_a_new_connection() -> None:
    closing = ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    with server([closing], [ANSWER]) as (url, requests):
        assert run(url, DELETE, DELETE) == [7, 7]
    assert len(requests) == 2


def test_what_follows_a_response_is_not_part_of_it() -> None:
    with server([ANSWER + b"HTTP/1.1 garbage"]) as (url, _):
        assert run(url, DELETE) == [7]


def test_a_short_program_imports_neither_a_driver_nor_an_event_loop() -> None:
    code = "import coordinator.client.brief, coordinator.operations.signals, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {
        "asyncio",
        "anyio",
        "aiohttp",
        "asyncpg",
        "click",
        "structlog",
        "prometheus_client",
    }.isdisjoint(done.stdout.split())
