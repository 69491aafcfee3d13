"""What keeps a task from making progress, and since when: readiness reports it."""

from __future__ import annotations

import time

__all__ = ["Progress"]


class Progress:
    """The failure since which a task has done nothing, or none."""

    def __init__(self) -> None:
        self._since = 0.0
        self._reason: str | None = None

    def made(self) -> None:
        """Record that the task did something."""
        self._reason = None

    def failed(self, error: Exception) -> None:
        """Record a failure. Those in a row count from the first."""
        if self._reason is None:
            self._since = time.monotonic()
        self._reason = str(error) or type(error).__name__

    def obstacle(self, tolerated_s: float) -> str | None:
        """Return the newest failure if there has been nothing else for longer than ``tolerated_s`` seconds."""
        return self._reason if time.monotonic() - self._since > tolerated_s else None
