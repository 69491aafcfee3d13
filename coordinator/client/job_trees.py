"""Trees of jobs: listing, pausing and resuming them, and what a worker may do with the children of its job."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from coordinator.client.job_waits import JobWaits
from coordinator.client.listing import PAGE, Listing
from coordinator.model.agent_ref import AgentRef
from coordinator.model.job import JobCancellation, JobGrant, JobReceipt, JobTreeOutcome
from coordinator.model.job_history import Job
from coordinator.operations import job_trees, jobs

__all__ = ["JobTrees"]


class JobTrees(JobWaits):
    """Operations on a job and those below it."""

    def tree(self, job: UUID, *, after: str | None = None, limit: int = PAGE) -> Listing[Job]:
        """List a job and all those below it, whether they wait, run or have ended, oldest first: a parent before its children."""
        return Listing(self._caller, job_trees.Tree(project=self._caller.project, job=job, limit=limit), after)

    async def cancel(
        self, job: JobGrant | JobReceipt | UUID, *, tree: bool = False, reason: str | None = None
    ) -> JobCancellation:
        """Cancel a job. A waiting job ends at once; the worker of a running job must stop within 30 seconds, then its fence is revoked.

        With ``tree``, also cancel all jobs below it, even if the job itself has ended: up to 1,000 now, and the rest soon
        after (``following``). Until then, none of them is claimed or gets children.

        Raises: ``Conflict`` if it has ended; ``NotFound``.
        """
        own = job if isinstance(job, UUID) else job.id
        return await self._caller.run(jobs.Cancel(job=own, tree=tree, reason=reason, **await self._caller.author()))

    async def cancel_children(
        self,
        job: JobGrant | UUID,
        children: Iterable[UUID] | None = None,
        *,
        fence: int | None = None,
        reason: str | None = None,
        agent: AgentRef | None = None,
    ) -> int:
        """Cancel children of a job that the worker has, with all below them; return how many had not ended.

        ``children`` may also name jobs further below. Without it, all children are cancelled. A call
        cancels up to 1,000 jobs; the rest are cancelled soon after.

        Raises: ``Conflict`` if the worker no longer has the job, or if a job is not below it.
        """
        return await self._caller.run(
            job_trees.CancelChildren(
                children=None if children is None else list(children),
                reason=reason,
                **await self._attempt(job, fence, agent),
            )
        )

    async def pause(
        self, job: JobGrant | JobReceipt | UUID, *, tree: bool = False, reason: str | None = None
    ) -> JobTreeOutcome:
        """Pause a job; with ``tree``, also the jobs below it and their later children: none of them can be claimed. Running attempts continue.

        Raises: ``Conflict`` if there is nothing left to pause; ``NotFound``.
        """
        own = job if isinstance(job, UUID) else job.id
        return await self._caller.run(job_trees.Pause(job=own, tree=tree, reason=reason, **await self._caller.author()))

    async def resume(self, job: JobGrant | JobReceipt | UUID, *, tree: bool = False) -> JobTreeOutcome:
        """Resume a job; with ``tree``, also the jobs below it, whoever paused them.

        Raises: ``Conflict`` if there is nothing left to resume; ``NotFound``.
        """
        own = job if isinstance(job, UUID) else job.id
        return await self._caller.run(job_trees.Resume(job=own, tree=tree, **await self._caller.author()))
