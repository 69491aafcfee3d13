"""Sends the requests of webhooks to receivers that may be hostile, and returns the result of each.

Guarantees: an attempt ends within ``ATTEMPT_S``. It connects only to addresses that ``Networks`` allows: each address
is checked when its socket is created, so it does not matter what a name resolved to before, or how an address is
written. Redirects are not followed, the body of the response is not read, and proxies and cookies are not used. The
deliveries of one claim share a connection, which no other webhook uses.

Requests are signed according to Standard Webhooks (https://www.standardwebhooks.com): ``docs/webhooks.md``.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hmac
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from coordinator.model.network import Networks
from coordinator.model.webhook import WebhookWork
from coordinator.telemetry import tracing
from coordinator.version import version

__all__ = ["Line", "Sender", "WebhookAttempt", "signatures"]

ATTEMPT_S = 15.0
CONNECT_S = 5.0
LOOKUPS = 64  # names that are being resolved; each has a thread, which the system's resolver may block for longer than an attempt
LARGE_BYTES = 1 << 20  # larger bodies are sent in pieces
RESPONSE_BYTES = 4096  # of a body that arrived with the head; the rest is not read
DAY_S = 86_400.0
CLOSED = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientOSError,
)  # perhaps by a receiver that was done with the connection


_TRACE = re.compile(r'"traceparent": "([0-9a-f-]{55})"\}\}?$')  # the last member of an event
_TRACE_LENGTH = 80


class WebhookAttempt(msgspec.Struct, frozen=True):
    """The result of an attempt: ``error`` is None if it was delivered. ``retry_s`` is the wait that the receiver asks for."""

    seconds: float
    response: int | None = None
    error: str | None = None
    retry_s: float | None = None


class Sender:
    """Shared by all requests: the allowed networks, the certificate authorities, and the resolver."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._context = ssl.create_default_context()  # reads SSL_CERT_FILE now; aiohttp's own is as old as its import
        self._resolver = _Resolver()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Line]:
        """Create a line to one receiver, which connects at the first request."""
        connector = aiohttp.TCPConnector(
            ssl=self._context, use_dns_cache=False, resolver=self._resolver, socket_factory=self._socket
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=RESPONSE_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers={"User-Agent": f"coordinator/{version()}", "Content-Type": "application/json"},
            skip_auto_headers=("Accept", "Accept-Encoding"),
        ) as session:
            yield Line(session)

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if reason := self._networks.refusal(address[0]):
            raise OSError(errno.EACCES, f"{reason}, and the setting webhook_networks does not allow it")
        return socket.socket(family, kind, protocol)


class Line:
    """A connection to the receiver of one webhook, which is opened again if the receiver has closed it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._used = False

    async def send(self, work: WebhookWork) -> WebhookAttempt:
        """Make one attempt, which never raises."""
        began = time.monotonic()
        body = work.body.encode()
        timestamp = str(int(time.time()))
        headers = {
            "webhook-id": work.message,
            "webhook-timestamp": timestamp,
            "webhook-signature": signatures(work.secrets, work.message, timestamp, body),
        }
        response = retry_s = None
        with _span(work) as span:
            headers |= tracing.headers()
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    try:
                        response, retry_s = await self._post(work.url, body, headers)
                    except CLOSED as closed:
                        if not self._used or isinstance(closed, aiohttp.ClientConnectorError):
                            raise
                        response, retry_s = await self._post(work.url, body, headers)
                self._used = True
                error = _refusal(response)
            except TimeoutError as timeout:
                error = str(timeout) or f"no response within {ATTEMPT_S:g} seconds"
            except Exception as failure:  # noqa: BLE001 - whatever a receiver does ends only its own attempt
                error = _plain(str(failure)) or type(failure).__name__
            if response is not None:
                span.set("http.response.status_code", response)
            if error is not None:
                span.fail("timeout" if response is None else str(response))
        return WebhookAttempt(time.monotonic() - began, response, error, retry_s)

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, float | None]:
        """Return the status of the response, and the wait that the receiver asks for."""
        data = body if len(body) < LARGE_BYTES else BytesIO(body)
        async with self._session.post(
            URL(url, encoded=True), data=data, headers=headers, allow_redirects=False
        ) as answer:
            answer.release()  # closes the connection unless the response is complete
            return answer.status, _retry_s(answer.headers.get("retry-after"))


def _span(work: WebhookWork) -> tracing.Span:
    """Return the span of an attempt, which continues the trace of the call that made the event. Its address has no path, which may be secret."""
    found = _TRACE.search(work.body[-_TRACE_LENGTH:])
    parent = None if found is None else tracing.parsed(found[1])
    if not tracing.on():
        return tracing.received("POST", "client", {}, parent)
    url = URL(work.url, encoded=True)
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "server.address": url.host or "",
        "server.port": url.port or 443,
        "http.request.resend_count": work.attempt - 1,
        "messaging.message.id": work.message,
        "coordinator.project": work.project,
    }
    return tracing.received("POST", "client", attributes, parent)


def signatures(secrets: Sequence[str], message: str, timestamp: str, body: bytes) -> str:
    """Return the header ``webhook-signature``: a signature with each secret."""
    signed = f"{message}.{timestamp}.".encode() + body
    keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}" for key in keys)


def _plain(text: str) -> str:
    """Return a receiver's error text as one line that PostgreSQL can store."""
    return "".join(character if character.isprintable() else "?" for character in text[:1000])


def _refusal(status: int) -> str | None:
    """Return why a response is not a success."""
    match status // 100:
        case 2:
            return None
        case 3:
            return f"the receiver responded with {status}, and redirects are not followed"
        case _:
            return f"the receiver responded with {status}"


def _retry_s(value: str | None) -> float | None:
    """Return the wait that a receiver asks for, if any: in seconds, or until a date."""
    if value is None:
        return None
    try:
        if value.isascii() and value.isdigit():
            return min(float(value[:9]), DAY_S)
        return max(min((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), DAY_S), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


class _Resolver(AbstractResolver):
    """Resolves names in threads that end with the process, so a name server that never responds delays only its own attempts."""

    def __init__(self) -> None:
        self._lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises: ``OSError``.
        """
        if self._lookups >= LOOKUPS:
            raise OSError(errno.EAGAIN, f"{LOOKUPS} other names are being resolved")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(result: list[Any] | OSError) -> None:
            self._lookups -= 1
            if found.done():  # the attempt has ended
                return
            if isinstance(result, OSError):
                found.set_exception(result)
            else:
                found.set_result(result)

        def look() -> None:
            result: list[Any] | OSError
            try:
                result = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            except (OSError, UnicodeError) as error:
                result = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
            try:
                loop.call_soon_threadsafe(settle, result)
            except RuntimeError:  # the loop was closed
                return

        self._lookups += 1
        threading.Thread(target=look, name="webhook-lookup", daemon=True).start()
        return [
            ResolveResult(hostname=host, host=address[0], port=address[1], family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, address in await found
        ]

    async def close(self) -> None:
        """Close nothing: each thread ends with its lookup."""
