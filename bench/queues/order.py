"""A process that serves one queue: it reads orders, a line each, and answers how long each took.

It imports nothing but the standard library and uvloop, since other queues run in an environment of their own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import uvloop

__all__ = ["BATCH", "CONNECTIONS", "PAYLOAD", "Queue", "feed", "serve"]

BATCH = 100  # jobs a call of an enqueue
CONNECTIONS = 2
PAYLOAD = {"document": "reports/2026/q3/summary-of-the-region.pdf", "language": "en", "pages": 12, "draft": False}
BACKLOG = 2000  # jobs that wait, at most, while a worker is fed


class Queue(Protocol):
    """What each queue can do."""

    async def enqueue(self, count: int) -> None:
        """Enqueue jobs in batches."""

    async def work(self, done: Callable[[int], bool]) -> None:
        """Work until `done`, which is told of finished jobs, says so."""


async def feed(enqueue: Callable[[int], Awaitable[None]], count: int, finished: Callable[[], int]) -> None:
    """Enqueue in batches, never more than the backlog ahead of the worker."""
    for number in range(0, count, BATCH):
        while number - finished() > BACKLOG:
            await asyncio.sleep(0.001)
        await enqueue(min(BATCH, count - number))


async def _obey(opened: Callable[[str], AbstractAsyncContextManager[Queue]], verb: str, count: int) -> None:
    finished = 0

    def done(more: int) -> bool:
        nonlocal finished
        finished += more
        return finished >= count

    async with opened(sys.argv[1]) as queue:
        began, used = time.perf_counter(), time.process_time()
        if verb == "enqueue":
            await queue.enqueue(count)
        elif verb == "drain":
            await queue.work(done)
        else:
            await asyncio.gather(feed(queue.enqueue, count, lambda: finished), queue.work(done))
        answer = {"seconds": time.perf_counter() - began, "processor_s": time.process_time() - used}
        print(json.dumps(answer), flush=True)
        sys.stdin.readline()  # what the server spent is read while its processes still live


def serve(opened: Callable[[str], AbstractAsyncContextManager[Queue]]) -> None:
    """Obey until standard input ends: answer, wait for an empty line, close all connections, and say so."""
    while line := sys.stdin.readline():
        verb, count = line.split()
        uvloop.run(_obey(opened, verb, int(count)))
        print("closed", flush=True)
