"""Responses: complete ones, and Server-Sent Events as they come. A subscriber's stream is in ``api/stream.py``."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable

import anyio
from starlette import responses
from starlette.types import Receive, Scope, Send

__all__ = ["PIECE_BYTES", "TRANSPORT", "FrameStream", "Response"]

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
        """Send the response. A large body goes piece by piece, as the client takes it; one who stops reading is cut off."""
        if len(self.body) <= PIECE_BYTES:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        view = memoryview(self.body)
        for start in range(0, len(view), PIECE_BYTES):
            with anyio.move_on_after(self.deadline_s) as taking:
                piece = bytes(view[start : start + PIECE_BYTES])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if taking.cancelled_caught:
                scope["extensions"][TRANSPORT].abort()
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class FrameStream(responses.StreamingResponse):
    """Server-Sent Events; the iterator ends or is cancelled with the connection."""

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        super().__init__(frames, headers={"cache-control": "no-store"}, media_type="text/event-stream")
