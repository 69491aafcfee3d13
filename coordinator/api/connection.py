"""One HTTP connection. It limits what a slow or excessive client can occupy, which the server does not.

The head of a request must arrive within ``http_head_s`` and ``http_head_bytes``, its body within ``http_body_s``;
handlers limit the size of the body. Otherwise the response is 408 or 431, and the connection is closed. The server
limits the idle time between two requests. A connection beyond ``http_connections`` gets 503 and is closed, so that the
process has file descriptors left for the database.

Each request's scope also contains the connection's transport, for streams: see ``api/stream.py``. ``on_lost`` is called
when the client disconnects, so that its requests can be cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coordinator.api.problems import HeadTooLarge, MalformedRequest, Overloaded, RequestTimedOut, problem_response
from coordinator.api.response import TRANSPORT
from coordinator.config import Config
from coordinator.errors import CoordinatorError

__all__ = ["LimitedConnection"]


class _Joined:
    """The destination of one response. Its head waits for the next data, so that a small response is one packet.

    Alone, the head would wake the client, which would then wait again for the body.
    """

    __slots__ = ("_head", "_transport", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing
        self.write: Callable[[bytes], None] = self._hold

    def _hold(self, head: bytes) -> None:
        self._head, self.write = head, self._join

    def _join(self, body: bytes) -> None:
        self._transport.writelines((self._head, body))
        self._head, self.write = b"", self._transport.write

    def close(self) -> None:
        if self._head:
            self._join(b"")
        self._transport.close()


class LimitedConnection(HttpToolsProtocol):
    """Closes itself when a request takes too long to arrive or has too large a head."""

    def __init__(self, settings: Config, /, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = settings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for a head."""
        super().connection_made(transport)
        self.on_lost: Callable[[], None] | None = None
        self._limit_s: float | None = None  # for what is awaited now
        self._deadline: asyncio.TimerHandle | None = None
        self._begin_head()
        self._start()
        if len(self.connections) > self._settings.http_connections:
            self._close(Overloaded("this daemon has the maximum number of connections", hint="Try again later."))

    def connection_lost(self, error: Exception | None) -> None:
        """Stop the timeout."""
        self._disarm()
        super().connection_lost(error)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Parse data; close the connection if it is too much. Most requests arrive whole, and need no timer."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._received += len(data)
            if self._received > self._settings.http_head_bytes:
                self._refuse_head()
        self._start()

    def send_400_response(self, msg: str) -> None:
        """Respond to data that the parser could not read."""
        if self._held > self._settings.http_head_bytes:
            self._refuse_head()
        else:
            self._close(MalformedRequest(msg.rstrip("."), hint="Send HTTP/1.1."))

    def on_message_begin(self) -> None:
        """Start to wait for the rest of the head, unless that has started."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]
        if not self._in_head:
            self._begin_head()

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._hold(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header. Trailers of a chunked body are dropped, because the request was judged by its headers."""
        self._hold(len(name) + len(value))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Wait for the body."""
        self._in_head = False
        self._expect(self._settings.http_body_s)
        super().on_headers_complete()
        cycle = self.cycle
        follows = self.scope["method"] != "HEAD" and cycle is not None and not cycle.waiting_for_100_continue
        if follows and cycle.transport is self.transport:
            cycle.transport = _Joined(self.transport)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        """Stop waiting: the request is complete."""
        self._disarm()
        super().on_message_complete()

    def extend(self) -> None:
        """Restart the time limit for the rest of the body, after a handler has received a part of it."""
        if self._limit_s is not None and not self._in_head:
            self._expect(self._settings.http_body_s)
            self._start()

    def _begin_head(self) -> None:
        self._in_head = True
        self._received = self._held = 0
        self._expect(self._settings.http_head_s)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > self._settings.http_head_bytes:
            raise ValueError  # stops the parser; the server then calls send_400_response

    def _refuse_head(self) -> None:
        self._close(
            HeadTooLarge(f"the head is larger than {self._settings.http_head_bytes} bytes", hint="Send fewer headers.")
        )

    def _expect(self, limit_s: float) -> None:
        self._disarm()
        self._limit_s = limit_s

    def _start(self) -> None:
        if self._limit_s is not None and self._deadline is None:
            self._deadline = self.loop.call_later(self._limit_s, self._late)

    def _disarm(self) -> None:
        self._limit_s = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        part = "head" if self._in_head else "body"
        self._close(RequestTimedOut(f"the {part} of the request did not arrive in time", hint="Send it faster."))

    def _close(self, error: CoordinatorError) -> None:
        """Respond, unless a response has started, and close."""
        self._disarm()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            response = problem_response(error)
            headers = [*response.raw_headers, (b"connection", b"close")]
            head = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(b"HTTP/1.1 %d \r\n%b\r\n%b" % (response.status_code, head, response.body))
        self.transport.close()
