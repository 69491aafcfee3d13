"""Answers of requests that may come again: recorded with the change itself, in one transaction. Not on any face."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.operation import Operation

__all__ = ["Claim", "Prune", "Store"]


class Claim(Operation[str | None], frozen=True, kw_only=True):
    """Claim a key for a request, or learn what it was answered with; waits for one that is under way.

    Raises: ``Conflict`` where the key belongs to another request, or to one that is under way for long.
    """

    function = "idempotency_claim"
    internal = True

    project: str
    key: str
    request: str
    ttl: timedelta = timedelta(days=1)


class Store(Operation[None], frozen=True, kw_only=True):
    """Record the answer for a key that was claimed in the same transaction."""

    function = "idempotency_store"
    internal = True

    project: str
    key: str
    response: str


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete recorded answers whose time passed; answers how many. Again until 0."""

    function = "idempotency_prune"
    internal = True

    limit: int = 1000
