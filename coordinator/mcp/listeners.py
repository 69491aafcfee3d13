"""Limits the number of listening requests: in total, to protect the process, and per token, so that one token cannot use the whole limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.api.problems import Overloaded
from coordinator.telemetry import metrics

__all__ = ["Listeners"]

_HINT = "Listen to several resources in one request, or raise the setting mcp_listeners."


class Listeners:
    """Counts listening requests: at most ``most``, and half of them for one token."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._of: dict[str, int] = {}
        metrics.MCP_LISTENERS.set_function(lambda: self._count)

    @contextmanager
    def one(self, token: str) -> Iterator[None]:
        """Count one request within the context; an empty ``token`` means open access.

        Raises: ``Overloaded``.
        """
        if self._count >= self._most:
            raise Overloaded(f"{self._count} requests already listen to this process, its maximum", hint=_HINT)
        own = self._of.get(token, 0)
        if token and own >= (self._most + 1) // 2:
            raise Overloaded(f"{own} requests with this token already listen to this process, its share", hint=_HINT)
        self._count += 1
        self._of[token] = own + 1
        try:
            yield
        finally:
            self._count -= 1
            self._of[token] -= 1
            if not self._of[token]:
                del self._of[token]
