"""Crons: jobs that are enqueued at recurring times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.cron import Cron, CronTime
from coordinator.model.job import JobReceipt
from coordinator.model.operation import Json
from coordinator.operations import crons

__all__ = ["Crons"]


class Crons(Verbs):
    """The crons of the client's project."""

    async def set(
        self,
        cron: str,
        schedule: str | None = None,
        job: Mapping[str, Json] | None = None,
        *,
        zone: str | None = None,
        missed: Literal["skip", "once", "all"] | None = None,
    ) -> Cron:
        """Create or change a cron. Omitted fields keep their values; a new one needs ``schedule`` and ``job``.

        ``schedule`` is minute, hour, day, month and weekday in ``zone`` (UTC), such as ``30 8 * * mon-fri``; or @hourly, @daily,
        @weekly, @monthly, @yearly. ``job`` has the parameters of ``jobs.enqueue``: ``{"type": "report"}``; ``{fire_at}`` in any text
        of it stands for the time. ``missed`` says what follows when no daemon ran at some times: skip, once (one job for all of
        them; the default) or all.

        Raises: ``InvalidArgument`` for a schedule that is malformed or never fires, an unknown zone, and a malformed job.
        """
        return await self._caller.run(
            crons.Set(
                cron=cron,
                schedule=schedule,
                job=None if job is None else dict(job),
                zone=zone,
                missed=missed,
                **await self._caller.author(),
            )
        )

    async def delete(self, cron: str) -> bool:
        """Delete a cron. The jobs that it enqueued stay.

        Raises: ``NotFound``.
        """
        return await self._caller.run(crons.Delete(cron=cron, **await self._caller.author()))

    async def pause(self, cron: str, *, reason: str | None = None) -> Cron:
        """Pause a cron: it does not fire, and times that pass do not count as missed. Pausing it again changes nothing.

        Raises: ``NotFound``.
        """
        return await self._caller.run(crons.Pause(cron=cron, reason=reason, **await self._caller.author()))

    async def resume(self, cron: str) -> Cron:
        """Resume a paused cron. Resuming it again changes nothing.

        Raises: ``NotFound``.
        """
        return await self._caller.run(crons.Resume(cron=cron, **await self._caller.author()))

    async def run(self, cron: str) -> JobReceipt:
        """Enqueue the job of a cron now, even if it is paused. Its next time does not change.

        Raises: ``NotFound``; what ``jobs.enqueue`` raises.
        """
        return await self._caller.run(crons.Run(cron=cron, **await self._caller.author()))

    async def get(self, cron: str) -> Cron:
        """Return a cron.

        Raises: ``NotFound``.
        """
        return await self._caller.run(crons.Get(project=self._caller.project, cron=cron))

    async def preview(
        self, schedule: str, *, zone: str = "UTC", since: datetime | None = None, limit: int = 5
    ) -> list[CronTime]:
        """Return the first ``limit`` times of a schedule after ``since`` (now).

        Raises: ``InvalidArgument`` if the schedule is malformed or never fires, or the zone is unknown.
        """
        return await self._caller.run(crons.Preview(schedule=schedule, zone=zone, since=since, limit=limit))

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Cron]:
        """List the crons of the project, by name."""
        return Listing(self._caller, crons.List(project=self._caller.project, limit=limit), after)
