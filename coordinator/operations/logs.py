"""Logs: append-only lists of entries, each under a kind and a key."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from coordinator.errors import CoordinatorError
from coordinator.model import log
from coordinator.model.operation import InProject, JsonText, Operation

__all__ = ["ABSENT", "Append", "Clear", "Delete", "Keep", "List", "Pop", "Prune", "Read", "Show"]

ABSENT = "ZC216"


class Append(InProject[log.LogReceipt], frozen=True, kw_only=True):
    """Append entries to a log, all or none; the first append creates it.

    ``entries`` is a list of objects: ``data``, any JSON value, which is returned byte for byte; ``uid``, a name in this
    log, which makes a repetition harmless; ``role``, by default the role in data; ``tokens``; ``needs``, the number of
    the earliest entry that it needs, or -1 for the previous one. With ``expect``, append only if this is the last
    assigned number (0: only if there is no such log), and with ``epoch`` only if it was assigned in that epoch. A new
    log belongs to ``session``, if that is given; its key is the key of the session, or begins with it and /. Logs of
    kind message and step have the key of their session, and the first append creates it.

    Raises: ``Conflict`` with the current state in ``detail``, or if a ``uid`` belongs to other content;
    ``InvalidArgument`` with the index of the entry, as ``entry``, in ``detail``.
    """

    function = "log_append"
    speakers = ("actor",)
    conditional = True
    max_bytes = "log_body"

    kind: str
    key: str
    entries: JsonText
    expect: int | None = None
    epoch: str | None = None
    session: str | None = None
    actor: str | None = None


class Read(InProject[list[log.LogEntry]], frozen=True, kw_only=True):
    """Read entries of a log in the order of their numbers.

    ``before``: only lower numbers. ``last``: start with the last of these entries, unless ``after`` has a position.
    ``at``: only entries that had been appended at that instant; entries popped since are missing.

    With a wait and without ``after``, it waits for a log that does not exist yet.

    Raises: ``NotFound`` if there is no such log, or the entries after ``after`` are gone; then read from the start.
    """

    function = "log_read"
    reads = True
    page_by = ("epoch", "seq")
    grows = True
    woken_by = ("log.appended", "log.cleared", "log.deleted")

    kind: str
    key: str
    before: int | None = None
    last: int | None = None
    at: datetime | None = None
    after: list[str] | None = None
    limit: int = 1000

    def awaits(self, error: CoordinatorError) -> bool:
        """Return whether the log does not exist yet; if it was read before, it is gone."""
        return error.code == ABSENT and self.after is None

    def concerned_by(self, data: dict[str, Any]) -> bool:
        """Return whether an event is about this log."""
        return bool(data["kind"] == self.kind and data["name"] == self.key)


class Pop(InProject[list[log.LogEntry]], frozen=True, kw_only=True):
    """Take the last entry from a log, or the ``last`` ones, and return them in the order of their numbers; none if it is empty.

    Concurrent callers get different entries. Their numbers are not reused. ``expect`` and ``epoch`` are as in
    ``Append``.

    Raises: ``NotFound``, ``Conflict``.
    """

    function = "log_pop"
    speakers = ("actor",)
    conditional = True

    kind: str
    key: str
    last: int = 1
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Clear(InProject[int], frozen=True, kw_only=True):
    """Delete the entries of a log, and return how many. The numbers continue.

    Kept entries, and entries that these need, stay; if the whole log is kept, all entries stay. With ``kept``, they are
    deleted as well.

    Raises: ``NotFound``, ``Conflict``.
    """

    function = "log_clear"
    speakers = ("actor",)
    conditional = True

    kind: str
    key: str
    kept: bool = False
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Delete(InProject[int], frozen=True, kw_only=True):
    """Delete a log, including kept entries, and return how many entries it had. For some days, a new log with its kind and key continues its numbers.

    Raises: ``NotFound``, ``Conflict``.
    """

    function = "log_delete"
    speakers = ("actor",)
    conditional = True

    kind: str
    key: str
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Keep(InProject[int], frozen=True, kw_only=True):
    """Keep entries, so that retention does not delete them; return how many this changed. With ``kept`` false, no longer keep them.

    Without ``first_seq``, this applies to the whole log; without ``last_seq``, to that entry.

    Raises: ``NotFound``.
    """

    function = "log_keep"
    speakers = ("actor",)

    kind: str
    key: str
    first_seq: int | None = None
    last_seq: int | None = None
    kept: bool = True
    actor: str | None = None


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete logs that were appended to while their project was being deleted; return how many."""

    function = "log_prune"
    internal = True


class Show(InProject[log.Log], frozen=True, kw_only=True):
    """Show a log without its entries: their numbers, and the epoch of the last one.

    Raises: ``NotFound``.
    """

    function = "log_show"
    reads = True

    kind: str
    key: str


class List(InProject[list[log.Log]], frozen=True, kw_only=True):
    """List logs whose keys begin with ``prefix``, of one kind or of all kinds, by kind and key in byte order."""

    function = "log_list"
    reads = True
    page_by = ("kind", "key")

    kind: str | None = None
    prefix: str = ""
    after: list[str] | None = None
    limit: int = 1000
