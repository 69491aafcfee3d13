"""A cache whose entries expire soon, so that the database is asked less often."""

from __future__ import annotations

import math
import time
from typing import Generic, TypeVar

__all__ = ["Believed"]

REMEMBERED = 10_000

K = TypeVar("K")
V = TypeVar("V")


class Believed(Generic[K, V]):
    """A map whose entries last ``for_s`` seconds. When it is full, it forgets everything."""

    def __init__(self, for_s: float = math.inf) -> None:
        self._for_s = for_s
        self._entries: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V | None:
        """Return the cached value, if there is one."""
        at, value = self._entries.get(key, (-math.inf, None))
        return value if time.monotonic() - at < self._for_s else None

    def keep(self, key: K, value: V, at: float | None = None) -> V:
        """Cache a value that was requested at the monotonic time ``at``, by default now; return it."""
        if len(self._entries) >= REMEMBERED:
            self._entries.clear()
        self._entries[key] = (time.monotonic() if at is None else at, value)
        return value

    def forget(self) -> None:
        """Forget everything."""
        self._entries.clear()
