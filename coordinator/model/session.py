"""Sessions: conversations and runs of work."""

from __future__ import annotations

from datetime import datetime

import msgspec

from coordinator.model.operation import Json

__all__ = ["Session"]


class Session(msgspec.Struct, frozen=True):
    """A session; ``session`` is its key. ``status`` is active, archived or a word of the caller's own.

    ``updated_at`` is when it was last changed or used, to about a minute.
    """

    project: str
    session: str
    username: str | None
    title: str
    mission: str
    status: str
    context: dict[str, Json]
    forked_from: str | None
    actor: str
    created_at: datetime
    updated_at: datetime
