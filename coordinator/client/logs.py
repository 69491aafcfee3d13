"""Logs: append-only lists of entries, each under a kind and a key.

done = await client.logs.append("note", "run/7", {"text": "begun"}, {"text": "built"})
async for entry in client.logs.read("note", "run/7", last=20):
    print(entry.seq, entry.data)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from coordinator.client.caller import Caller
from coordinator.client.events import Events
from coordinator.client.listing import PAGE, Listing
from coordinator.errors import InvalidArgument, NotFound
from coordinator.model.json import text_of
from coordinator.model.log import Log, LogEntry, LogReceipt, NewEntry
from coordinator.model.operation import Json, JsonText
from coordinator.operations import logs
from coordinator.operations.waiting import followed

__all__ = ["Expected", "LogReset", "Logs", "number_of", "written"]

Expected = int | LogEntry | LogReceipt | Log | None
"""The last number of a log that a change requires: what was read, or a number."""


class LogReset(NamedTuple):
    """Marks a gap while following a log: entries that were not read are gone. The remaining entries follow, from the start."""

    reason: str


class Logs:
    """The logs of the client's project."""

    def __init__(self, caller: Caller, events: Events) -> None:
        self._caller = caller
        self._events = events

    async def append(
        self,
        kind: str,
        key: str,
        *entries: Json | JsonText | NewEntry,
        expect: Expected = None,
        session: str | None = None,
    ) -> LogReceipt:
        """Append entries to a log, all or none; the first append creates it.

        An entry is its data, or a ``NewEntry`` with more fields. With ``expect``, append only if nothing follows what was read: an
        entry, a receipt or a ``logs.show``; or a number; 0: only if there is no such log. A new log belongs to
        ``session``; its key is that of the session, or begins with it and /.

        Raises: ``Conflict`` with what is there in ``detail``, or if a ``uid`` belongs to other content; ``InvalidArgument`` with the place
        of the entry in ``detail``.
        """
        last, epoch = number_of(expect)
        return await self._caller.run(
            logs.Append(
                kind=kind,
                key=key,
                entries=written(entries),
                expect=last,
                epoch=epoch,
                session=session,
                **await self._caller.author(),
            )
        )

    def read(
        self,
        kind: str,
        key: str,
        *,
        before: int | None = None,
        last: int | None = None,
        at: datetime | None = None,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[LogEntry]:
        """List entries in the order of their numbers: with ``before``, only lower numbers; with ``last``, only the last of these entries.

        ``at``: only entries that had been appended at that instant; entries popped since are missing.

        Raises: ``NotFound`` if there is no such log, or the entries after the cursor ``after`` are gone; then read from
        the start.
        """
        operation = logs.Read(
            project=self._caller.project, kind=kind, key=key, before=before, last=last, at=at, limit=limit
        )
        return Listing(self._caller, operation, after)

    async def follow(self, kind: str, key: str, *, after: Expected = None) -> AsyncIterator[LogEntry | LogReset]:
        """Yield the entries of a log after ``after`` (all), and then new ones, in order and without gaps.

        If unread entries are gone, because they were trimmed or cleared or the database was restored, it yields a
        ``LogReset`` and starts with the remaining entries. It waits for a log that does not exist yet.

        Raises: ``DatabaseUnavailable``: follow again from the last entry. It is ``ServerBehind`` if the server has not
        reached that entry; nothing is lost.
        """
        seq, epoch = number_of(after)
        place = None if seq is None else [epoch or "", str(seq)]
        wake = self._events.wake(topics=logs.Read.woken_by)
        while True:
            read = logs.Read(project=self._caller.project, kind=kind, key=key, after=place)
            try:
                async for entries in followed(self._caller, read, wake):
                    for entry in entries:
                        yield entry
                        place = [entry.epoch, str(entry.seq)]
            except NotFound as error:
                if place is None:
                    raise
                place = None
                yield LogReset(error.message)

    async def pop(self, kind: str, key: str, last: int = 1, *, expect: Expected = None) -> list[LogEntry]:
        """Take the last entry from a log, or the ``last`` ones, and return them in the order of their numbers; none if it is empty.

        Concurrent callers get different entries. Their numbers are not reused.

        Raises: ``NotFound``, ``Conflict``.
        """
        return await self._caller.run(
            logs.Pop(project=self._caller.project, kind=kind, key=key, last=last, **await self._change(expect))
        )

    async def clear(self, kind: str, key: str, *, kept: bool = False, expect: Expected = None) -> int:
        """Delete the entries of a log, and return how many. The numbers continue.

        Kept entries, and entries that these need, stay; if the whole log is kept, all entries stay. With ``kept``, they
        are deleted as well.

        Raises: ``NotFound``, ``Conflict``.
        """
        return await self._caller.run(
            logs.Clear(project=self._caller.project, kind=kind, key=key, kept=kept, **await self._change(expect))
        )

    async def delete(self, kind: str, key: str, *, expect: Expected = None) -> int:
        """Delete a log, including kept entries, and return how many entries it had. For some days, a new log with its kind and key continues its numbers.

        Raises: ``NotFound``, ``Conflict``.
        """
        return await self._caller.run(
            logs.Delete(project=self._caller.project, kind=kind, key=key, **await self._change(expect))
        )

    async def keep(
        self, kind: str, key: str, first_seq: int | None = None, last_seq: int | None = None, *, kept: bool = True
    ) -> int:
        """Keep entries, so that retention does not delete them; return how many this changed. With ``kept`` false, no longer keep them.

        Without numbers, this applies to the whole log; with one, to that entry.

        Raises: ``NotFound``.
        """
        return await self._caller.run(
            logs.Keep(
                kind=kind, key=key, first_seq=first_seq, last_seq=last_seq, kept=kept, **await self._caller.author()
            )
        )

    async def show(self, kind: str, key: str) -> Log:
        """Return a log without its entries.

        Raises: ``NotFound``.
        """
        return await self._caller.run(logs.Show(project=self._caller.project, kind=kind, key=key))

    def list(
        self, kind: str | None = None, prefix: str = "", *, after: str | None = None, limit: int = PAGE
    ) -> Listing[Log]:
        """List logs whose keys begin with ``prefix``, of one kind or of all kinds, by kind and key in byte order."""
        return Listing(
            self._caller, logs.List(project=self._caller.project, kind=kind, prefix=prefix, limit=limit), after
        )

    async def _change(self, expect: Expected) -> dict[str, Any]:
        seq, epoch = number_of(expect)
        return {"expect": seq, "epoch": epoch, "actor": await self._caller.actor()}


def number_of(expected: Expected) -> tuple[int | None, str | None]:
    """Return the number, and the epoch in which it was assigned."""
    if isinstance(expected, int | None):
        return expected, None
    return (expected.seq if isinstance(expected, LogEntry) else expected.last_seq), expected.epoch


def written(entries: Iterable[Json | JsonText | NewEntry]) -> JsonText:
    """Return the text of entries to append.

    Raises: ``InvalidArgument`` for data that is not JSON, with the place of the entry in ``detail``.
    """
    return text_of([_new(place, entry) for place, entry in enumerate(entries)])


def _new(place: int, entry: Json | JsonText | NewEntry) -> JsonText:
    entry = entry if isinstance(entry, NewEntry) else NewEntry(entry)
    try:
        data = text_of(entry.data)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"entry {place}: {error.message}", hint=error.hint, detail=f'{{"entry": {place}}}', code=error.code
        ) from None
    return text_of(NewEntry(data, entry.uid, entry.role, entry.tokens, entry.needs))
