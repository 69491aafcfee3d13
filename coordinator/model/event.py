"""Events: the same JSON object on every floor."""

from __future__ import annotations

from datetime import datetime

import msgspec

from coordinator.model.operation import Json

__all__ = ["BOOKMARK", "RESET", "Event", "parsed_cursor"]

RESET = "reset"
BOOKMARK = "bookmark"


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
