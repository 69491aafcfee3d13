"""Limits of jobs: how many run at once, start in an interval, or cost in a period."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.limit import Limit
from coordinator.operations import limits

__all__ = ["Limits"]


class Limits(Verbs):
    """The limits of jobs in the client's project."""

    async def set(
        self,
        name: str,
        *,
        slots: int | None = None,
        rate: float | None = None,
        per: Duration | None = None,
        burst: int | None = None,
        budget: int | None = None,
        period: Literal["hour", "day", "ever"] | None = None,
        reserve: int | None = None,
        on_exhausted: Literal["stop", "cancel"] | None = None,
        queue: str | None = None,
        type: str | None = None,
        per_key: bool | None = None,
        tree: UUID | None = None,
    ) -> Limit:
        """Set a limit, and create it if it does not exist. Omitted fields keep their values.

        ``slots``: maximum number of jobs that run at once. ``rate``: maximum number that start in each ``per`` (a
        second); up to ``burst`` are accumulated. ``budget``: maximum cost in each ``period``; a claim reserves
        ``reserve`` unless the job states its cost. ``on_exhausted="cancel"`` also asks the workers of running jobs to
        stop when the budget is spent.

        It applies to the jobs of ``queue`` or ``type`` (or both), with ``per_key`` to each key separately, and to jobs
        that name it. With ``tree``, it applies to that job, which has no parent, and all jobs below it, and ends with
        the last of them. These and its kind cannot be changed later.

        Raises: ``Conflict`` if it exists with another kind, or applies to other jobs; if the tree has ended, or already
        has a limit.
        """
        return await self._caller.run(
            limits.Set(
                name=name,
                slots=slots,
                rate=rate,
                per=None if per is None else as_duration(per),
                burst=burst,
                budget=budget,
                period=period,
                reserve=reserve,
                on_exhausted=on_exhausted,
                queue=queue,
                type=type,
                per_key=per_key,
                tree=tree,
                **await self._caller.author(),
            )
        )

    async def delete(self, name: str) -> bool:
        """Delete a limit: jobs that name it start without it. Return whether it existed."""
        return await self._caller.run(limits.Delete(name=name, **await self._caller.author()))

    async def show(self, name: str) -> Limit:
        """Return a limit: how much of it is used and free, and until when it is held.

        Raises: ``NotFound``.
        """
        return await self._caller.run(limits.Show(project=self._caller.project, name=name))

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Limit]:
        """List the limits of the project, by name."""
        return Listing(self._caller, limits.List(project=self._caller.project, limit=limit), after)

    async def hold(self, name: str, *, ttl: Duration, reason: str | None = None) -> Limit:
        """Hold a limit for ``ttl``: workers get no job that needs it. A longer existing hold is kept.

        Raises: ``NotFound``.
        """
        return await self._caller.run(
            limits.Hold(name=name, ttl=as_duration(ttl), reason=reason, **await self._caller.author())
        )

    async def release(self, name: str) -> Limit:
        """End the hold of a limit. Releasing it again changes nothing.

        Raises: ``NotFound``.
        """
        return await self._caller.run(limits.Release(name=name, **await self._caller.author()))
