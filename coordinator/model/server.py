"""PostgreSQL as an operator sees it."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["ServerCalls", "ServerSize"]


class ServerCalls(msgspec.Struct, frozen=True):
    """Calls of one function in the server: those that run, and with pg_stat_statements those that ended, with the seconds that they took."""

    function: str
    running: int
    longest_seconds: float | None
    calls: float | None
    seconds: float | None


class ServerSize(msgspec.Struct, frozen=True):
    """A size in bytes, as it was last measured, and how much it grew in a day and in a week; None: not known yet.

    ``kind`` is database; limit, the maximum size of the database; table; or project, an estimate. ``name`` is the name of the
    table or project.
    """

    kind: str
    name: str
    bytes: int
    day_bytes: int | None
    week_bytes: int | None
    measured_at: datetime
