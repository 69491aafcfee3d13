"""The maximum age of a list: a daemon with a replica then reads from the replica instead of the primary.

Like a position, it passes every floor beside the call: whoever asks says so around it, and what sends the request reads it.
"""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["MAX_LAG", "MAX_LAG_S", "tolerated", "tolerating"]

MAX_LAG = "max_lag"
MAX_LAG_S = 86_400.0

_tolerated: ContextVar[float | None] = ContextVar("tolerated", default=None)


class tolerating:  # noqa: N801 - a context manager
    """Let the lists that this task reads within the context be up to ``max_lag_s`` seconds old; None changes nothing."""

    __slots__ = ("_max_lag_s", "_token")

    def __init__(self, max_lag_s: float | None) -> None:
        self._max_lag_s = max_lag_s

    def __enter__(self) -> None:
        self._token = _tolerated.set(tolerated() if self._max_lag_s is None else self._max_lag_s)

    def __exit__(self, *_: object) -> None:
        _tolerated.reset(self._token)


def tolerated() -> float | None:
    """Return how old a list may be, in seconds; None: it comes from the primary."""
    return _tolerated.get()
