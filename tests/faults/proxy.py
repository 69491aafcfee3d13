"""What is between a program and its database: a pooler that swallows notifications, a silent network, a counter."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit, urlunsplit

import anyio

from tests.ports import reserve_port

NOTIFICATION, READY, EXECUTED = b"A", b"Z", b"C"


class Proxy:
    """Passes connections on to the database; ``url`` is the database's address through it.

    With ``silent_after``, each connection dies silently after this number of messages of the server, counted from its first answer.
    """

    def __init__(self, target: str, *, swallow: bytes = b"", silent_after: float = math.inf) -> None:
        self._target = urlsplit(target)
        self._swallow = swallow
        self._silent_after = silent_after
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.answers = 0  # the server said that it is ready for the next query
        self.passed = 0  # messages of the server on the newest connection, counted from its first answer
        self.asked = 0  # parts of requests that came, whether they were passed on or not
        self._losing = False
        self._port = reserve_port()

    def go_silent(self) -> None:
        """Pass nothing on, and close nothing: neither side learns of it."""
        self._open.clear()

    def speak_again(self) -> None:
        """Pass on everything, what was held back included."""
        self._open.set()

    def lose_answer(self) -> None:
        """Cut the connection of the next statement when the server has executed it, in place of its answer."""
        self._losing = True

    async def refuse(self) -> None:
        """Cut every connection, and refuse new ones."""
        await self._cut()
        await self._server.wait_closed()

    async def accept(self, target: str | None = None) -> None:
        """Accept connections again, perhaps for another server."""
        self._target = self._target if target is None else urlsplit(target)
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self._port)

    def forget_connections(self) -> None:
        """Pass nothing more on for the present connections, and close none of them; new ones work."""
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        """Listen for as long as the context lasts."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self._port)
        user, at, _ = self._target.netloc.rpartition("@")
        self.url = urlunsplit(
            self._target._replace(netloc=f"{user}{at}127.0.0.1:{self._port}", query="sslmode=disable")
        )
        try:
            yield self
        finally:
            with anyio.CancelScope(shield=True):
                await self._cut()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self) -> None:
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        # Turns of the event loop, in which what was accepted becomes a task; a closed server would leave it half open.
        for _ in range(5):
            await asyncio.sleep(0)
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._pass(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # it may be cancelled before it begins

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        query = parse_qs(self._target.query)
        if folder := query.get("host", [""])[0]:
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{query.get('port', ['5432'])[0]}")
        return await asyncio.open_connection(self._target.hostname, self._target.port or 5432)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_writer = None
        opened = self._open
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                server_reader, server_writer = await self._connect()
                async with asyncio.TaskGroup() as ways:
                    there = ways.create_task(self._requests(reader, server_writer, opened))
                    back = ways.create_task(self._answers(server_reader, writer, opened))
                    await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
                    there.cancel()
                    back.cancel()
        except BaseExceptionGroup:
            pass  # one side went away
        finally:
            if server_writer is not None:
                server_writer.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: asyncio.Event
    ) -> None:
        while part := await reader.read(65536):
            self.asked += 1
            await opened.wait()
            writer.write(part)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: asyncio.Event) -> None:
        executed = False
        passed = -1
        while True:
            if passed >= self._silent_after:
                await asyncio.Event().wait()
            head = await reader.readexactly(5)
            body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            await opened.wait()
            if self._losing and executed and head[:1] == READY:
                self._losing = False
                return
            executed = head[:1] == EXECUTED
            self.answers += head[:1] == READY
            passed += passed >= 0 or head[:1] == READY
            self.passed = passed
            if head[:1] != self._swallow:
                writer.write(head + body)
                await writer.drain()
