"""PostgreSQL as an operator sees it."""

from __future__ import annotations

import msgspec

__all__ = ["ServerCalls"]


class ServerCalls(msgspec.Struct, frozen=True):
    """Calls of one function in the server: those that run, and with pg_stat_statements those that ended, with the seconds that they took."""

    function: str
    running: int
    longest_seconds: float | None
    calls: float | None
    seconds: float | None
