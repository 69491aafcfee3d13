"""HTTP to one address: connections that requests take in turns, as calls of the database do (see coordinator/db/pool.py).

The one used last goes first, so that the surplus grows idle and is closed. Requests beyond ``MOST`` wait in order.

Guarantees: a request ends in its time, in which it waits for a connection and connects, too. A connection whose exchange
did not end well (cancelled, timed out, cut, malformed) is never used again: its next bytes could be those of the last
answer. Of several addresses of a host each is tried, for its share of the time.

On failure: ``NotReached`` when nothing was sent, else what coordinator/client/http_connection.py says.

What it deliberately does not do: repeat a request, follow redirects, use a proxy.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

import anyio

from coordinator.client.http_connection import Answer, Connection, Heard

__all__ = ["HttpPool", "NotReached"]

MOST = 100  # connections
CONNECT_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 60.0  # less than the server's, so that it is not the one who hangs up
CLOSE_S = 2.0


class NotReached(Exception):
    """Nothing was sent; ``hint`` says what to look at."""

    def __init__(self, message: str, hint: str = "Does it run, and is the address right?") -> None:
        super().__init__(message)
        self.hint = hint


class HttpPool:
    """At most ``MOST`` connections to ``http://…``, ``https://…`` or ``unix:///path``, opened when needed.

    ``headers`` go with every request.

    Raises: ``ValueError`` for a header that cannot be sent, without repeating it.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._socket = parts.path if parts.scheme == "unix" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _trust() if parts.scheme == "https" else None
        self._prefix = "" if self._socket else parts.path.rstrip("/")
        self._headers = _lines({"host": "localhost" if self._socket else parts.netloc, **headers})
        self._turns = anyio.Semaphore(MOST, fast_acquire=True)
        self._free: deque[Connection] = deque()
        self._open: set[Connection] = set()

    async def ask(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
        *,
        fresh: bool = False,
    ) -> Answer:
        """Send one request and read its whole answer; ``fresh``: not on one that was kept.

        Raises: ``NotReached``, ``HungUp``, ``NotAnswered``; ``ValueError`` for a header that cannot be sent.
        """
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._headers}{_lines(headers) if headers else ''}"
        if content is not None:
            head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        request = head.encode("ascii") + b"\r\n" + (content or b"")
        ends_at = time.monotonic() + timeout_s
        connection = await self._take(timeout_s, fresh=fresh)
        try:
            return await connection.exchange(request, None, max(ends_at - time.monotonic(), 0))
        finally:
            self._give_back(connection)

    async def follow(self, path: str, heard: Heard, silent_s: float) -> Answer:
        """Read a stream until it ends, and hand each piece of it to ``heard``; an answer other than 200 is read whole.

        Raises: ``NotReached``, ``HungUp``; ``NotAnswered``, also when nothing came for ``silent_s``.
        """
        connection = await self._take(silent_s, fresh=False)
        try:
            request = f"GET {self._prefix}{path} HTTP/1.1\r\n{self._headers}\r\n"
            return await connection.exchange(request.encode("ascii"), heard, silent_s)
        finally:
            self._give_back(connection)

    async def close(self) -> None:
        """Cut all connections."""
        lost = [connection.lost for connection in self._open]
        for connection in list(self._open):
            connection.transport.abort()
        if lost:
            await asyncio.wait(lost, timeout=CLOSE_S)

    async def _take(self, timeout_s: float, *, fresh: bool) -> Connection:
        """Take a connection that is free, else a new one."""
        ends_at = time.monotonic() + timeout_s
        try:
            self._turns.acquire_nowait()
        except anyio.WouldBlock:
            try:
                with anyio.fail_after(timeout_s):
                    await self._turns.acquire()
            except TimeoutError:
                raise NotReached(
                    f"none of {MOST} connections became free within {timeout_s:.1f} seconds",
                    "More calls at once than connections: call less at once, or from several clients.",
                ) from None
        try:
            oldest = time.monotonic() - KEEP_ALIVE_S
            while self._free and not fresh:
                connection = self._free.pop()
                if connection.free_at >= oldest and not connection.transport.is_closing():
                    return connection
                connection.transport.abort()
            return await self._connect(max(min(CONNECT_TIMEOUT_S, ends_at - time.monotonic()), 0))
        except BaseException:
            self._turns.release()
            raise

    def _give_back(self, connection: Connection) -> None:
        now = time.monotonic()
        if connection.sound:
            connection.free_at = now
            self._free.append(connection)
        else:
            connection.transport.abort()
        self._turns.release()
        while self._free and self._free[0].free_at < now - KEEP_ALIVE_S:
            self._free.popleft().transport.abort()

    async def _connect(self, timeout_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        ends_at = time.monotonic() + timeout_s
        failure: Exception = TimeoutError()
        try:
            with anyio.fail_after(timeout_s):
                if self._socket:
                    return (await loop.create_unix_connection(self._make, self._socket))[1]
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _not_reached(error, timeout_s) from error
        name = self._host if self._tls else None
        for left, address in zip(range(len(found), 0, -1), (str(one[4][0]) for one in found), strict=False):
            try:
                with anyio.fail_after((ends_at - time.monotonic()) / left):
                    made = await loop.create_connection(
                        self._make, address, self._port, ssl=self._tls, server_hostname=name
                    )
                    return made[1]
            except OSError as error:
                failure = error
        raise _not_reached(failure, timeout_s) from failure

    def _make(self) -> Connection:
        return Connection(self._open)


def _trust() -> ssl.SSLContext:
    """Trust who the system trusts; SSL_CERT_FILE names other authorities."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _lines(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name} has characters that no header can have")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _not_reached(error: Exception, timeout_s: float) -> NotReached:
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotReached(
            f"its certificate is not trusted: {error.verify_message}",
            "SSL_CERT_FILE names a file of the authorities that are trusted.",
        )
    if isinstance(error, ssl.SSLError):
        return NotReached(f"TLS failed: {error.reason or error}", "Is that a port for https?")
    if isinstance(error, TimeoutError) and not str(error):
        return NotReached(f"no connection within {timeout_s:.1f} seconds")
    return NotReached(str(error))
