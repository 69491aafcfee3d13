"""Idempotency keys: the response to a request is recorded in the transaction of its change. Internal."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.operation import Batch, Operation

__all__ = ["Claim", "Position", "Prune", "Store"]


class Claim(Operation[str | None], frozen=True, kw_only=True):
    """Claim a key for a request, or return its recorded response; wait for a request in progress with the same key.

    Raises: ``Conflict`` if the key belongs to another request, or if the request in progress takes too long.
    """

    function = "idempotency_claim"
    internal = True

    project: str
    caller: str
    key: str
    request: str
    ttl: timedelta = timedelta(days=1)


class Store(Operation[None], frozen=True, kw_only=True):
    """Record the response for a key that was claimed in the same transaction."""

    function = "idempotency_store"
    internal = True

    project: str
    caller: str
    key: str
    response: str


class Position(Operation[str | None], frozen=True, kw_only=True):
    """Return the position of the change whose response is recorded for a key."""

    function = "idempotency_position"
    internal = True
    reads = True

    project: str
    caller: str
    key: str


class Prune(Batch, frozen=True, kw_only=True):
    """Delete recorded responses whose TTL has passed; return how many. Repeat until 0."""

    function = "idempotency_prune"
