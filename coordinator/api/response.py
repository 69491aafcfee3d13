"""Responses: complete ones, and Server-Sent Events as they come. A subscriber's stream is in ``api/stream.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from starlette import responses

__all__ = ["FrameStream", "Response"]


class Response(responses.Response):
    """Status, body and headers. It takes raw headers: Starlette's constructor encodes them again for each response."""

    body: bytes

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


class FrameStream(responses.StreamingResponse):
    """Server-Sent Events; the iterator ends or is cancelled with the connection."""

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        super().__init__(frames, headers={"cache-control": "no-store"}, media_type="text/event-stream")
