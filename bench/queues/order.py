"""A process that serves one queue: it reads orders, one per line, and responds with how long each took.

It imports nothing but the standard library and uvloop, since other queues run in an environment of their own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import uvloop

__all__ = ["BATCH", "CONNECTIONS", "FEEDERS", "IDLE_S", "PAYLOAD", "Queue", "serve"]

BATCH = 100  # jobs a call of an enqueue
CONNECTIONS = 2  # of the worker
FEEDERS = 2  # connections that enqueue while it works; the first enqueues alone
IDLE_S = 0.005  # how long a worker that polls rests when there is nothing
PAYLOAD = {"document": "reports/2026/q3/summary-of-the-region.pdf", "language": "en", "pages": 12, "draft": False}
BACKLOG = 2000  # jobs that wait, at most, while a worker is fed


class Queue(Protocol):
    """What each queue can do."""

    async def enqueue(self, count: int, feeder: int = 0) -> None:
        """Enqueue jobs in batches, on one of the feeders' connections."""

    async def work(self, done: Callable[[int], bool]) -> None:
        """Work until `done`, which receives finished jobs, returns true."""


async def _feed(queue: Queue, count: int, finished: Callable[[], int]) -> None:
    """Enqueue in batches, never more than the backlog ahead of the worker."""
    sent = 0

    async def run(feeder: int) -> None:
        nonlocal sent
        while sent < count:
            size = min(BATCH, count - sent)
            sent += size
            while sent - finished() > BACKLOG:
                await asyncio.sleep(0.001)
            await queue.enqueue(size, feeder)

    await asyncio.gather(*(run(feeder) for feeder in range(FEEDERS)))


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
            await asyncio.gather(_feed(queue, count, lambda: finished), queue.work(done))
        answer = {"seconds": time.perf_counter() - began, "processor_s": time.process_time() - used}
        print(json.dumps(answer), flush=True)
        sys.stdin.readline()  # what the server spent is read while its processes still live


def serve(opened: Callable[[str], AbstractAsyncContextManager[Queue]]) -> None:
    """Execute orders until standard input ends: respond, wait for an empty line, close all connections, and confirm."""
    while line := sys.stdin.readline():
        verb, count = line.split()
        uvloop.run(_obey(opened, verb, int(count)))
        print("closed", flush=True)
