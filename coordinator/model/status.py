"""Status: whether all is well, and how much there is."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Status"]


class Status(msgspec.Struct, frozen=True):
    """The server, the schema, the leader, what a project holds, and what needs attention.

    ``postgres`` is the server's version. ``leader`` is the process that leads, ``host:pid``, or None. Counted are agents,
    signals, open directives, held locks, and requests that wait for locks. ``head`` is the cursor of the newest event.
    """

    postgres: str
    schema_version: str
    schema_applied_at: datetime
    leader: str | None
    daemon_count: int
    project: str
    agent_count: int
    signal_count: int
    directive_count: int
    lock_count: int
    waiting_count: int
    head: str
    warnings: list[str]
