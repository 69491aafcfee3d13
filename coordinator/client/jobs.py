"""Jobs: work that is enqueued, claimed under a fence, and ended once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal, Required, TypedDict
from uuid import UUID, uuid4

import msgspec
from msgspec.structs import replace

from coordinator.client.caller import Duration, as_duration
from coordinator.client.job_trees import JobTrees
from coordinator.errors import WaitTimedOut
from coordinator.model.agent_ref import AgentRef
from coordinator.model.job import JobCharge, JobGrant, JobLease, JobOutcome, JobReceipt, JobVerdict
from coordinator.model.operation import Json
from coordinator.operations import jobs as operations
from coordinator.operations.waiting import until_answered

__all__ = ["GRACE_S", "NOTICE_S", "Jobs", "NewJob"]

NOTHING: Json = {}
GRACE_S = 10.0  # for the response to a claim
NOTICE_S = 10.0  # a worker reconciles its jobs at least this often: it has 30 seconds to stop a cancelled one


class NewJob(TypedDict, total=False):
    """One of many jobs to enqueue, with the parameters of ``enqueue``."""

    type: Required[str]
    payload: Json
    queue: str
    key: str | None
    priority: int
    at: datetime | None
    delay: Duration | None
    start_by: datetime | None
    max_attempts: int
    backoff: Duration | None
    deadline: Duration | None
    stall: Duration | None
    rescue: Literal["retry", "resume", "fail"]
    labels: Sequence[str]
    dedupe_key: str | None
    dedupe_for: Duration | None
    on_duplicate: Literal["raise", "skip", "replace"]
    dedupe_failed: bool
    parent: UUID | int | None
    after: Sequence[UUID | int]
    after_mode: Literal["all", "any"]
    on_failure: Literal["cancel", "ignore", "run"]
    limits: Sequence[str] | Mapping[str, int] | None
    locks: Sequence[str]


class Jobs(JobTrees):
    """The jobs of the client's project. Methods for workers take the result of a claim, or the id of a job and its ``fence``."""

    async def enqueue(
        self,
        type: str,
        payload: Json = NOTHING,
        *,
        queue: str = "default",
        key: str | None = None,
        priority: int = 0,
        at: datetime | None = None,
        delay: Duration | None = None,
        start_by: datetime | None = None,
        max_attempts: int = 3,
        backoff: Duration | None = None,
        deadline: Duration | None = None,
        stall: Duration | None = None,
        rescue: Literal["retry", "resume", "fail"] = "retry",
        labels: Sequence[str] = (),
        dedupe_key: str | None = None,
        dedupe_for: Duration | None = None,
        on_duplicate: Literal["raise", "skip", "replace"] = "raise",
        dedupe_failed: bool = False,
        parent: UUID | None = None,
        after: Sequence[UUID] = (),
        after_mode: Literal["all", "any"] = "all",
        on_failure: Literal["cancel", "ignore", "run"] = "cancel",
        limits: Sequence[str] | Mapping[str, int] | None = None,
        locks: Sequence[str] = (),
    ) -> JobReceipt:
        """Enqueue a job for workers that have ``type`` among their job types, and all ``labels``.

        It does not start before ``at``, or before ``delay`` has passed; it expires unless it starts before
        ``start_by``. An attempt ends after ``deadline`` (a day), or after ``stall`` without progress. After a failed
        attempt, the job waits for ``backoff`` (10 seconds), doubled with each failure. ``rescue`` determines what
        happens when an attempt is lost: retry, resume from its checkpoint, or fail. While another job holds
        ``dedupe_key``, until it ends or for ``dedupe_for``, ``on_duplicate`` determines what happens: raise, skip
        (return that job, with ``created`` false), or replace (cancel it if it still waits).

        With ``after``, it waits until these jobs have completed: all of them or, with ``after_mode`` any, one. If one
        of them ends otherwise, ``on_failure`` determines what happens: cancel (with any: if none completes), ignore
        (wait for the others), run (at once). ``parent`` is the open job whose tree it belongs to. ``limits`` are names
        of limits that it needs, or its cost in each: ``{"openai": 1200}``. While it runs, it holds all ``locks``, such
        as ``src/`` and ``name:deploy``; until they are free, it waits and holds nothing.

        Raises: ``NotFound`` for an unknown limit; ``Conflict`` for a duplicate, with the job in ``detail``, if the
        queue is full, and if the parent has ended.
        """
        return await self._caller.run(
            operations.Enqueue(
                type=type,
                payload=payload,
                queue=queue,
                key=key,
                priority=priority,
                at=at,
                delay=_duration(delay),
                start_by=start_by,
                max_attempts=max_attempts,
                backoff=_duration(backoff),
                deadline=_duration(deadline),
                stall=_duration(stall),
                rescue=rescue,
                labels=list(labels),
                dedupe_key=dedupe_key,
                dedupe_for=_duration(dedupe_for),
                on_duplicate=on_duplicate,
                dedupe_failed=dedupe_failed,
                parent=parent,
                after=list(after),
                after_mode=after_mode,
                on_failure=on_failure,
                limits=dict(limits) if isinstance(limits, Mapping) else None if limits is None else list(limits),
                locks=list(locks),
                **await self._caller.author(),
            )
        )

    async def enqueue_many(self, jobs: Iterable[NewJob]) -> list[JobReceipt]:
        """Enqueue up to 10,000 jobs in one call, in order: all, or none.

        A job is a mapping of the parameters of ``enqueue``: ``{"type": "summarize", "payload": {"page": 7}}``. An error
        names the job by its index from 0, as ``job`` in ``detail``; ``parent`` and ``after`` may refer to earlier jobs
        in the same way.
        """
        return await self._caller.run(
            operations.EnqueueMany(jobs=[_order(job) for job in jobs], **await self._caller.author())
        )

    async def claim(
        self,
        limit: int = 1,
        *,
        queues: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
        finished: Iterable[tuple[JobGrant, Json]] = (),
        wait: Duration | None = None,
        request_id: UUID | None = None,
        agent: AgentRef | None = None,
    ) -> list[JobGrant]:
        """Claim up to ``limit`` jobs: of the worker's job types (only ``types``, only from ``queues``), whose labels the worker has.

        In the same round trip, complete the jobs in ``finished``: pairs of a job and its result. Jobs that the worker
        no longer had are returned with ``stale`` true. With ``wait``, wait up to this long for the first job. A
        repetition with the same ``request_id`` returns the same jobs.

        Raises: ``InvalidArgument`` if the agent has no job types; ``NotFound`` if it has ended.
        """
        done = list(finished)
        operation = operations.Claim(
            project=self._caller.project,
            agent=await self._caller.acting(agent),
            limit=limit,
            queues=None if queues is None else list(queues),
            types=None if types is None else list(types),
            request_id=request_id or uuid4(),
            finished=[job.id for job, _ in done],
            fences=[job.fence for job, _ in done],
            results=[result for _, result in done],
        )
        grants = await self._caller.run(operation, again=True)
        if wait is None or operation.answered(grants):
            return grants
        operation = replace(operation, finished=[], fences=[], results=[])
        with suppress(WaitTimedOut):
            return await until_answered(self._caller, operation, self._events.wake(), as_duration(wait).total_seconds())
        return []

    async def complete(
        self, job: JobGrant | UUID, result: Json = None, *, fence: int | None = None, agent: AgentRef | None = None
    ) -> JobOutcome:
        """Complete a job; it ends as cancelled if that was requested. A repetition changes nothing.

        Raises: ``Conflict`` if the job is no longer the worker's; ``detail`` says which worker has it, or how it ended.
        """
        operation = operations.Complete(result=result, **await self._attempt(job, fence, agent))
        return await self._caller.run(operation, again=True)

    async def fail(
        self,
        job: JobGrant | UUID,
        error: str,
        *,
        final: bool = False,
        retry_at: datetime | None = None,
        fence: int | None = None,
        agent: AgentRef | None = None,
    ) -> JobOutcome:
        """End an attempt with an error. The job is retried after its back-off, or at ``retry_at``, unless ``final`` is set.

        Raises: ``Conflict`` if the job is no longer the worker's.
        """
        return await self._caller.run(
            operations.Fail(error=error, final=final, retry_at=retry_at, **await self._attempt(job, fence, agent))
        )

    async def progress(
        self,
        job: JobGrant | UUID,
        percent: float | None = None,
        message: str | None = None,
        *,
        checkpoint: Json = None,
        fence: int | None = None,
        agent: AgentRef | None = None,
    ) -> JobLease:
        """Report progress, and in ``checkpoint`` the point from which the next attempt can continue.

        The result says until when the worker may have the job. If ``cancel_at`` is set, it must stop before then. A
        repetition changes nothing.

        Raises: ``Conflict`` if the job is no longer the worker's.
        """
        return await self._caller.run(
            operations.Report(
                percent=percent, message=message, checkpoint=checkpoint, **await self._attempt(job, fence, agent)
            ),
            again=True,
        )

    async def write(
        self,
        job: JobGrant | UUID,
        chunks: Sequence[Json],
        *,
        seq: int | None = None,
        fence: int | None = None,
        agent: AgentRef | None = None,
    ) -> int:
        """Append chunks to the output of a job, and return the number of the last one. Readers receive them at once: ``follow``.

        ``seq`` is the number of the first chunk. Existing chunks are not written again, so the call can be repeated.

        Raises: ``Conflict`` if the job is no longer the worker's; ``InvalidArgument`` if the output becomes too large.
        """
        write = operations.Write(chunks=list(chunks), seq=seq, **await self._attempt(job, fence, agent))
        return await self._caller.run(write, again=seq is not None)

    async def spend(
        self,
        job: JobGrant | UUID,
        budget: str,
        amount: int,
        *,
        fence: int | None = None,
        agent: AgentRef | None = None,
    ) -> JobCharge:
        """Add ``amount`` to a job's spending of a budget. It may exceed the amount that its claim reserved, and the budget.

        The end of the attempt charges the sum of these reports or, without reports, the reserved amount. If
        ``cancel_at`` is set in the result, the worker must stop before then.

        Raises: ``Conflict`` if the job is no longer the worker's; ``NotFound`` if there is no such limit.
        """
        return await self._caller.run(
            operations.Spend(budget=budget, amount=amount, **await self._attempt(job, fence, agent))
        )

    async def snooze(
        self, job: JobGrant | UUID, delay: Duration, *, fence: int | None = None, agent: AgentRef | None = None
    ) -> JobOutcome:
        """Postpone a job for ``delay``, 1 second to 366 days. It keeps its checkpoint, and no attempt is used up.

        Raises: ``Conflict`` if the job is no longer the worker's.
        """
        return await self._caller.run(
            operations.Snooze(delay=as_duration(delay), **await self._attempt(job, fence, agent))
        )

    async def release(
        self, job: JobGrant | UUID, *, fence: int | None = None, agent: AgentRef | None = None
    ) -> JobOutcome:
        """Return a job to its place in the queue. It keeps its checkpoint, and no attempt is used up.

        Raises: ``Conflict`` if the job is no longer the worker's.
        """
        return await self._caller.run(operations.Release(**await self._attempt(job, fence, agent)))

    async def reconcile(
        self, fences: Iterable[int], *, grace: Duration = GRACE_S, agent: AgentRef | None = None
    ) -> list[JobVerdict]:
        """Report the fences of the jobs that the worker knows, and return those that need attention.

        lost: no longer the worker's; stop. cancel: a cancellation was requested; stop. released: the worker got the job
        more than ``grace`` ago and did not list it, so the response to its claim was lost.
        """
        return await self._caller.run(
            operations.Reconcile(
                project=self._caller.project,
                agent=await self._caller.acting(agent),
                fences=list(fences),
                grace=as_duration(grace),
            )
        )


def _order(job: NewJob) -> dict[str, Json]:
    """Return a job as JSON."""
    plain: dict[str, Json] = msgspec.to_builtins(dict(job))
    return plain


def _duration(value: Duration | None) -> timedelta | None:
    return None if value is None else as_duration(value)
