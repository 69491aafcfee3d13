"""One HTTP/1.1 connection of a client: a request, then its answer, as httptools reads it.

Guarantees: what a server can make us keep is bounded; an exchange has a time. A connection is ``sound`` only after an
exchange that ended well, both ways, and with nothing behind the answer.

On failure: ``HungUp`` when the connection was lost before the first byte of an answer, mostly one that was kept, and that
the server closed just then; else ``NotAnswered``.

What it deliberately does not do: pipelining, compression, cookies. The libraries were measured first: of the processor, a
call takes 0.9 ms with httpx, 0.7 with httpcore, 0.3 with aiohttp, and 0.12 so, of which 0.1 is that of a bare socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import httptools

__all__ = ["Answer", "Connection", "Heard", "HungUp", "NotAnswered"]

OK = 200
HEAD_MOST = 64 << 10  # bytes that bring no piece of a body: a head, trailers
BODY_MOST = 512 << 20  # a page of a thousand values of the largest size has half of it

Heard = Callable[[bytes], None]


class NotAnswered(Exception):
    """The request was sent, and no whole answer came: it may or may not have been done."""


class HungUp(NotAnswered):
    """The connection was lost before the first byte of an answer."""


class Answer(NamedTuple):
    """An answer; ``body`` is empty where its pieces were handed on as they came."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One connection; ``everyone`` has it for as long as it is open, and ``lost`` tells when it is not any more."""

    transport: asyncio.Transport

    def __init__(self, everyone: set[Connection]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.free_at = 0.0
        self._everyone = everyone
        self._reading: _Reading | None = None

    @property
    def sound(self) -> bool:
        """Whether it can carry another exchange: the last one ended well, both ways, and nothing came after it."""
        busy = self._reading or self.transport.get_write_buffer_size()
        return not busy and not self.transport.is_closing()

    async def exchange(self, request: bytes, heard: Heard | None, timeout_s: float) -> Answer:
        """Send a request and read its answer.

        With ``heard`` the pieces of a 200 are handed on as they come, and the time is counted from the last sign of life.

        Raises: ``HungUp``, ``NotAnswered``.
        """
        self._reading = reading = _Reading(heard, timeout_s)
        try:
            if self.transport.is_closing():
                raise HungUp("the connection was closed")
            self.transport.write(request)
            answer = await reading.answer
            if reading.kept:
                self._reading = None
            return answer
        finally:
            reading.end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = transport  # type: ignore[assignment]
        self._everyone.add(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._reading is None or self._reading.answer.done():
            self.transport.abort()  # nobody asked
        else:
            self._reading.feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        self._everyone.discard(self)
        if self._reading is not None:
            self._reading.cut(error)
        self.lost.set_result(None)


class _Reading:
    """One answer as it comes; httptools calls what is named ``on_…``."""

    def __init__(self, heard: Heard | None, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Answer] = self._loop.create_future()
        self.kept = False
        self._heard = heard
        self._timeout_s = timeout_s
        self._timer = self._loop.call_later(timeout_s, self._time_out)
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._bodiless = 0
        self._body: list[bytes] = []
        self._size = 0
        self._begun = False
        self._measured = False

    def feed(self, data: bytes) -> None:
        self._begun = True
        self._bodiless += len(data)
        if self._heard is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._timeout_s, self._time_out)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.kept = False
            self._fail(NotAnswered(f"the answer is no HTTP/1.1: {error}"))
        if self._bodiless > HEAD_MOST:
            self._fail(NotAnswered(f"the head of the answer has more than {HEAD_MOST} bytes"))

    def cut(self, error: Exception | None) -> None:
        """Take that the connection is lost."""
        if self._status and not self._measured and error is None:  # it ends where the connection does
            self._finish()
        elif self._begun:
            self._fail(NotAnswered("the connection was lost in the middle of the answer"))
        else:
            self._fail(HungUp(f"the connection was lost before the answer{f': {error}' if error else ''}"))

    def end(self) -> None:
        """Stop the clock; whoever asked has the answer, or does not want it any more."""
        self._timer.cancel()
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()  # asyncio complains of one that nobody saw

    def on_message_begin(self) -> None:
        self.kept = False

    def on_header(self, name: bytes, _value: bytes) -> None:
        self._measured |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status != OK:
            self._heard = None

    def on_body(self, piece: bytes) -> None:
        self._bodiless = 0
        if self._heard is not None:
            self._heard(piece)
            return
        self._size += len(piece)
        if self._size > BODY_MOST:
            self._fail(NotAnswered(f"the answer has more than {BODY_MOST} bytes"))
            self._body.clear()
        elif not self.answer.done():
            self._body.append(piece)

    def on_message_complete(self) -> None:
        if self._status < OK:  # 100 and the like announce an answer
            self._status = 0
        elif not self.answer.done():
            self.kept = bool(self._parser.should_keep_alive())
            self._finish()

    def _finish(self) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(self._status, b"".join(self._body)))

    def _fail(self, error: NotAnswered) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def _time_out(self) -> None:
        self._fail(
            NotAnswered(
                f"no {'whole answer' if self._heard is None else 'sign of life'} within {self._timeout_s:.1f} seconds"
            )
        )
