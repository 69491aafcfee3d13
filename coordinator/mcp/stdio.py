"""The protocol on standard input and output: one JSON message per line.

The SDK reads in a thread, which cannot be cancelled while nothing arrives, so a signal would not end the program. This
module waits for both descriptors instead. Everything else that the process prints goes to standard error.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import anyio
from mcp.server.stdio import stdio_server

from coordinator.api.gateway import Gateway
from coordinator.api.local import Local
from coordinator.errors import InvalidArgument
from coordinator.mcp.listeners import Listeners
from coordinator.mcp.server import McpHandlers
from coordinator.mcp.tools import McpCaller

__all__ = ["serving_stdio"]

PIECE_BYTES = 4096  # a writable pipe accepts at least this many bytes
MESSAGE_BYTES = 16 << 20


@asynccontextmanager
async def serving_stdio(
    local: Local, caller: McpCaller, gateway: Gateway, stop: anyio.Event, listeners: int
) -> AsyncIterator[None]:
    """Serve within the context; set ``stop`` when the input ends."""

    async def resolve(_context: object) -> tuple[Local, McpCaller]:
        return local, caller

    async with anyio.create_task_group() as tasks:
        handlers = McpHandlers(resolve, gateway, Listeners(listeners), tasks)

        async def run() -> None:
            with _claimed() as (source, sink):
                streams = stdio_server(cast("Any", _lines(source)), cast("Any", _Sink(sink)))
                async with streams as (incoming, outgoing):
                    await handlers.server.run(incoming, outgoing, handlers.server.create_initialization_options())
            stop.set()

        tasks.start_soon(run)
        yield
        tasks.cancel_scope.cancel()


@contextmanager
def _claimed() -> Iterator[tuple[int, int]]:
    """Reserve standard input and output, so that the rest of the process cannot use them."""
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    try:
        yield source, sink
    finally:
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.close(source)
        os.close(sink)


async def _lines(source: int) -> AsyncIterator[str]:
    """Yield lines until the input ends.

    Raises: ``InvalidArgument`` for a line that is too long.
    """
    rest = bytearray()
    while True:
        await _ready(anyio.wait_readable, source)
        piece = os.read(source, 1 << 16)
        if not piece:
            return
        rest += piece
        *lines, last = rest.split(b"\n")
        rest = bytearray(last)
        for line in lines:
            yield line.decode(errors="replace")
        if len(rest) > MESSAGE_BYTES:
            raise InvalidArgument(f"a message is longer than {MESSAGE_BYTES} bytes", hint="Send smaller messages.")


class _Sink:
    def __init__(self, sink: int) -> None:
        self._sink = sink

    async def write(self, text: str) -> None:
        """Write a message, as fast as the reader takes it."""
        data = memoryview(text.encode(errors="replace"))
        while data:
            await _ready(anyio.wait_writable, self._sink)
            data = data[os.write(self._sink, data[:PIECE_BYTES]) :]

    async def flush(self) -> None:
        """Do nothing: written data is already with the reader."""


async def _ready(wait: Callable[[int], Any], descriptor: int) -> None:
    """Wait for a descriptor; a file is always ready, and cannot be waited for."""
    try:
        await wait(descriptor)
    except PermissionError:
        await anyio.lowlevel.checkpoint()
