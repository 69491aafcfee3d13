"""Logs: append-only lists of entries, each under a kind and a key.

done = await client.logs.append("note", "run/7", {"text": "begun"}, {"text": "built"})
async for entry in client.logs.read("note", "run/7", last=20):
    print(entry.seq, entry.data)
"""

from __future__ import annotations

from datetime import datetime

from coordinator.client.caller import Caller
from coordinator.client.listing import PAGE, Listing
from coordinator.model.json import text_of
from coordinator.model.log import Log, LogEntry, LogReceipt, NewEntry
from coordinator.model.operation import Json, JsonText
from coordinator.operations import logs

__all__ = ["Logs"]


class Logs:
    """The logs of the client's project."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def append(
        self,
        kind: str,
        key: str,
        *entries: Json | JsonText | NewEntry,
        expect: int | LogEntry | LogReceipt | Log | None = None,
        session: str | None = None,
    ) -> LogReceipt:
        """Append entries to a log, all or none; the first append creates it.

        An entry is its data, or a ``NewEntry`` with more fields. With ``expect``, append only if nothing follows what was read: an
        entry, a receipt or a ``logs.show``; or a number; 0: only if there is no such log. A new log belongs to
        ``session``; its key is that of the session, or begins with it and /.

        Raises: ``Conflict`` with what is there in ``detail``, or if a ``uid`` belongs to other content; ``InvalidArgument`` with the place
        of the entry in ``detail``.
        """
        last = (
            expect if isinstance(expect, int | None) else getattr(expect, "seq", None) or getattr(expect, "last_seq", 0)
        )
        return await self._caller.run(
            logs.Append(
                project=self._caller.project,
                kind=kind,
                key=key,
                entries=text_of([_new(entry) for entry in entries]),
                expect=last,
                epoch=None if isinstance(expect, int | None) else expect.epoch,
                session=session,
                actor=await self._caller.actor(),
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
        """List entries in the order of their numbers: with ``before`` only lower numbers, with ``last`` only the last ones of all that.

        ``at``: only what had been appended at that instant; what was popped since is absent.

        Raises: ``NotFound`` if there is no such log, or what followed the cursor ``after`` is gone; then read from the start.
        """
        operation = logs.Read(
            project=self._caller.project, kind=kind, key=key, before=before, last=last, at=at, limit=limit
        )
        return Listing(self._caller, operation, after)

    async def show(self, kind: str, key: str) -> Log:
        """Return a log without its entries.

        Raises: ``NotFound``.
        """
        return await self._caller.run(logs.Show(project=self._caller.project, kind=kind, key=key))

    def list(
        self, kind: str | None = None, prefix: str = "", *, after: str | None = None, limit: int = PAGE
    ) -> Listing[Log]:
        """List logs, of one kind or of all, whose keys begin with ``prefix``, by kind and key in byte order."""
        return Listing(
            self._caller, logs.List(project=self._caller.project, kind=kind, prefix=prefix, limit=limit), after
        )


def _new(entry: Json | JsonText | NewEntry) -> JsonText:
    entry = entry if isinstance(entry, NewEntry) else NewEntry(entry)
    return text_of(NewEntry(text_of(entry.data), entry.uid, entry.role, entry.tokens, entry.needs))
