"""Events: emitted in the caller's transaction, read from a cursor, followed without gaps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import msgspec

from coordinator.model.event import BOOKMARK, Event
from coordinator.model.operation import InProject, Json, Operation, Scope

__all__ = ["POLL_S", "Configure", "Emit", "Extend", "Head", "Prune", "Since"]

POLL_S = 10.0  # without hints, a reader checks at this interval


class Emit(InProject[None], frozen=True, kw_only=True):
    """Emit a custom event, with a type ``custom.…``."""

    function = "event_emit"
    speakers = ("actor",)

    type: str
    key: str | None = None
    data: dict[str, Json] = msgspec.field(default_factory=dict)
    actor: str | None = None


class Configure(Operation[bool], frozen=True, kw_only=True):
    """Choose what NOTIFY sends: ``full`` (events), ``pointer`` (their cursors) or ``head``; return false if nothing changed.

    With ``head``, there is one notification for each batch, and none on the channels of the projects.

    Raises: ``InvalidArgument``.
    """

    function = "event_configure"
    scope = Scope.ALL
    speakers = ("actor",)

    payloads: str
    actor: str | None = None


class Since(Operation[list[Event]], frozen=True, kw_only=True):
    """Read the log after a cursor, filtered by project, topics, patterns of keys such as ``task/7/*``, and actors.

    Without ``after``, the read starts at the oldest retained event; with ``now``, after the newest. Continue from the cursor
    of the last event until there is none. A page ends between transactions, unless one of them exceeds it or 500 events. An
    event of type ``reset`` says that events are missing. With ``bookmarks``, the last event may be of type ``bookmark``:
    nothing else matched up to its cursor.

    Raises: ``InvalidArgument`` for a malformed cursor or topic.
    """

    function = "events_since"
    reads = True
    scope = Scope.IN_PROJECT
    route = "/v1/events"
    reads_log = True
    of_log = True
    query_names = MappingProxyType(
        {"topics": "topic", "keys": "key", "actors": "actor", "bookmarks": None}  # every page has a cursor
    )

    after: str | None = None
    project: str | None = None
    topics: list[str] | None = None
    limit: int = 1000
    bookmarks: bool = False
    keys: list[str] | None = None
    actors: list[str] | None = None

    def of_page(self, items: list[Event], cursor: str) -> list[Event]:
        """Return a page like the database: it ends with a bookmark if one was requested and the cursor has moved."""
        last = items[-1].cursor if items else self.after
        full = len(items) >= self.limit
        if not self.bookmarks or full or cursor == last or self.after == "now":
            return items
        seq = int(cursor.rpartition(".")[2])
        return [*items, Event(cursor, seq, BOOKMARK, self.project, None, "coordinator", datetime.now(UTC), {})]


class Head(Operation[str], frozen=True, kw_only=True):
    """Return the cursor after the newest event. Read it before you take a snapshot, then follow from it without a gap."""

    function = "event_head"
    reads = True
    of_log = True
    scope = Scope.NONE


class Prune(Operation[int], frozen=True, kw_only=True):
    """Drop the oldest partition of the log if its events were numbered longer ago than ``retention``; return how many. Repeat until 0."""

    function = "event_prune"
    internal = True

    retention: timedelta = timedelta(days=7)


class Extend(Operation[int], frozen=True, kw_only=True):
    """Create the partitions of the log for the next ``ahead`` million events; return how many."""

    function = "event_extend"
    internal = True

    ahead: int = 16
