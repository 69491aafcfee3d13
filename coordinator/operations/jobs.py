"""Jobs: enqueued, claimed by workers, and ended under a fence. A worker is an agent with ``job_types``."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from coordinator.model import job as model
from coordinator.model.agent_ref import AgentRef
from coordinator.model.attempt import OfAttempt
from coordinator.model.operation import Batch, InProject, Json

__all__ = [
    "Assert",
    "Cancel",
    "Claim",
    "Complete",
    "Enqueue",
    "EnqueueMany",
    "Expire",
    "Fail",
    "Promote",
    "PruneClasses",
    "PruneDedupes",
    "Reconcile",
    "Release",
    "Report",
    "Rescue",
    "Snooze",
    "Spend",
    "WakeDue",
    "Write",
]


class Enqueue(InProject[model.JobReceipt], frozen=True, kw_only=True):
    """Enqueue a job for workers that have ``type`` in their ``job_types``, and all ``labels``.

    ``at`` or ``delay``: start no earlier. ``start_by``: it expires unless an attempt began by then. After a failed
    attempt, the next one follows after ``backoff`` (10 seconds, doubled with each failure), up to ``max_attempts``.
    ``deadline`` is the maximum duration of an attempt (a day), ``stall`` the maximum time without progress. ``rescue``
    determines what happens after a lost attempt: retry, resume from the checkpoint, or fail.

    While another job holds ``dedupe_key`` (until it ends, or for ``dedupe_for``; if it did not complete, only with
    ``dedupe_failed``), ``on_duplicate`` determines what happens: raise, skip (return that job) or replace (cancel it if
    it waits).

    A job waits until the jobs in ``after`` have completed: all or, with ``after_mode`` any, one. If one of them ends
    otherwise, ``on_failure`` determines what happens: cancel (with any: if none completes), ignore (wait for the
    others), run (at once). ``parent`` is an open job, to whose tree it belongs. While it runs, it holds all ``locks``
    (``src/``, ``name:deploy``); until they are free, it waits and holds nothing.

    ``limits`` are names of limits that it needs, or an object with its cost in each: ``{"openai": 1200}``.

    Raises: ``Conflict`` for a duplicate, if the queue is full, and if the parent has ended; ``NotFound`` for an unknown
    limit.
    """

    function = "job_enqueue"
    speakers = ("actor",)
    examples = {"type": "summarize", "payload": {"page": 7}}

    type: str
    payload: Json = msgspec.field(default_factory=dict)
    queue: str = "default"
    key: str | None = None
    priority: int = 0
    at: datetime | None = None
    delay: timedelta | None = None
    start_by: datetime | None = None
    max_attempts: int = 3
    backoff: timedelta | None = None
    deadline: timedelta | None = None
    stall: timedelta | None = None
    rescue: str = "retry"
    labels: list[str] = msgspec.field(default_factory=list)
    dedupe_key: str | None = None
    dedupe_for: timedelta | None = None
    on_duplicate: str = "raise"
    dedupe_failed: bool = False
    parent: UUID | None = None
    after: list[UUID] = msgspec.field(default_factory=list)
    after_mode: str = "all"
    on_failure: str = "cancel"
    limits: Json = None
    locks: list[str] = msgspec.field(default_factory=list)
    actor: str | None = None


class EnqueueMany(InProject[list[model.JobReceipt]], frozen=True, kw_only=True):
    """Enqueue up to 10,000 jobs in order: all of them, or none.

    A job is an object of the fields of ``Enqueue`` without the project, such as
    ``{"type": "summarize", "payload": {}}``; durations are numbers of seconds, or texts such as "5 minutes".
    ``parent`` and ``after`` may refer to an earlier job by its index from 0.

    Raises: what ``Enqueue`` raises; ``detail`` has the index of the job, from 0, as ``job``.
    """

    function = "job_enqueue_many"
    max_bytes = "job_batch_bytes"
    speakers = ("actor",)
    route = "/v1/jobs/enqueue_many"

    jobs: list[dict[str, Json]]
    actor: str | None = None


class Claim(InProject[list[model.JobGrant]], frozen=True, kw_only=True):
    """Claim up to ``limit`` jobs for a worker, the best ones first, of its ``job_types`` and with labels that it has.

    In the same call, complete the jobs ``finished`` under ``fences`` with ``results``. Jobs that the worker no longer
    had are returned first, as ``stale``. A repetition with the same ``request_id`` returns the same jobs while the
    worker has them.

    Raises: ``NotFound`` if the worker ended; ``InvalidArgument`` if it has no job types.
    """

    function = "job_claim"
    speakers = ("agent",)
    woken_by = ("job.enqueued", "queue.resumed", "queue.arranged", "limit.freed", "limit.set", "limit.deleted")

    agent: AgentRef
    limit: int = 1
    queues: list[str] | None = None
    types: list[str] | None = None
    request_id: UUID | None = None
    finished: list[UUID] = msgspec.field(default_factory=list)
    fences: list[int] = msgspec.field(default_factory=list)
    results: list[Json] = msgspec.field(default_factory=list)

    def answered(self, result: list[model.JobGrant]) -> bool:
        """Return whether there is a job, or none was wanted."""
        return bool(result) or not self.limit


class Complete(OfAttempt[model.JobOutcome], frozen=True, kw_only=True):
    """Complete a job that the worker has under ``fence``; it ends as cancelled if that was requested. The call may be repeated.

    Raises: ``Conflict`` if the fence is stale; ``detail`` says which worker has the job now, or how it ended.
    """

    function = "job_complete"

    result: Json = None


class Fail(OfAttempt[model.JobOutcome], frozen=True, kw_only=True):
    """End an attempt with an error; the job is retried after its back-off, or at ``retry_at``, unless this is ``final``.

    Raises: ``Conflict`` if the fence is stale.
    """

    function = "job_fail"

    error: str
    final: bool = False
    retry_at: datetime | None = None


class Report(OfAttempt[model.JobLease], frozen=True, kw_only=True):
    """Report progress, and a checkpoint from which the next attempt can continue; return until when the worker may have the job.

    Raises: ``Conflict`` if the fence is stale.
    """

    function = "job_progress"

    percent: float | None = None
    message: str | None = None
    checkpoint: Json = None


class Write(OfAttempt[int], frozen=True, kw_only=True):
    """Append chunks to the output of a job; return the number of the last one. The call counts as progress.

    ``seq`` is the number of the first chunk. Existing chunks are not written again, so the call can be repeated.

    Raises: ``Conflict`` if the fence is stale; ``InvalidArgument`` if the output becomes too large.
    """

    function = "job_write"

    chunks: list[Json]
    seq: int | None = None


class Snooze(OfAttempt[model.JobOutcome], frozen=True, kw_only=True):
    """Postpone a job for ``delay``. It keeps its checkpoint, and no attempt is used up.

    Raises: ``Conflict`` if the fence is stale.
    """

    function = "job_snooze"

    delay: timedelta


class Release(OfAttempt[model.JobOutcome], frozen=True, kw_only=True):
    """Return a job to its old place in the queue. It keeps its checkpoint, and no attempt is used up.

    Raises: ``Conflict`` if the fence is stale.
    """

    function = "job_release"


class Reconcile(InProject[list[model.JobVerdict]], frozen=True, kw_only=True):
    """Compare the jobs of a worker with the ``fences`` that it knows; return those that need attention.

    Jobs that it claimed more than ``grace`` ago and does not list are released, since the response to their claim was
    lost.

    Raises: ``NotFound`` if the worker ended.
    """

    function = "job_reconcile"
    speakers = ("agent",)

    agent: AgentRef
    fences: list[int]
    grace: timedelta = timedelta(seconds=10)


class Spend(OfAttempt[model.JobCharge], frozen=True, kw_only=True):
    """Add ``amount`` to a job's spending of a budget that applies to it. It may exceed the reserved amount, and the budget.

    The end of the attempt charges the sum of these reports or, without reports, the amount that its claim reserved.

    Raises: ``Conflict`` if the fence is stale; ``NotFound`` if there is no such limit.
    """

    function = "job_spend"

    budget: str
    amount: int


class Cancel(InProject[model.JobCancellation], frozen=True, kw_only=True):
    """Cancel a job. A waiting job ends at once; the worker of a running job is asked to stop within 30 seconds.

    With ``tree``, also cancel all jobs below it, even if the job itself has ended: up to 1,000 now, and the rest soon
    after. Until then, none of them is claimed or gets children.

    Raises: ``NotFound`` if it does not exist; ``Conflict`` if it has ended.
    """

    function = "job_cancel"
    speakers = ("actor",)

    job: UUID
    reason: str | None = None
    tree: bool = False
    actor: str | None = None


class Assert(InProject[None], frozen=True, kw_only=True):
    """Require, in a transaction, that a job still runs under ``fence``; the attempt cannot end before the transaction does.

    Raises: ``Conflict`` if the fence is stale.
    """

    function = "assert_job"
    internal = True

    job: UUID
    fence: int


class Promote(Batch, frozen=True, kw_only=True):
    """Make scheduled jobs claimable when their time has come; return how many. Repeat until 0."""

    function = "job_promote"


class WakeDue(Batch, frozen=True, kw_only=True):
    """Wake waiting jobs that are due to be checked; return how many. Repeat until 0."""

    function = "job_wake_due"


class Expire(Batch, frozen=True, kw_only=True):
    """End jobs that did not start in time; return how many. Repeat until 0."""

    function = "job_expire"


class Rescue(Batch, frozen=True, kw_only=True):
    """End attempts that are past their deadline, or whose worker is lost; return how many. Repeat until 0."""

    function = "job_rescue"


class PruneClasses(Batch, frozen=True, kw_only=True):
    """Delete combinations of queue, type and labels without open jobs, if a project has many; return how many. Repeat until 0."""

    function = "job_class_prune"


class PruneDedupes(Batch, frozen=True, kw_only=True):
    """Delete dedupe keys whose window has passed; return how many. Repeat until 0."""

    function = "job_dedupe_prune"

    limit: int = 10000
