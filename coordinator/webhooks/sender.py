"""Sends one request of a webhook to a receiver that may be hostile, and says what became of it.

Guarantees: an attempt ends within ``ATTEMPT_S``. It connects only to addresses that ``Networks`` allows: each address is checked when a socket
for it is made, so it does not matter what a name resolved to before, or how an address is written. Redirects are not followed, the body of the response
is not read, proxies and cookies are not used, and each attempt has a connection of its own.

Requests are signed as Standard Webhooks says (https://www.standardwebhooks.com): ``docs/webhooks.md``.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hmac
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from coordinator.model.network import Networks
from coordinator.model.webhook import WebhookWork
from coordinator.version import version

__all__ = ["Sender", "WebhookAttempt", "signatures"]

ATTEMPT_S = 15.0
CONNECT_S = 5.0
LOOKUPS = 64  # names that are being resolved; each has a thread, which the system's resolver may hold for longer than an attempt
LARGE_BYTES = 1 << 20  # of a body, which is then sent piece by piece
RESPONSE_BYTES = 4096  # of a body that arrived with the head; the rest is not read


class WebhookAttempt(msgspec.Struct, frozen=True):
    """How an attempt ended: ``error`` is None if it was delivered. ``retry`` is what the receiver asks for."""

    seconds: float
    response: int | None = None
    error: str | None = None
    retry: timedelta | None = None


class Sender:
    """Sends requests."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def open(cls, networks: Networks) -> AsyncIterator[Sender]:
        """Make a sender that reaches public addresses and ``networks``; connect nothing yet."""

        def connectable(info: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, address = info
            if reason := networks.refusal(address[0]):
                raise OSError(errno.EACCES, f"{reason}, and the setting webhook_networks does not allow it")
            return socket.socket(family, kind, protocol)

        connector = aiohttp.TCPConnector(
            ssl=ssl.create_default_context(),  # reads SSL_CERT_FILE now; aiohttp's own is as old as its import
            limit=0,
            force_close=True,
            use_dns_cache=False,
            resolver=_Resolver(),
            socket_factory=connectable,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=RESPONSE_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers={"User-Agent": f"coordinator/{version()}", "Content-Type": "application/json"},
            skip_auto_headers=("Accept", "Accept-Encoding"),
        )
        async with session:
            yield cls(session)

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
        response = retry = None
        try:
            async with (
                asyncio.timeout(ATTEMPT_S),
                self._session.post(
                    URL(work.url, encoded=True),
                    data=body if len(body) < LARGE_BYTES else BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                ) as answer,
            ):
                response = answer.status
                retry = _retry(answer.headers.get("retry-after"))
                answer.close()
            error = _refusal(response)
        except TimeoutError as timeout:
            error = str(timeout) or f"no response within {ATTEMPT_S:g} seconds"
        except Exception as failure:  # noqa: BLE001 - whatever a receiver does ends only its own attempt
            error = str(failure) or type(failure).__name__
        return WebhookAttempt(time.monotonic() - began, response, error, retry)


def signatures(secrets: Sequence[str], message: str, timestamp: str, body: bytes) -> str:
    """Return the header ``webhook-signature``: a signature with each secret."""
    signed = f"{message}.{timestamp}.".encode() + body
    keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}" for key in keys)


def _refusal(status: int) -> str | None:
    """Return why a response is not a success."""
    match status // 100:
        case 2:
            return None
        case 3:
            return f"the receiver responded with {status}, and redirects are not followed"
        case _:
            return f"the receiver responded with {status}"


def _retry(value: str | None) -> timedelta | None:
    """Return how long a receiver asks to wait, if it says so: seconds, or a date."""
    if value is None:
        return None
    try:
        if value.isascii() and value.isdigit():
            return timedelta(seconds=min(int(value[:9]), 86_400))
        return max(min(parsedate_to_datetime(value) - datetime.now(UTC), timedelta(days=1)), timedelta())
    except (ValueError, TypeError, OverflowError):
        return None


class _Resolver(AbstractResolver):
    """Resolves names in threads that end with the process: a name server that never answers keeps nobody else waiting."""

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
