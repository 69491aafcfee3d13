"""Waiting, running and ended jobs: reading them, retrying them, and how long they are kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from coordinator.model.job_history import (
    ArchivedJob,
    Job,
    JobAttempt,
    JobChunk,
    JobExplanation,
    JobStatistics,
    JobStep,
    PrunableJobs,
    RetriedJob,
    WorkerStatus,
)
from coordinator.model.operation import InProject, Json, Operation

__all__ = [
    "Attempts",
    "Extend",
    "Index",
    "List",
    "ListArchive",
    "ListPrunable",
    "ListSteps",
    "ListWorkers",
    "Prune",
    "ReadOutput",
    "Retry",
    "Show",
    "Stats",
    "Why",
]


class Show(InProject[Job], frozen=True, kw_only=True):
    """Read a job; with a wait, as soon as it has ended.

    Raises: ``NotFound`` if there is no such job, or it was pruned after its end.
    """

    function = "job_show"
    reads = True
    woken_by = ("job.completed", "job.failed", "job.cancelled", "job.expired")

    job: UUID

    def answered(self, result: Job) -> bool:
        """Return whether the job has ended."""
        return result.ended

    def concerned_by(self, data: dict[str, Any]) -> bool:
        """Return whether the event is about this job."""
        return str(self.job) in data.get("ids", ())


class List(InProject[list[Job]], frozen=True, kw_only=True):
    """List jobs, newest first.

    ``worker`` is a name or an id. A job has all ``labels``, contains ``payload`` as PostgreSQL's ``@>`` does, and has each of the
    ``words`` in its type, key, error or payload. It is a child of ``parent``, or below ``root``.
    """

    function = "job_list"
    reads = True
    page_by = ("id",)

    status: list[str] | None = None
    type: str | None = None
    queue: str | None = None
    key: str | None = None
    worker: str | None = None
    labels: list[str] | None = None
    payload: Json = None
    words: str | None = None
    parent: UUID | None = None
    root: UUID | None = None
    after: list[str] | None = None
    limit: int = 1000


class Attempts(InProject[list[JobAttempt]], frozen=True, kw_only=True):
    """List the attempts of a job, oldest first: the running one, and the last 50 ended ones.

    Raises: ``NotFound``.
    """

    function = "job_attempts"
    reads = True
    page_by = ("fence",)

    job: UUID
    after: list[str] | None = None
    limit: int = 1000


class ListSteps(InProject[list[JobStep]], frozen=True, kw_only=True):
    """List the finished steps of a job with their results, in the order in which they finished.

    Raises: ``NotFound``.
    """

    function = "job_steps"
    reads = True
    page_by = ("place",)

    job: UUID
    after: list[str] | None = None
    limit: int = 1000


class ReadOutput(InProject[list[JobChunk]], frozen=True, kw_only=True):
    """List the output of a job; with a wait, as soon as there is more. The last row of a job that has ended has its status.

    Raises: ``NotFound``.
    """

    function = "job_output"
    reads = True
    page_by = ("seq",)
    grows = True
    woken_by = ("job.output", *Show.woken_by)

    job: UUID
    after: list[str] | None = None
    limit: int = 1000

    def over(self, result: list[JobChunk]) -> bool:
        """Return whether the last row has the status of a job that has ended."""
        return bool(result) and result[-1].status is not None

    def concerned_by(self, data: dict[str, Any]) -> bool:
        """Return whether the event is about this job."""
        return str(self.job) in data.get("ids", ())


class ListWorkers(InProject[list[WorkerStatus]], frozen=True, kw_only=True):
    """List workers, those of one job type if ``type`` is given, by name."""

    function = "worker_list"
    reads = True
    page_by = ("name", "id")

    type: str | None = None
    after: list[str] | None = None
    limit: int = 1000


class Stats(InProject[list[JobStatistics]], frozen=True, kw_only=True):
    """Count jobs by queue and type, with wait and run times of jobs that ended in the last ``period``; ``hourly``: by hour."""

    function = "job_stats"
    reads = True
    page_by = ("queue", "type", "hour")

    queue: str | None = None
    type: str | None = None
    period: timedelta = timedelta(days=1)
    hourly: bool = False
    after: list[str] | None = None
    limit: int = 1000


class Why(InProject[JobExplanation], frozen=True, kw_only=True):
    """Explain in one sentence why a job is in its state.

    Raises: ``NotFound``.
    """

    function = "job_why"
    reads = True

    job: UUID


class Retry(InProject[list[RetriedJob]], frozen=True, kw_only=True):
    """Enqueue ended jobs again: one, or up to ``limit`` that meet all conditions, oldest first and each only once.

    By default, the conditions select failed jobs. Repeating the call for one job returns the same new job. With
    ``from_step``, a new job reuses the steps that the old one had finished before this step, or all if this step was
    not finished; ``from_ordinal`` selects one of several steps with this name.

    Raises: ``NotFound``; ``Conflict`` if the job has not ended.
    """

    function = "job_retry"
    speakers = ("actor",)
    examples = {"status": ["failed"]}

    job: UUID | None = None
    status: list[str] | None = None
    reason: str | None = None
    type: str | None = None
    queue: str | None = None
    key: str | None = None
    limit: int = 1000
    actor: str | None = None
    from_step: str | None = None
    from_ordinal: int = 1


class Extend(Operation[int], frozen=True, kw_only=True):
    """Create the partitions of ended jobs for today and the next ``ahead`` days; return how many."""

    function = "job_extend"
    internal = True

    ahead: int = 7


class Index(Operation[int], frozen=True, kw_only=True):
    """Index the payloads of a past day of ended jobs; return how many days. Repeat until 0."""

    function = "job_index"
    internal = True


class ListPrunable(Operation[list[PrunableJobs]], frozen=True, kw_only=True):
    """List the part of the history that is older than its retention: at most one day and one default partition for each of two kinds."""

    function = "job_prunable"
    reads = True
    internal = True

    completed: timedelta
    other: timedelta


class ListArchive(Operation[list[ArchivedJob]], frozen=True, kw_only=True):
    """List jobs of one partition that ended before ``until``, each as a complete line of JSON."""

    function = "job_archive_list"
    reads = True
    internal = True
    page_by = ("project_id", "id")

    relation: str
    until: datetime
    after: list[str] | None = None
    limit: int = 1000


class Prune(Operation[int], frozen=True, kw_only=True):
    """Drop days of ended jobs that are older than their retention; return how many, and jobs of other days. Repeat until 0.

    With ``archived``, prune only archived jobs of ``relation``: this number of jobs; in a default partition, those up
    to the position ``last``.

    Raises: ``Conflict`` if their number differs.
    """

    function = "job_prune"
    internal = True

    completed: timedelta = timedelta(days=7)
    other: timedelta = timedelta(days=30)
    limit: int = 10000
    relation: str | None = None
    archived: int | None = None
    last: list[str] | None = None
