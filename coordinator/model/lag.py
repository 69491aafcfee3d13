"""The maximum age of a list: within it, a daemon with a replica may read from the replica instead of the primary.

Like a position, it is passed alongside the call: the caller sets it in a context, and the code that sends the request
reads it.
"""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["MAX_LAG", "MAX_LAG_S", "tolerated", "tolerating"]

MAX_LAG = "max_lag"
MAX_LAG_S = 86_400.0

_tolerated: ContextVar[float | None] = ContextVar("tolerated", default=None)


class tolerating:  # noqa: N801 - a context manager
    """Allow the lists that this task reads within the context to be up to ``max_lag_s`` seconds old; None changes nothing."""

    __slots__ = ("_max_lag_s", "_token")

    def __init__(self, max_lag_s: float | None) -> None:
        self._max_lag_s = max_lag_s

    def __enter__(self) -> None:
        self._token = _tolerated.set(tolerated() if self._max_lag_s is None else self._max_lag_s)

    def __exit__(self, *_: object) -> None:
        _tolerated.reset(self._token)


def tolerated() -> float | None:
    """Return how old a list may be, in seconds; None: read from the primary."""
    return _tolerated.get()
