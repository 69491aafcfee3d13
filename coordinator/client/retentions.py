"""Retention: how long logs, documents, sessions and artifacts are kept."""

from __future__ import annotations

from typing import Literal

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.retention import RetentionForecast, RetentionPolicy
from coordinator.operations import retentions

__all__ = ["Retentions"]

Subject = Literal["log", "document", "session", "artifact"]


class Retentions(Verbs):
    """The policies that apply in the client's project."""

    async def set(
        self,
        subject: Subject,
        kind: str = "*",
        *,
        max_age: Duration | None = None,
        max_count: int | None = None,
        everywhere: bool = False,
    ) -> RetentionPolicy:
        """Set how long entries, versions, sessions or artifacts of a kind are kept. A bound that is omitted does not apply: without both, everything stays.

        ``max_age`` is the age of a log's entries, the time since a document was deleted, a session was last active, or an artifact of no
        session was stored. ``max_count`` is the number of entries that a log keeps, or of versions that a document keeps. * is any kind without a policy of its own.
        """
        return await self._caller.run(
            retentions.Set(
                subject=subject,
                kind=kind,
                max_age=None if max_age is None else as_duration(max_age),
                max_count=max_count,
                everywhere=everywhere,
                **await self._caller.author(),
            )
        )

    async def reset(self, subject: Subject, kind: str = "*", *, everywhere: bool = False) -> RetentionPolicy:
        """Remove the project's policy of a kind; return the policy of all projects, which then applies.

        With ``everywhere``, reset the policy of all projects to its default.
        """
        return await self._caller.run(
            retentions.Reset(subject=subject, kind=kind, everywhere=everywhere, **await self._caller.author())
        )

    def show(self, *, after: str | None = None, limit: int = PAGE) -> Listing[RetentionPolicy]:
        """List the policies that apply in the project, by subject and kind."""
        return Listing(self._caller, retentions.Show(project=self._caller.project, limit=limit), after)

    def plan(self, *, after: str | None = None, limit: int = PAGE) -> Listing[RetentionForecast]:
        """List what retention would remove now, by subject, kind and reason."""
        return Listing(self._caller, retentions.Preview(project=self._caller.project, limit=limit), after)

    async def run(self) -> bool:
        """Have the leading daemon remove now what ``plan`` lists, in paced batches, instead of when it is due."""
        return await self._caller.run(retentions.Run(**await self._caller.author()))
