"""One attempt, and receivers that do whatever they like."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import inspect
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import TCPConnector

from coordinator.model.network import Networks
from coordinator.model.webhook import WebhookWork
from coordinator.webhooks import sender as sending
from coordinator.webhooks.sender import Sender, WebhookAttempt
from tests.certificate import make_pair
from tests.ports import reserve_port
from tests.spans import Spans
from tests.waiting import DEADLINE_S, until
from tests.webhooks.receiver import Received, Receiver, answer

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECRETS = ["whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]


def work(url: str, body: str = '{"type": "x"}') -> WebhookWork:
    return WebhookWork(1, "default", 1, 1, "msg_1_ab", url, SECRETS, body, 1, 1)


async def send(url: str, networks: str | None = "127.0.0.0/8", body: str = "{}") -> WebhookAttempt:
    async with Sender(Networks(networks)).connected() as line:
        with anyio.fail_after(DEADLINE_S):
            return await line.send(work(url, body))


async def test_a_request_is_signed_with_each_secret_as_standard_webhooks_says() -> None:
    async with Receiver() as receiver:
        attempt = await send(receiver.url, body='{"é": 1}')
        (request,) = receiver.received
    assert (attempt.response, attempt.error) == (200, None)
    assert request.body == '{"é": 1}'.encode()
    headers = request.headers
    assert (headers["webhook-id"], headers["content-type"], request.path) == ("msg_1_ab", "application/json", "/hook")
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), request.body])
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in SECRETS]
    expected = ["v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    assert headers["webhook-signature"].split(" ") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f'{{"type": "x", "data": {{"more": false, "traceparent": "{PARENT}"}}}}', PARENT),
        ('{"type": "x", "data": {"more": false, "traceparent": null}}', None),
        (
            f'{{"type": "x", "data": {{"data": {{"traceparent": "{PARENT}"}}, "more": false, "traceparent": null}}}}',
            None,
        ),
        (f'{{"type": "x", "data": {{"more": false, "traceparent": "{PARENT[:-1]}g"}}}}', None),
    ],
)
async def test_a_request_carries_the_trace_of_its_event(body: str, expected: str | None) -> None:
    async with Receiver() as receiver:
        assert (await send(receiver.url, body=body)).error is None
        (received,) = receiver.received
    assert received.headers.get("traceparent") == expected


async def test_an_attempt_has_a_span_in_that_trace_without_the_path_of_the_address(spans: Spans) -> None:
    body = f'{{"type": "x", "data": {{"more": false, "traceparent": "{PARENT}"}}}}'
    async with Receiver() as receiver:
        await send(receiver.url + "/secret", body=body)
        (received,) = receiver.received
    attempt = spans.one("POST")
    assert f"{attempt.context.trace_id:032x}" == PARENT[3:35]
    assert received.headers["traceparent"][36:52] == f"{attempt.context.span_id:016x}"
    assert dict(attempt.attributes or {})["http.response.status_code"] == 200
    assert "secret" not in attempt.to_json()


def test_the_signature_of_the_specifications_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, the tests of its libraries."""
    signed = sending.signatures(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 410, 500, 503])
async def test_another_status_than_success_is_a_failure_and_redirects_are_not_followed(status: int) -> None:
    async with Receiver() as target, Receiver(answer(status, f"location: {target.url}")) as receiver:
        attempt = await send(receiver.url)
        assert (attempt.response, target.connections, receiver.connections) == (status, 0, 1)
        assert str(status) in (attempt.error or "")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("120", 120),
        ("99999999999", 86_400),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
    ],
)
async def test_retry_after_is_read(value: str, wanted: int | None) -> None:
    async with Receiver(answer(429, f"retry-after: {value}")) as receiver:
        attempt = await send(receiver.url)
    assert attempt.response == 429
    assert attempt.retry_s == wanted


async def test_a_receiver_that_never_responds_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "ATTEMPT_S", 0.05)

    async def never(_received: Received, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * DEADLINE_S)

    async with Receiver(never) as receiver:
        attempt = await send(receiver.url)
    assert "no response within 0.05 seconds" in (attempt.error or "")


async def test_an_endless_body_is_not_read() -> None:
    """The status is there, so the attempt ends; what the receiver got rid of is what buffers take."""
    sent = 0
    ended = asyncio.Event()

    async def endless(_received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
                await writer.drain()
                sent += 1 << 16
        finally:
            ended.set()

    async with Receiver(endless) as receiver:
        attempt = await send(receiver.url)
        assert (attempt.response, attempt.error) == (200, None)
        with anyio.fail_after(DEADLINE_S):
            await ended.wait()
    assert sent < 64 << 20


async def _raw(data: bytes) -> WebhookAttempt:
    async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    async with Receiver(respond) as receiver:
        return await send(receiver.url)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"HTTP/1.1 200", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n", b"\x16\x03\x01" + bytes(100),
    ],
    ids=["closes", "half", "nonsense", "long", "many", "tls"],
)  # fmt: skip
async def test_what_is_not_a_response_is_a_failure(data: bytes) -> None:
    attempt = await _raw(data)
    assert attempt.error
    assert len(attempt.error) < 5000


