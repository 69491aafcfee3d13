"""Events: the same JSON object in every layer."""

from __future__ import annotations

from datetime import datetime

import msgspec

from coordinator.model.operation import Json

__all__ = ["BOOKMARK", "RESET", "Event", "epoch_order", "parsed_cursor"]

RESET = "reset"
BOOKMARK = "bookmark"

RANDOM_ID = 8  # digits of the id of an epoch that began before ids had an order


class Event(msgspec.Struct, frozen=True):
    """One change: ``key`` is what changed, ``actor`` who changed it.

    ``cursor`` is opaque: pass it as ``after`` to continue after this event. An event of type ``reset`` says that events between
    the reader's cursor and this one are missing; the reason is in ``data``. ``transaction`` names the transaction that wrote the
    event, and ``more`` says whether more events of it follow in the log. ``traceparent`` is the trace of the call (W3C Trace Context), if there
    was one.
    """

    cursor: str
    seq: int
    type: str
    project: str | None
    key: str | None
    actor: str
    at: datetime
    data: dict[str, Json]
    transaction: str | None = None
    more: bool = False
    traceparent: str | None = None


def parsed_cursor(cursor: str) -> tuple[str, int]:
    """Split a cursor into the epoch of the log and the number of the event before it."""
    epoch, _, seq = cursor.partition(".")
    return epoch, int(seq)


def epoch_order(epoch: str) -> int:
    """Return the position of an epoch in the order in which epochs began; 0 for an id that is older than this order."""
    try:
        return int(epoch, 16) if len(epoch) > RANDOM_ID else 0
    except ValueError:  # a cursor is opaque to clients
        return 0
