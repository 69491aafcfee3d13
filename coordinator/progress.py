"""Whether a task makes progress and, if not, why and since when: readiness reports it."""

from __future__ import annotations

import time

__all__ = ["Progress"]


class Progress:
    """The failure since which a task has made no progress, or none."""

    def __init__(self) -> None:
        self._since = 0.0
        self._reason: str | None = None

    def made(self) -> bool:
        """Record that the task did something; return whether it had failed before."""
        recovered = self._reason is not None
        self._reason = None
        return recovered

    def failed(self, error: Exception) -> bool:
        """Record a failure; return whether it is the first of several in a row."""
        first = self._reason is None
        if first:
            self._since = time.monotonic()
        self._reason = str(error) or type(error).__name__
        return first

    def obstacle(self, tolerated_s: float) -> str | None:
        """Return the newest failure if there was no success for longer than ``tolerated_s`` seconds."""
        return self._reason if time.monotonic() - self._since > tolerated_s else None
