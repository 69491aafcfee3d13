"""Memory: how many bytes of bodies, pages and responses the process holds at once.

A request reserves memory for what it is about to hold: the parts of a large body as they arrive, a page before it is
read, a large response until its client has taken it. Beyond ``max_bytes``, it waits in line for a short time, and then
gets 503. Small bodies and responses do not count, so they never wait.

What this does not count: connections, streams without a backlog, and the gateway's ring. They have their own limits.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Self

import anyio

from coordinator.api.problems import Overloaded
from coordinator.model.page import PAGE_BYTES

__all__ = ["PAGE_COST", "SMALL_BYTES", "Allotment", "Memory"]

SMALL_BYTES = 16 << 10
EVENT_BYTES = 1 << 20  # the largest row
PAGE_COST = 2 * (PAGE_BYTES + EVENT_BYTES)  # rows, including one that may be too many, and their encoding


class _Reservation(NamedTuple):
    hold: Allotment
    size: int
    granted: anyio.Event


class Memory:
    """The available bytes. Requests for more than is free wait in order."""

    def __init__(self, max_bytes: int, wait_s: float) -> None:
        self._max_bytes = self._free = max_bytes
        self._wait_s = wait_s
        self._waiting: deque[_Reservation] = deque()

    def hold(self) -> Allotment:
        """Return a context for one request; its end releases everything that it holds."""
        return Allotment(self)

    async def grant(self, hold: Allotment, size: int) -> None:
        """Give bytes to a hold when they are free; one that has all of them needs no more.

        Raises: ``Overloaded``.
        """
        size = min(size, self._max_bytes - hold.size)
        if size <= 0:
            return
        reservation = _Reservation(hold, size, anyio.Event())
        self._waiting.append(reservation)
        self._advance()
        if reservation.granted.is_set():
            return
        try:
            with anyio.move_on_after(self._wait_s):
                await reservation.granted.wait()
        finally:
            if not reservation.granted.is_set():
                self._waiting.remove(reservation)
                self._advance()
        if not reservation.granted.is_set():
            raise Overloaded("large requests take up this daemon's memory", hint="Try again in a second.")

    def release(self, size: int) -> None:
        """Release bytes."""
        self._free += size
        self._advance()

    def _advance(self) -> None:
        while self._waiting and self._waiting[0].size <= self._free:
            reservation = self._waiting.popleft()
            self._free -= reservation.size
            reservation.hold.size += reservation.size
            reservation.granted.set()


class Allotment:
    """The bytes that one request holds."""

    def __init__(self, memory: Memory) -> None:
        self.size = 0
        self._memory = memory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.keep(0)

    async def reserve(self, size: int) -> None:
        """Hold ``size`` bytes more.

        Raises: ``Overloaded``.
        """
        await self._memory.grant(self, size)

    def keep(self, size: int) -> None:
        """Release what exceeds ``size``."""
        if self.size > size:
            self._memory.release(self.size - size)
            self.size = size
