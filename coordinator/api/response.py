"""Responses: complete ones, and Server-Sent Events as they arrive. For a subscriber's stream, see ``api/stream.py``."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing

import anyio
import structlog
from starlette import responses
from starlette.types import Receive, Scope, Send

__all__ = ["PIECE_BYTES", "TRANSPORT", "FrameStream", "PartStream", "Response"]

log = structlog.get_logger()

TRANSPORT = "coordinator.transport"  # extension of the scope
PIECE_BYTES = 64 << 10


class Response(responses.Response):
    """Status, body and headers. It takes raw headers: Starlette's constructor encodes them again for each response."""

    body: bytes
    deadline_s: float = math.inf  # for each piece of a large body

    def __init__(
        self,
        status: int,
        body: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
        media_type: bytes = b"application/json",
    ) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *headers,
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. A large body is sent in pieces, as the client takes it; a client that stops reading is disconnected."""
        if len(self.body) <= PIECE_BYTES:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if await _taken(self.body, scope, send, self.deadline_s):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _taken(body: bytes, scope: Scope, send: Send, deadline_s: float) -> bool:
    """Send a body in pieces. If the client takes nothing for ``deadline_s``, disconnect it and return false."""
    view = memoryview(body)
    for start in range(0, len(view), PIECE_BYTES):
        with anyio.move_on_after(deadline_s) as taking:
            piece = bytes(view[start : start + PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if taking.cancelled_caught:
            scope["extensions"][TRANSPORT].abort()
            return False
    return True


class PartStream(responses.Response):
    """A body that is read part by part while it is sent, of known length or endless.

    What fails before the first part is a problem, as usual. Afterwards the connection is cut off, and the client sees that the body
    is incomplete.
    """

    body = b""

    def __init__(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        parts: AsyncGenerator[bytes],
        on_end: Callable[[], None],
        deadline_s: float,
    ) -> None:
        self.status_code = status
        self.background = None
        self.raw_headers = headers
        self._parts = parts
        self._on_end = on_end
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the response."""
        transport = scope["extensions"][TRANSPORT]
        try:
            async with aclosing(self._parts) as parts:
                part = await anext(parts, b"")
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                try:
                    while part and not transport.is_closing():
                        if not await _taken(part, scope, send, self._deadline_s):
                            return
                        part = await anext(parts, b"")
                except Exception as error:  # noqa: BLE001 - the response has begun, so no other response can report the error
                    log.warning("response.aborted", error=repr(error))
                    transport.abort()
                    return
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._on_end()


class FrameStream(responses.StreamingResponse):
    """Server-Sent Events; the iterator ends or is cancelled with the connection."""

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        super().__init__(frames, headers={"cache-control": "no-store"}, media_type="text/event-stream")
