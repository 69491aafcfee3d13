"""One HTTP connection, with limits on what a slow or talkative client can hold: the server's own has none.

A request's head must have come whole within ``head_s`` and ``head_bytes``, its body within ``body_s`` (its size is the
handlers' business); else the answer is 408 or 431 and the connection is closed. Idle connections between two requests are
the server's business, too. A connection beyond ``connections`` is answered with 503 and closed, so that the process keeps
files for the database.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coordinator.api.problems import MEDIA_TYPE, Overloaded, headers_of, problem_of
from coordinator.config import Config
from coordinator.errors import CoordinatorError

__all__ = ["LimitedConnection"]


class _HeadTooLarge(CoordinatorError):
    """The head of a request is over the limit."""

    sqlstate, http_status, exit_code, name = "ZH431", 431, 5, "head-too-large"


class _TooSlow(CoordinatorError):
    """A request did not come in time."""

    sqlstate, http_status, exit_code, name = "ZH408", 408, 8, "request-timed-out"


class _Malformed(CoordinatorError):
    """What came is no HTTP."""

    sqlstate, http_status, exit_code, name = "ZH400", 400, 5, "malformed-request"


class LimitedConnection(HttpToolsProtocol):
    """Closes itself when a request takes too long to come or has too large a head."""

    def __init__(self, settings: Config, /, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = settings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._begin_head()
        if len(self.connections) > self._settings.http_connections:
            self._close(Overloaded("this daemon has all the connections that it takes", hint="Try again later."))

    def connection_lost(self, error: Exception | None) -> None:
        """End waiting."""
        self._disarm()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Take what came, and close the connection if it is too much."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._received += len(data)
            if self._received > self._settings.http_head_bytes:
                self._refuse_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser could not read."""
        if self._held > self._settings.http_head_bytes:
            self._refuse_head()
        else:
            self._close(_Malformed(msg.rstrip("."), hint="Send HTTP/1.1."))

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of the head, if that has not begun yet."""
        super().on_message_begin()
        if not self._in_head:
            self._begin_head()

    def on_url(self, url: bytes) -> None:
        """Count it."""
        self._hold(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count it."""
        self._hold(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Wait for the body."""
        self._in_head = False
        self._arm(self._settings.http_body_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End waiting: all has come."""
        self._disarm()
        super().on_message_complete()

    def _begin_head(self) -> None:
        self._in_head = True
        self._received = self._held = 0
        self._arm(self._settings.http_head_s)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > self._settings.http_head_bytes:
            raise ValueError  # the parser stops, and the server asks for its 400

    def _refuse_head(self) -> None:
        most = self._settings.http_head_bytes
        self._close(_HeadTooLarge(f"the head is larger than {most} bytes", hint="Send fewer headers."))

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(delay_s, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        what = "head" if self._in_head else "body"
        self._close(_TooSlow(f"the {what} of the request did not come in time", hint="Send it faster."))

    def _close(self, error: CoordinatorError) -> None:
        """Answer, if no answer has begun, and close."""
        self._disarm()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = msgspec.json.encode(problem_of(error))
            headers = [
                (b"content-type", MEDIA_TYPE.encode()),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
                *headers_of(error),
            ]
            head = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(b"HTTP/1.1 %d \r\n%b\r\n%b" % (error.http_status, head, body))
        self.transport.close()
