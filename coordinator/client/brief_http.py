"""Single calls over HTTP, for programs that make a few calls and end.

They go through the standard library: aiohttp takes longer to import than such a program runs.

On failure: a call without a response raises ``DatabaseUnavailable``. A read is repeated once if the kept connection was dead.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from coordinator.client.problem import error_of
from coordinator.client.request_span import outgoing, request_span, status_of
from coordinator.client.wire import Message, including, message_of, result_of
from coordinator.config import Config
from coordinator.errors import ConfigurationError, DatabaseUnavailable
from coordinator.model.operation import Operation
from coordinator.model.position import report
from coordinator.telemetry import tracing

if TYPE_CHECKING:
    from coordinator.operations.positions import Included

__all__ = ["BriefExecutor"]

OK = 200
MAX_BODY = 512 << 20  # as in http_pool
PIECE = 1 << 20

R = TypeVar("R")


class _Answered(NamedTuple):
    status: int
    position: str | None
    body: bytes


class BriefExecutor:
    """Runs operations over HTTP, one after the other, on one connection; an ``AtLeastRunner``."""

    def __init__(self, url: str, config: Config) -> None:
        parts = urlsplit(url)
        self._url = url
        self._prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        self._headers = {"Accept": "application/json"}
        if config.token is not None:
            self._headers["Authorization"] = f"Bearer {config.token}"
        self._timeout_s = config.call_timeout_s
        self._ends_at = 0.0
        self._sent = False
        self._connection = (
            _UnixConnection(parts.path)
            if parts.scheme == "unix"
            else (HTTPSConnection if parts.scheme == "https" else HTTPConnection)(
                parts.hostname or "localhost", parts.port
            )
        )
        self._connection.response_class = self._response  # type: ignore[assignment]  # it is only called

    async def run(self, operation: Operation[R]) -> R:
        """Run one operation.

        Raises: what the operation raises; ``DatabaseUnavailable`` if no response came.
        """
        with tracing.operation(operation):
            return cast("R", result_of(operation, self._send(message_of(operation), repeatable=operation.reads)))

    async def run_at_least(self, included: Included, operation: Operation[R]) -> R:
        """Run a read that includes a position; the server waits for it.

        Raises: as ``run``.
        """
        with tracing.operation(operation):
            message = including(message_of(operation), included.position)
            return cast("R", result_of(operation, self._send(message, repeatable=True)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, message: Message, *, repeatable: bool) -> bytes:
        self._ends_at = time.monotonic() + self._timeout_s
        kept = self._connection.sock is not None
        try:
            try:
                answer = self._traced(message, again=False)
            except ConnectionError:
                if not (kept and repeatable):
                    raise
                self.close()
                answer = self._traced(message, again=True)
        except (OSError, HTTPException) as error:
            self.close()
            raise self._unavailable(error, repeatable=repeatable) from error
        if answer.status != OK:
            raise error_of(answer.status, answer.body)
        report(answer.position)
        return answer.body

    def _traced(self, message: Message, *, again: bool) -> _Answered:
        with request_span(message, self._url, again=again) as span:
            answer = self._attempt(message)
            status_of(span, answer.status)
        return answer

    def _attempt(self, message: Message) -> _Answered:
        connection = self._connection
        headers = outgoing()
        if message.content is not None:
            headers["Content-Type"] = "application/json"
        self._sent = False
        connection.timeout = self._left_s()
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(self._left_s())
        self._sent = True
        try:
            connection.request(message.method, self._prefix + message.path, message.content, self._headers | headers)
        except (ValueError, UnicodeError):
            self.close()
            raise ConfigurationError(
                "the token or the address holds a character that HTTP cannot carry",
                hint="Copy the whole token, and nothing else.",
            ) from None
        response = connection.getresponse()
        return _Answered(response.status, response.headers.get("position"), _body(response))

    def _left_s(self) -> float:
        return max(self._ends_at - time.monotonic(), 0.001)

    def _response(self, connected: socket.socket, *_: object, method: str | None = None) -> HTTPResponse:
        """Make the response to a request, which is read in the time that the call has left."""
        response = HTTPResponse(connected, method=method)
        response.fp.close()
        response.fp = io.BufferedReader(_Punctual(connected, self._left_s))
        return response

    def _unavailable(self, error: OSError | HTTPException, *, repeatable: bool) -> DatabaseUnavailable:
        unknown = "Try again." if repeatable else "A write may or may not have succeeded."
        hint = unknown if self._sent else "Is the server running, and is the address correct?"
        if isinstance(error, TimeoutError):
            reason = f"no complete response within {self._timeout_s:.1f} seconds"
        elif self._url.startswith("https:") and not self._sent:
            reason, hint = _refused(error, hint)
        elif isinstance(error, IncompleteRead):
            reason = "the connection was lost in the middle of the response"
        elif isinstance(error, HTTPException):
            reason = f"the response is not HTTP: {error!s:.100}"
        else:
            reason = error.strerror or str(error)
        return DatabaseUnavailable(f"no response from {self._url}: {reason}", hint=hint)


def _refused(error: OSError | HTTPException, hint: str) -> tuple[str, str]:
    """Return why no TLS connection was made, and what to check."""
    import ssl  # noqa: PLC0415 - slow to import, and loaded by now

    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {error.verify_message}",
            "SSL_CERT_FILE names a file with the trusted authorities.",
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.strerror}", "Does that port speak HTTPS?"
    return getattr(error, "strerror", None) or str(error), hint


class _UnixConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Punctual(io.RawIOBase):
    """What a socket receives, each piece within ``left_s`` seconds of now: a server that drips takes no longer than another."""

    def __init__(self, connected: socket.socket, left_s: Callable[[], float]) -> None:
        self._connected = connected
        self._raw = connected.makefile("rb", buffering=0)
        self._left_s = left_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connected.settimeout(self._left_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _body(response: HTTPResponse) -> bytes:
    """Return the body of a response.

    Raises: ``ConnectionError`` if it is too large; ``IncompleteRead``.
    """
    if (response.length or 0) > MAX_BODY:
        raise ConnectionError(f"the response has more than {MAX_BODY} bytes")
    pieces: list[bytes] = []
    size = 0
    while piece := response.read(PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BODY:
            raise ConnectionError(f"the response has more than {MAX_BODY} bytes")
    if response.length:
        raise IncompleteRead(b"")
    return b"".join(pieces)
