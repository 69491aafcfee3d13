"""HTTP to one address through aiohttp: limited connections, deadlines, and errors that say what the server may have done.

aiohttp keeps the connections, parses the responses and implements TLS. This module adds what callers rely on.

Guarantees: a request ends in its time, which includes waiting for a connection and connecting. At most
``MAX_CONNECTIONS`` are open; further requests wait in order. The memory that a server can make this process use is
limited. Nothing is sent twice: aiohttp itself would repeat a GET, even one whose response broke off in the middle.

On failure: ``NotSent`` if nothing was sent; ``Disconnected`` if the connection was lost before the first byte of a
response, usually a kept connection that the server closed at that moment; otherwise ``NoResponse``.

What it deliberately does not do: repeat requests, follow redirects, use a proxy, keep cookies, decompress.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import anyio
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

__all__ = ["Disconnected", "HttpPool", "HttpResponse", "NoResponse", "NotSent"]

OK = 200
MAX_CONNECTIONS = 100
MAX_BODY = 512 << 20  # bytes; a page of a thousand values of the maximum size has half of that
CONNECT_TIMEOUT_S = 10.0
CONNECT_SHARE = 0.9  # of a request's time: a timeout after it means that the request was sent
KEEP_ALIVE_S = 60.0  # less than the server's, so that the client closes first
CLOSE_S = 2.0
LARGE_BYTES = 1 << 20  # larger bodies are sent in pieces


class NotSent(Exception):
    """Nothing was sent; ``hint`` says what to check."""

    def __init__(self, message: str, hint: str = "Is the server running, and is the address correct?") -> None:
        super().__init__(message)
        self.hint = hint


class NoResponse(Exception):
    """The request was sent, but no complete response came: the server may or may not have acted on it."""


class Disconnected(NoResponse):
    """The connection was lost before the first byte of a response; ``sent``: the request may have been sent."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class HttpResponse(NamedTuple):
    """A response; ``body`` is empty if its pieces were passed on as they arrived. ``position`` is the position of a write."""

    status: int
    body: bytes
    position: str | None


class HttpPool:
    """The connections to ``http://…``, ``https://…`` or ``unix:///path``, opened when needed."""

    def __init__(self, base: str, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession) -> None:
        self._base = base
        self._kept = kept
        self._fresh = fresh
        self._permits = anyio.Semaphore(MAX_CONNECTIONS, fast_acquire=True)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, headers: Mapping[str, str]) -> AsyncIterator[HttpPool]:
        """Open a pool whose requests all carry ``headers``; connect nothing yet, and close everything at the end.

        Raises: ``ValueError`` for a header that cannot be sent, without repeating its value.
        """
        _check(headers)
        parts = urlsplit(url)
        context: ssl.SSLContext | None = None
        kept: aiohttp.BaseConnector
        fresh: aiohttp.BaseConnector
        if parts.scheme == "unix":
            base = "http://localhost"
            kept = _KeptUnix(parts.path, limit=0, keepalive_timeout=KEEP_ALIVE_S)
            fresh = aiohttp.UnixConnector(parts.path, limit=0, force_close=True)
        else:
            base = url.rstrip("/")
            # Read SSL_CERT_FILE now; aiohttp's own context is as old as its import.
            context = ssl.create_default_context() if parts.scheme == "https" else None
            trust = context or True
            kept = _KeptTcp(ssl=trust, limit=0, keepalive_timeout=KEEP_ALIVE_S)
            fresh = aiohttp.TCPConnector(ssl=trust, limit=0, force_close=True)
        middlewares = (_once,) if context is None else (_once, _trusting(context))
        sessions = _session(kept, headers, middlewares), _session(fresh, headers, middlewares)
        try:
            yield cls(base, *sessions)
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True):
                for session in sessions:
                    await session.close()

    async def send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
        *,
        fresh: bool = False,
    ) -> HttpResponse:
        """Send one request and read its whole response; with ``fresh``, over a new connection.

        Raises: ``NotSent``, ``Disconnected``, ``NoResponse``; ``ValueError`` for a header that cannot be sent.
        """
        _check(headers)
        if content is not None:
            headers = {**headers, "content-type": "application/json"}
        now = asyncio.get_running_loop().time
        ends_at = now() + timeout_s
        await self._acquire(timeout_s)
        try:
            async with asyncio.timeout_at(ends_at):
                left_s = max(ends_at - now(), 0)
                session = self._fresh if fresh else self._kept
                async with session.request(
                    method,
                    URL(self._base + path, encoded=True),
                    data=content if content is None or len(content) < LARGE_BYTES else BytesIO(content),
                    headers=headers,
                    allow_redirects=False,
                    timeout=_timeout(connect_s=left_s * CONNECT_SHARE),
                ) as response:
                    return await _read(response)
        except TimeoutError as error:
            raise NoResponse(f"no complete response within {timeout_s:.1f} seconds") from error
        finally:
            self._permits.release()

    async def follow(
        self, path: str, heard: Callable[[bytes], None], silent_s: float, headers: Mapping[str, str]
    ) -> HttpResponse:
        """Read a stream until it ends, and pass each piece to ``heard``; read a response other than 200 whole.

        Raises: ``NotSent``, ``Disconnected``; ``NoResponse``, also when nothing came for ``silent_s``.
        """
        await self._acquire(silent_s)
        try:
            async with self._kept.get(
                URL(self._base + path, encoded=True),
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(connect_s=silent_s, silent_s=silent_s),
            ) as response:
                return await _read(response, heard if response.status == OK else None)
        except TimeoutError as error:
            raise NoResponse(f"no sign of life within {silent_s:.1f} seconds") from error
        finally:
            self._permits.release()

    async def _acquire(self, timeout_s: float) -> None:
        """Wait for a permit to use a connection."""
        try:
            self._permits.acquire_nowait()
        except anyio.WouldBlock:
            try:
                with anyio.fail_after(timeout_s):
                    await self._permits.acquire()
            except TimeoutError:
                raise NotSent(
                    f"none of {MAX_CONNECTIONS} connections became free within {timeout_s:.1f} seconds",
                    "There are more concurrent calls than connections: make fewer calls at once, or use several clients.",
                ) from None


