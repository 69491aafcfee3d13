"""Admits calls to the database: a number of them run, a number queue for a short time, the others get 503."""

from __future__ import annotations

import anyio

from coordinator.api.problems import Overloaded
from coordinator.config import Config

__all__ = ["Admission"]

_HINT = "Try again in a second."


class Admission:
    """A context that each call enters.

    Raises: ``Overloaded`` on entry, if the queue is full or does not move in time.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._turns = anyio.Semaphore(config.max_connections, fast_acquire=True)
        self._queued = 0

    async def __aenter__(self) -> None:
        """Wait for a turn."""
        try:
            self._turns.acquire_nowait()
        except anyio.WouldBlock:
            await self._queue()

    async def __aexit__(self, *_: object) -> None:
        """Release the turn."""
        self._turns.release()

    async def _queue(self) -> None:
        if self._queued >= self._config.http_queue:
            raise Overloaded(f"{self._queued} requests are already waiting for the database", hint=_HINT)
        self._queued += 1
        try:
            with anyio.move_on_after(self._config.http_queue_s) as scope:
                await self._turns.acquire()
        finally:
            self._queued -= 1
        if scope.cancelled_caught:
            raise Overloaded(f"the database was busy for {self._config.http_queue_s:g} seconds", hint=_HINT)