async def test_a_certificate_that_nobody_trusts_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_pair(tmp_path, "receiver"))
    async with Receiver(context=context) as receiver:
        attempt = await send(receiver.url)
        assert receiver.received == []
        assert "certificate" in (attempt.error or "").lower()
    monkeypatch.setattr(sending, "CONNECT_S", 0.05)  # it never begins TLS
    async with Receiver() as plain:
        assert (await send(plain.url.replace("http:", "https:"))).error


@pytest.mark.parametrize("header", ["", "connection: keep-alive", "connection: close"])
async def test_deliveries_of_a_claim_share_a_connection_that_is_made_again_when_it_was_closed(header: str) -> None:
    """Without a header, this receiver closes connections and does not say so: the request is sent again at once."""
    async with Receiver(answer(200, header, body=b"ok") if header else answer(200)) as receiver:
        receiver.keeps = "keep" in header
        async with Sender(Networks("127.0.0.0/8")).connected() as line:
            attempts = [await line.send(work(receiver.url)) for _ in range(3)]
    assert [attempt.error for attempt in attempts] == [None] * 3
    assert (len(receiver.received), receiver.connections) == (3, 1 if receiver.keeps else 3)


async def test_an_error_is_text_that_can_be_stored() -> None:
    attempt = await _raw(b"HTTP/1.1 2\x0000 \x1b[2J\r\n\r\n")
    assert attempt.error
    assert attempt.error.isprintable()


async def test_a_port_where_nobody_listens_is_a_failure() -> None:
    assert "Cannot connect" in ((await send(f"http://127.0.0.1:{reserve_port()}/hook")).error or "")


HERE = ["127.0.0.1", "0.0.0.0", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "localhost"]  # noqa: S104


@pytest.mark.parametrize("host", HERE)
async def test_an_address_that_is_not_public_is_refused_however_it_is_written(host: str) -> None:
    async with Receiver() as receiver:
        attempt = await send(receiver.url.replace("127.0.0.1", host), None)
        assert "is not a public address" in (attempt.error or "") or "not a canonical" in (attempt.error or "")
        assert receiver.connections == 0


@asynccontextmanager
async def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> AsyncIterator[list[str]]:
    """Let names resolve to these addresses, one answer after the other."""
    asked: list[str] = []

    def look(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    with monkeypatch.context() as patched:
        patched.setattr(sending.socket, "getaddrinfo", look)
        yield asked


async def test_a_name_is_checked_at_each_delivery_on_the_address_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Receiver() as receiver:
        url = receiver.url.replace("127.0.0.1", "rebinding.example")
        async with (
            resolving(monkeypatch, ["127.0.0.2"], ["127.0.0.1"]) as asked,
            Sender(Networks("127.0.0.2/32")).connected() as line,
        ):
            first = await line.send(work(url))
            second = await line.send(work(url))
        assert "is not a public address" not in (first.error or "")
        assert "127.0.0.1 is not a public address" in (second.error or "")
        assert asked == ["rebinding.example"] * 2
        assert receiver.received == []


async def test_of_several_addresses_the_one_that_is_allowed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as receiver:
        url = receiver.url.replace("127.0.0.1", "several.example")
        async with resolving(monkeypatch, ["10.0.0.1", "127.0.0.1"]):
            assert (await send(url, "127.0.0.1/32")).response == 200


async def test_a_name_server_that_never_answers_ends_only_its_own_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "ATTEMPT_S", 0.05)
    monkeypatch.setattr(sending, "LOOKUPS", 2)
    release = threading.Event()
    found = socket.getaddrinfo

    def look(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "stuck.example":
            release.wait(DEADLINE_S)
        return found("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(sending.socket, "getaddrinfo", look)
    try:
        async with Receiver() as receiver, Sender(Networks("127.0.0.0/8")).connected() as line:
            stuck = receiver.url.replace("127.0.0.1", "stuck.example")
            for _ in range(2):
                assert "no response" in ((await line.send(work(stuck))).error or "")
            monkeypatch.setattr(sending, "ATTEMPT_S", DEADLINE_S)
            assert "names are being resolved" in ((await line.send(work(stuck))).error or "")
            assert (await line.send(work(receiver.url))).error is None
            release.set()

            async def again() -> bool:
                return (await line.send(work(receiver.url.replace("127.0.0.1", "fine.example")))).error is None

            await until(again, "names are resolved again")
    finally:
        release.set()


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as proxy, Receiver() as receiver:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert (await send(receiver.url)).error is None
        assert proxy.connections == 0


def test_the_connector_takes_the_check_of_addresses() -> None:
    """The parameter is a promise of aiohttp; without it, nothing would be refused."""
    assert "socket_factory" in inspect.signature(TCPConnector).parameters