class _Kept(aiohttp.BaseConnector):
    """Rejects a kept connection that received data between two requests, which aiohttp would take for the next response."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> Connection:
        """Take a kept connection, or open one."""
        connection = await super().connect(req, traces, timeout)
        if connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            raise Disconnected("the server sent data without being asked", sent=False)
        return connection


class _KeptTcp(_Kept, aiohttp.TCPConnector):
    pass


class _KeptUnix(_Kept, aiohttp.UnixConnector):
    pass


async def _read(response: aiohttp.ClientResponse, heard: Callable[[bytes], None] | None = None) -> HttpResponse:
    """Read the body, or pass its pieces on."""
    if response.status < OK:
        raise NoResponse(f"the response switches protocols: status {response.status}")
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await response.content.readany():
            if heard is not None:
                heard(piece)
                continue
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                raise NoResponse(f"the response has more than {MAX_BODY} bytes")
    except aiohttp.ClientPayloadError as error:
        raise NoResponse(f"the connection was lost in the middle of the response: {error}") from error
    return HttpResponse(response.status, b"".join(pieces), response.headers.get("position"))


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request, and translate errors before its body arrives, so that aiohttp does not repeat the request."""
    try:
        return await handler(request)
    except aiohttp.ConnectionTimeoutError as error:
        raise NotSent("could not connect in time") from error
    except aiohttp.ClientConnectorCertificateError as error:
        reason = getattr(error.certificate_error, "verify_message", error.certificate_error)
        raise NotSent(
            f"its certificate is not trusted: {reason}", "SSL_CERT_FILE names a file with the trusted authorities."
        ) from error
    except aiohttp.ClientConnectorSSLError as error:
        raise NotSent(f"TLS failed: {error.strerror or error.os_error}", "Does that port speak HTTPS?") from error
    except aiohttp.ClientConnectorError as error:
        raise NotSent(error.strerror or str(error.os_error)) from error
    except ValueError as error:
        raise NotSent(f"invalid host name: {error}") from error
    except aiohttp.ServerDisconnectedError as error:
        if isinstance(error.message, str):
            raise Disconnected("the connection was lost before the response") from error
        raise NoResponse("the connection was lost in the middle of the response") from error
    except (aiohttp.ClientOSError, aiohttp.ClientConnectionResetError) as error:
        raise Disconnected(f"the connection was lost before the response: {error}") from error
    except aiohttp.ClientResponseError as error:
        raise NoResponse(f"the head of the response is malformed: {error.message}") from error


def _trusting(context: ssl.SSLContext) -> aiohttp.ClientMiddlewareType:
    """If a certificate is not trusted, also try what SSL_CERT_FILE contains now: authorities are replaced like certificates."""

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except aiohttp.ClientConnectorCertificateError:  # nothing was sent
            context.load_default_certs()
            return await handler(request)

    return send


def _session(
    connector: aiohttp.BaseConnector, headers: Mapping[str, str], middlewares: Sequence[aiohttp.ClientMiddlewareType]
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        middlewares=middlewares,
        skip_auto_headers=("User-Agent",),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


def _timeout(*, connect_s: float, silent_s: float | None = None) -> aiohttp.ClientTimeout:
    connect_s = min(CONNECT_TIMEOUT_S, connect_s)
    return aiohttp.ClientTimeout(connect=connect_s, sock_read=silent_s, ceil_threshold=float("inf"))


def _check(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name} has characters that a header cannot contain")
