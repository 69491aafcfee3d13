"""Users: who owns projects, sessions and tokens."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["User"]


class User(msgspec.Struct, frozen=True):
    """A user, without the password. ``role`` is reader, agent, manager or admin; no token of the user has more."""

    id: int
    username: str
    email: str | None
    role: str
    disabled_at: datetime | None
    actor: str
    created_at: datetime
    updated_at: datetime
