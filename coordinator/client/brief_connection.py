"""One HTTP/1.1 connection for programs that make a few calls and end: blocking, without an event loop.

httptools parses the responses, as it parses the requests of the daemon. The standard library's client first imports the
e-mail parser and TLS, which takes a program that only calls a daemon on its own machine a tenth of its time.

On failure: ``OSError`` for the connection, ``ConnectionResetError`` if it ended before a response; ``NotHttp``,
``Truncated``, and ``ValueError`` for a header that cannot be sent. After each of them, the connection must be closed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult

from httptools.parser.errors import HttpParserError, HttpParserUpgrade
from httptools.parser.parser import HttpResponseParser

__all__ = ["BriefConnection", "BriefResponse", "NotHttp", "Truncated"]

MAX_HEAD = 64 << 10
MAX_BODY = 512 << 20  # as in http_pool
PIECE = 256 << 10
FINAL = 200  # the first status of a final response


class NotHttp(Exception):
    """The received data is not an HTTP response."""


class Truncated(Exception):
    """The connection ended in the middle of a response."""


class BriefResponse(NamedTuple):
    """A response. ``position`` is the value of the header Position."""

    status: int
    position: str | None
    body: bytes


class BriefConnection:
    """A connection that is opened when it is first used, and again after it was closed.

    ``left_s`` returns how long the next wait may last, so that a server that sends slowly takes no longer than another.
    """

    def __init__(self, parts: SplitResult, left_s: Callable[[], float]) -> None:
        self._parts = parts
        self._left_s = left_s
        self._socket: socket.socket | None = None

    @property
    def open(self) -> bool:
        """Return whether there is a connection."""
        return self._socket is not None

    def connect(self) -> None:
        """Open the connection."""
        parts = self._parts
        if parts.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(self._left_s())
            self._socket.connect(parts.path)
            return
        host = parts.hostname or "localhost"
        secure = parts.scheme == "https"
        # As bytes, since otherwise the codec for international names would be loaded.
        address: Any = (host.encode(), parts.port or (443 if secure else 80))
        self._socket = socket.create_connection(address, timeout=self._left_s())
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            import ssl  # noqa: PLC0415 - slow to import

            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
            self._socket.settimeout(self._left_s())
            self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def exchange(self, method: str, path: str, headers: Mapping[str, str], content: bytes | None) -> BriefResponse:
        """Send a request and read its response. The caller has connected."""
        assert self._socket is not None  # noqa: S101 - the caller has connected
        request = _written(method, path, {"Host": self._host(), **headers}, content)
        self._socket.settimeout(self._left_s())
        self._socket.sendall(request)
        reading = _Reading()
        while not reading.complete:
            self._socket.settimeout(self._left_s())
            reading.feed(self._socket.recv(PIECE))
        if not reading.kept:
            self.close()
        return BriefResponse(reading.status, reading.position, b"".join(reading.pieces))

    def _host(self) -> str:
        parts = self._parts
        if parts.scheme == "unix":
            return "localhost"
        host = parts.hostname or "localhost"
        written = f"[{host}]" if ":" in host else host
        return written if parts.port is None else f"{written}:{parts.port}"


def _written(method: str, path: str, headers: Mapping[str, str], content: bytes | None) -> bytes:
    """Write a request.

    Raises: ``ValueError`` for a value that would be more than one header, or none.
    """
    if " " in path:
        raise ValueError("a space in a path")
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if content is not None:
        lines.append(f"Content-Length: {len(content)}")
    if not all(map(str.isprintable, lines)):
        raise ValueError("a control character in a header")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (content or b"")


class _Reading:
    """A response while it arrives. The parser calls the methods ``on_…``."""

    def __init__(self) -> None:
        self.complete = False
        self.kept = False
        self.status = 0
        self.position: str | None = None
        self.pieces: list[bytes] = []
        self._parser = HttpResponseParser(self)
        self._sized = False  # whether the response states its length
        self._in_body = False
        self._size = 0
        self._too_large = False

    def feed(self, received: bytes) -> None:
        """Process received data; no data means the end of the connection.

        Raises: ``NotHttp``, ``Truncated``, ``ConnectionError``.
        """
        if not received:
            self._ended()
            return
        self._size += len(received)
        try:
            self._parser.feed_data(received)
        except HttpParserUpgrade as error:
            raise NotHttp("another protocol") from error
        except HttpParserError as error:
            if self.complete:
                return  # data after the response
            if self._in_body:
                raise Truncated from error
            raise NotHttp(str(error)) from error
        if self._too_large or self._size > MAX_BODY + MAX_HEAD:
            raise ConnectionError(f"the response has more than {MAX_BODY} bytes")
        if not self._in_body and self._size > MAX_HEAD:
            raise NotHttp(f"got more than {MAX_HEAD} bytes when reading the headers")

    def _ended(self) -> None:
        if not self._size:
            raise ConnectionResetError("the remote end closed connection without response")
        if self._sized or not self._in_body:
            raise Truncated
        self.complete = True

    def on_message_begin(self) -> None:
        """Begin a response: the first one, or the one after an interim response."""
        self._sized = self._in_body = False
        self.position = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Process a header."""
        match name.lower():
            case b"position":
                self.position = value.decode("latin-1")
            case b"content-length":
                self._sized = True
                self._too_large = int(value) > MAX_BODY
            case b"transfer-encoding":
                self._sized = True

    def on_headers_complete(self) -> None:
        """Begin the body."""
        self.status = self._parser.get_status_code()
        self._in_body = self.status >= FINAL
        self.kept = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """Store a piece of the body."""
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        """End the response, unless it is an interim one."""
        self.complete = self.status >= FINAL
