"""A receiver of webhooks as a server on loopback: it keeps what arrives, and responds as a test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

from tests.waiting import until

__all__ = ["Received", "Receiver", "Respond", "answer"]


class Received(NamedTuple):
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


Respond = Callable[[Received, asyncio.StreamWriter], Awaitable[Any]]


def answer(status: int, *headers: str, body: bytes = b"") -> Respond:
    """Respond with a status."""
    head = "\r\n".join([f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers, "", ""])

    async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)
        await writer.drain()

    return respond


class Receiver:
    """The server. ``respond`` may be changed at any time."""

    def __init__(self, respond: Respond | None = None, context: ssl.SSLContext | None = None) -> None:
        self.respond = respond or answer(200)
        self.received: list[Received] = []
        self.connections = 0
        self.keeps = False  # a connection for further requests
        self._context = context
        self._tasks: set[asyncio.Task[Any]] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self._context else ''}://127.0.0.1:{port}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def got(self, count: int) -> list[Received]:
        """Wait for this number of requests."""
        await until(lambda: len(self.received) >= count, f"{count} requests have arrived")
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                self.received.append(Received(head[0].split()[1], headers, body))
                await self.respond(self.received[-1], writer)
                if not self.keeps:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)
