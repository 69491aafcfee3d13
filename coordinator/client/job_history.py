"""Reading jobs: their states, attempts and results, why they are not finished, and retrying them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from coordinator.client.caller import Caller, Duration, as_duration
from coordinator.client.events import Events
from coordinator.client.listing import PAGE, Listing
from coordinator.model.agent_ref import AgentRef
from coordinator.model.job_history import Job, JobAttempt, JobChunk, JobExplanation, JobStatistics, JobStep, RetriedJob
from coordinator.model.operation import Json
from coordinator.operations import job_history
from coordinator.operations.waiting import followed, until_answered

__all__ = ["JobHistory"]


class JobHistory:
    """Reads and retries of the jobs of the client's project."""

    def __init__(self, caller: Caller, events: Events) -> None:
        self._caller = caller
        self._events = events

    async def show(self, job: UUID) -> Job:
        """Return a job, whether it waits, runs or has ended.

        Raises: ``NotFound`` if there is no such job, or it was pruned after its end.
        """
        return await self._caller.run(job_history.Show(project=self._caller.project, job=job))

    async def wait(self, job: UUID, *, timeout: Duration | None = None) -> Job:  # noqa: ASYNC109 - what callers expect
        """Return a job when it has ended; ``status`` is the outcome, and ``result`` is the result.

        Raises: ``WaitTimedOut`` after ``timeout``; ``NotFound``.
        """
        read = job_history.Show(project=self._caller.project, job=job)
        timeout_s = None if timeout is None else as_duration(timeout).total_seconds()
        return await until_answered(self._caller, read, self._events.wake(), timeout_s)

    def attempts(self, job: UUID, *, after: str | None = None, limit: int = PAGE) -> Listing[JobAttempt]:
        """List the attempts of a job, oldest first: the running one, and the last 50 ended ones."""
        operation = job_history.Attempts(project=self._caller.project, job=job, limit=limit)
        return Listing(self._caller, operation, after)

    def steps(self, job: UUID, *, after: str | None = None, limit: int = PAGE) -> Listing[JobStep]:
        """List the finished steps of a job with their results, in the order in which they finished."""
        return Listing(self._caller, job_history.ListSteps(project=self._caller.project, job=job, limit=limit), after)

    def output(self, job: UUID, *, after: str | None = None, limit: int = PAGE) -> Listing[JobChunk]:
        """List the output of a job so far. The last row of a job that has ended has its status instead of a chunk."""
        return Listing(self._caller, job_history.ReadOutput(project=self._caller.project, job=job, limit=limit), after)

    async def follow(self, job: UUID, *, seq: int = 0) -> AsyncIterator[JobChunk]:
        """Yield the output of a job after chunk ``seq`` as its worker writes it, until the job has ended.

        A chunk says which attempt wrote it; if it matters, drop what an earlier attempt has written.

        Raises: ``NotFound``; ``DatabaseUnavailable``: follow again from the last chunk.
        """
        read = job_history.ReadOutput(project=self._caller.project, job=job, after=[str(seq)])
        async for chunks in followed(self._caller, read, self._events.wake()):
            for chunk in chunks:
                if chunk.status is not None:
                    return
                yield chunk

    async def why(self, job: UUID) -> JobExplanation:
        """Return why a job is in its state, in one sentence with names.

        Raises: ``NotFound``.
        """
        return await self._caller.run(job_history.Why(project=self._caller.project, job=job))

    def stats(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,
        period: Duration = 86400.0,
        hourly: bool = False,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[JobStatistics]:
        """Count jobs by queue and type, with wait and run times of jobs that ended in the last ``period``; ``hourly``: by hour."""
        operation = job_history.Stats(
            project=self._caller.project, queue=queue, type=type, period=as_duration(period), hourly=hourly, limit=limit
        )
        return Listing(self._caller, operation, after)

    async def retry(
        self,
        job: UUID | None = None,
        *,
        status: Sequence[str] | None = None,
        reason: str | None = None,
        type: str | None = None,
        queue: str | None = None,
        key: str | None = None,
        limit: int = 1000,
        from_step: str | None = None,
        from_ordinal: int = 1,
    ) -> list[RetriedJob]:
        """Enqueue ended jobs again: one, or up to ``limit`` that meet all conditions, by default failed ones, oldest first.

        Each job is retried once: repeating the call for a job returns the same new job. With ``from_step``, a new job
        reuses the steps that the old one had finished before this step, or all if this step was not finished;
        ``from_ordinal`` selects one of several steps with this name.

        Raises: ``Conflict`` if the job has not ended; ``NotFound``; ``InvalidArgument`` without a job or a condition.
        """
        return await self._caller.run(
            job_history.Retry(
                job=job,
                status=None if status is None else [*status],
                reason=reason,
                type=type,
                queue=queue,
                key=key,
                limit=limit,
                from_step=from_step,
                from_ordinal=from_ordinal,
                **await self._caller.author(),
            )
        )

    def list(
        self,
        *,
        status: Sequence[str] | None = None,
        type: str | None = None,
        queue: str | None = None,
        key: str | None = None,
        worker: AgentRef | None = None,
        labels: Sequence[str] | None = None,
        payload: Json = None,
        words: str | None = None,
        parent: UUID | None = None,
        root: UUID | None = None,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[Job]:
        """List jobs that meet all conditions, newest first.

        A job requires all ``labels``, contains ``payload`` as PostgreSQL's ``@>`` does, and has each of the ``words`` in its
        type, key, error or payload. It is a child of ``parent``, or below ``root``.
        """
        operation = job_history.List(
            project=self._caller.project,
            status=None if status is None else list(status),
            type=type,
            queue=queue,
            key=key,
            worker=None if worker is None else str(worker),
            labels=None if labels is None else list(labels),
            payload=payload,
            words=words,
            parent=parent,
            root=root,
            limit=limit,
        )
        return Listing(self._caller, operation, after)
