"""The audit trail of a project: who did what, when, and from where.

async for entry in client.audits.list(topics=["token.*"]):
    print(entry.seq, entry.data["event"], entry.data["origin"])
await client.audits.verify()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.audit import AuditEntry, AuditHead, AuditState
from coordinator.operations import audits
from coordinator.operations.audit_chain import verified

__all__ = ["Audits"]


class Audits(Verbs):
    """The audit trail of the client's project, or with ``gone`` that of projects that do not exist (any more)."""

    def list(
        self,
        *,
        actors: Sequence[str] | None = None,
        topics: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        gone: bool = False,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[AuditEntry]:
        """List entries in order. Filters: actors, topics such as ``token.*``, and time (from ``since`` on, before ``until``)."""
        operation = audits.List(
            project=self._project(gone=gone),
            actors=None if actors is None else [*actors],
            topics=None if topics is None else [*topics],
            since=since,
            until=until,
            limit=limit,
        )
        return Listing(self._caller, operation, after)

    async def show(self, *, gone: bool = False) -> AuditState:
        """Return the audited topics, the head of the trail, where its chain begins, and how many events were not copied yet."""
        return await self._caller.run(audits.Show(project=self._project(gone=gone)))

    async def verify(
        self, head: AuditHead | None = None, *, gone: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> AuditHead:
        """Read the whole trail, verify its hashes, and return its head. ``head``: an exported head that the trail must contain.

        ``progress`` is called with the number of verified entries, and the total.

        Raises: ``Conflict`` for the first entry that was changed, removed, inserted or moved.
        """
        return (await verified(self._caller.run, self._project(gone=gone), head, progress)).head

    async def set(self, topics: Sequence[str]) -> AuditState:
        """Choose which events are audited from now on, by topics such as ``lock.broken``, ``lock.*`` or ``*``.

        Events of ``audit.*`` are always audited, even without topics.
        """
        return await self._caller.run(audits.Set(topics=[*topics], **await self._caller.author()))

    async def reset(self) -> AuditState:
        """Reset the audited topics to the default."""
        return await self._caller.run(audits.Reset(**await self._caller.author()))

    def _project(self, *, gone: bool) -> str | None:
        return None if gone else self._caller.project
