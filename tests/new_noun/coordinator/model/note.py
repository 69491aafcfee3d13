"""Notes: short texts that agents of a project leave for each other."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Note"]


class Note(msgspec.Struct, frozen=True):
    """A note. From ``expires_at`` on, nobody sees it."""

    project: str
    key: str
    text: str
    actor: str
    written_at: datetime
    expires_at: datetime
