"""Cheap clients: one keep-alive connection for calls, and stream readers that only count bytes or read times."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime

__all__ = ["Connection", "Counter", "Timer", "subscribe"]

_AT = re.compile(rb'"at":"([^"]+)"')
_LENGTH = re.compile(rb"content-length: (\d+)")


class Connection:
    """One HTTP/1.1 connection that repeats the same request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, request: bytes) -> bytes:
        """Send one request and read its response; of chunks, with their sizes."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        length = _LENGTH.search(head)
        if b"\r\ntransfer-encoding: chunked" in head:
            return await self._reader.readuntil(b"\r\n0\r\n\r\n")
        return await self._reader.readexactly(int(length[1])) if length else b""

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """Format a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Counter(asyncio.Protocol):
    """A subscriber that counts bytes up to ``wanted``; ``began`` is when the first of them arrived."""

    def __init__(self) -> None:
        self.size = 0
        self.wanted = 0
        self.began = 0.0
        self.done = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Count the bytes."""
        self.size += len(data)
        if self.wanted:
            self.began = self.began or time.perf_counter()
            if self.size >= self.wanted:
                self.done.set()


class Timer(asyncio.Protocol):
    """A subscriber that measures the time since each event's own instant."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Parse the events that have arrived."""
        now = time.time()
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        self.latencies += [
            (now - datetime.fromisoformat(at.decode()).timestamp()) * 1000 for at in _AT.findall(data[:end])
        ]


async def subscribe(port: int, path: str, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Open a stream."""
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, "127.0.0.1", port)
    transport.write(request("GET", path))
    return transport
