"""Events, as they are everywhere: one JSON object."""

from __future__ import annotations

from datetime import datetime

import msgspec

from coordinator.model.operation import Json

__all__ = ["BOOKMARK", "RESET", "Event"]

RESET = "reset"
BOOKMARK = "bookmark"


class Event(msgspec.Struct, frozen=True):
    """One change. ``type`` reset: events between the reader's cursor and this one are gone, with the reason in ``data``.

    ``cursor`` is opaque; hand it back to go on after this event. ``key`` is what the event is about, ``actor`` who did it.
    """

    cursor: str
    seq: int
    type: str
    project: str | None
    key: str | None
    actor: str
    at: datetime
    data: dict[str, Json]
