"""The wait between two attempts, the same throughout the program."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

__all__ = ["Backoff"]


class Backoff:
    """Waits longer after each failure: twice as long each time, up to ``max_s``.

    Each wait is shortened at random by up to half, so that processes that failed together do not retry together.
    """

    def __init__(self, first_s: float = 0.05, max_s: float = 2.0) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self.next_s = first_s
        """The next wait, before it is shortened."""

    def reset(self) -> None:
        """Start again with the first wait, because an attempt succeeded."""
        self.next_s = self._first_s

    async def wait(self, sleep: Callable[[float], Awaitable[object]] | None = None) -> None:
        """Wait; the next wait is twice as long. ``sleep`` may return early, for instance at a hint that a retry is worthwhile."""
        import anyio  # noqa: PLC0415 - a command that never waits starts sooner

        wait_s, self.next_s = self.next_s, min(self.next_s * 2, self._max_s)
        await (sleep or anyio.sleep)(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - not security-relevant
