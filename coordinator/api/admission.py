"""Admits calls to the database: a limited number run, a limited number queue for a short time, and the others get 503.

A project whose calls wait, for instance for a locked row, does not stop other projects. While other projects have
calls, it gets at most half of the turns; alone, it leaves a quarter free for new calls of others. Queued projects take
turns, and the calls of a project run in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

import anyio

from coordinator.api.problems import Overloaded
from coordinator.config import Config

__all__ = ["Admission"]

_HINT = "Try again in a second."

Key = str | None
_NOBODY: Any = object()


class Admission:
    """Turns for calls; ``key`` is the project of a call, or None."""

    def __init__(self, config: Config) -> None:
        self._config = config
        turns = config.max_connections
        self._free = turns
        self._half = (turns + 1) // 2
        self._alone = turns - turns // 4
        self._running: dict[Key, int] = {}
        self._queues: dict[Key, deque[asyncio.Future[None]]] = {}  # the first is admitted next
        self._queued = 0

    async def enter(self, key: Key) -> None:
        """Wait for a turn; call ``leave`` afterwards.

        Raises: ``Overloaded``, if the queue is full or does not move in time.
        """
        if key not in self._queues and self._admits(key):
            self._take(key)
        else:
            await self._queue(key)

    def leave(self, key: Key) -> None:
        """Return the turn."""
        self._free += 1
        if self._running[key] == 1:
            del self._running[key]
        else:
            self._running[key] -= 1
        if self._queues:
            self._admit()

    def _admits(self, key: Key) -> bool:
        running = self._running.get(key, 0)
        others = len(self._running) > (running > 0) or len(self._queues) > (key in self._queues)
        return self._free > 0 and running < (self._half if others else self._alone)

    def _take(self, key: Key) -> None:
        self._free -= 1
        self._running[key] = self._running.get(key, 0) + 1

    def _admit(self) -> None:
        """Give free turns to the queues, beginning with the one that has waited longest."""
        while self._free and (key := next(filter(self._admits, self._queues), _NOBODY)) is not _NOBODY:
            queue = self._queues.pop(key)
            waiter = queue.popleft()
            if queue:
                self._queues[key] = queue  # move it to the end
            if not waiter.done():  # otherwise it was cancelled at the same moment
                self._take(key)
                waiter.set_result(None)

    async def _queue(self, key: Key) -> None:
        if self._queued >= self._config.http_queue:
            raise Overloaded(f"{self._queued} requests are already waiting for the database", hint=_HINT)
        waiter = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(key, deque())
        queue.append(waiter)
        self._queued += 1
        try:
            with anyio.fail_after(self._config.http_queue_s):
                await waiter
        except BaseException as error:
            if waiter.cancelled():
                with suppress(ValueError):
                    queue.remove(waiter)
                if not queue and self._queues.get(key) is queue:
                    del self._queues[key]
            else:  # it was admitted at the same moment
                self.leave(key)
            if isinstance(error, TimeoutError):
                raise Overloaded(
                    f"the database was busy for {self._config.http_queue_s:g} seconds", hint=_HINT
                ) from None
            raise
        finally:
            self._queued -= 1
