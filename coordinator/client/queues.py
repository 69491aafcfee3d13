"""Queues: the policies by which jobs are claimed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.queue import Queue
from coordinator.operations import queues

__all__ = ["Queues"]


class Queues(Verbs):
    """The queues of the client's project."""

    async def set(
        self,
        queue: str,
        *,
        fair_by: Literal["key", "none"] | None = None,
        ageing: Duration | None = None,
        weights: Mapping[str, int] | None = None,
        max_waiting: int | None = None,
        max_waiting_per_key: int | None = None,
        events: Literal["call", "job"] | None = None,
    ) -> Queue:
        """Set the policy of a queue, and create it if it does not exist. Omitted fields keep their values.

        ``fair_by="key"`` lets keys take turns; ``weights`` are their shares, 1 to 1,000. ``ageing`` is how long a job waits to gain
        one step of priority; 0 means strict priority. ``max_waiting`` and ``max_waiting_per_key`` limit the jobs that wait; 0 means
        no limit. ``events="job"`` emits one event for each job instead of one for each call.
        """
        return await self._caller.run(
            queues.Set(
                queue=queue,
                fair_by=fair_by,
                ageing=None if ageing is None else as_duration(ageing),
                weights=dict(weights or {}),
                max_waiting=max_waiting,
                max_waiting_per_key=max_waiting_per_key,
                events=events,
                **await self._caller.author(),
            )
        )

    async def pause(self, queue: str, *, reason: str | None = None) -> Queue:
        """Pause a queue: its jobs cannot be claimed, and running ones continue. Pausing it again changes nothing.

        Raises: ``NotFound``.
        """
        return await self._caller.run(queues.Pause(queue=queue, reason=reason, **await self._caller.author()))

    async def resume(self, queue: str) -> Queue:
        """Resume a paused queue. Resuming it again changes nothing.

        Raises: ``NotFound``.
        """
        return await self._caller.run(queues.Resume(queue=queue, **await self._caller.author()))

    async def delete(self, queue: str) -> bool:
        """Delete a queue without open jobs, and its policy. Ended jobs, limits and crons stay; the next job creates it again.

        Raises: ``Conflict`` if it has open jobs; ``NotFound``.
        """
        return await self._caller.run(queues.Delete(queue=queue, **await self._caller.author()))

    async def get(self, queue: str) -> Queue:
        """Return the policy of a queue, and how many jobs are in it.

        Raises: ``NotFound``.
        """
        return await self._caller.run(queues.Get(project=self._caller.project, queue=queue))

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Queue]:
        """List the queues of the project, by name."""
        return Listing(self._caller, queues.List(project=self._caller.project, limit=limit), after)
