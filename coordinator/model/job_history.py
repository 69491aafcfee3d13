"""Jobs as readers see them: with their state, attempts and statistics."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = [
    "ENDS",
    "ArchivedJob",
    "Job",
    "JobAttempt",
    "JobChunk",
    "JobExplanation",
    "JobStatistics",
    "JobStep",
    "PrunableJobs",
    "RetriedJob",
    "WorkerStatus",
]

ENDS = frozenset({"completed", "failed", "cancelled", "expired"})


class Job(msgspec.Struct, frozen=True):
    """A job. ``status`` is queued, scheduled, waiting or running; after its end completed, failed, cancelled or expired.

    ``reason`` says why it did not complete: error, worker_lost, stalled, deadline, crash_loop, cancelled, replaced,
    dependency or start_by. ``attempts`` counts the one that runs. ``completed_at`` is when it ended, however it ended. ``traceparent`` is the
    trace (W3C Trace Context) of the call that enqueued it, which its attempts continue, if there was one.
    """

    id: UUID
    type: str
    payload: Json
    status: str
    result: Json
    error: str | None
    attempts: int
    max_attempts: int
    created_at: datetime
    updated_at: datetime
    scheduled_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    worker_id: UUID | None
    worker: str | None
    fence: int | None
    queue: str
    key: str | None
    priority: int
    labels: list[str]
    reason: str | None
    percent: float | None
    message: str | None
    checkpoint: Json
    cancel_at: datetime | None
    start_by: datetime | None
    dedupe_key: str | None
    parent_id: UUID | None
    retry_of: UUID | None
    retried_as: UUID | None
    actor: str
    ended_by: str | None
    project: str
    root_id: UUID
    depth: int
    after: list[UUID]
    after_mode: str | None
    on_failure: str | None
    waiting_for: str | None
    limits: dict[str, int]
    locks: list[str]
    tokens: dict[str, int] | None
    traceparent: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDS


class JobAttempt(msgspec.Struct, frozen=True):
    """An attempt of a job. ``outcome`` is running, completed, failed, snoozed, released, worker_lost, stalled or deadline.

    The outcome of a last attempt is how the job ended. An attempt that was snoozed or released shares its number with the next.
    """

    job: UUID
    attempt: int
    fence: int
    worker_id: UUID
    worker: str | None
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    error: str | None


class JobStep(msgspec.Struct, frozen=True):
    """A finished step of a job. ``kind`` is step (what a worker did), wait (how a wait ended) or answer.

    ``ordinal`` tells steps of one ``name`` apart, from 1; ``place`` is the order in which the steps of the job finished.
    """

    job: UUID
    place: int
    name: str
    ordinal: int
    kind: str
    result: Json
    fence: int
    actor: str
    finished_at: datetime
    project: str


class JobChunk(msgspec.Struct, frozen=True):
    """A chunk of the output of a job, written by its ``attempt``. With a ``status``, it is the end: the job has ended."""

    seq: int
    attempt: int
    chunk: Json
    written_at: datetime
    status: str | None


class JobExplanation(msgspec.Struct, frozen=True):
    """Why a job is in its state, in one ``sentence``, and what the sentence consists of.

    ``cause`` is turn, paused, no_worker, scheduled, back_off, snoozed, what it waits for (jobs, lock, limit, wait, answer, tree),
    cancelling, running, cancel_requested, completed, or the reason of the end. ``until`` is when that changes at the latest, ``place`` its place in the queue.
    """

    id: UUID
    status: str
    cause: str
    sentence: str
    until: datetime | None
    place: int | None
    names: list[str]


class JobStatistics(msgspec.Struct, frozen=True):
    """Jobs of a queue and type: those that wait and run now, and those that ended in a period, or in an hour of it.

    By hour (``2026-11-26T00:00Z``), nothing is known of those that wait and run. Times are in seconds.
    """

    queue: str
    type: str
    hour: str | None
    queued: int | None
    scheduled: int | None
    waiting: int | None
    running: int | None
    completed: int
    failed: int
    cancelled: int
    expired: int
    wait_p50_s: float | None
    wait_p95_s: float | None
    run_p50_s: float | None
    run_p95_s: float | None


class RetriedJob(msgspec.Struct, frozen=True):
    """A job that repeats an ended one, ``retry_of``. With ``created`` false it had been enqueued before.

    ``status`` is None if it has ended and was pruned meanwhile. ``steps`` counts the steps that it reuses.
    """

    id: UUID
    retry_of: UUID
    queue: str
    type: str
    status: str | None
    scheduled_at: datetime | None
    created: bool
    steps: int


class WorkerStatus(msgspec.Struct, frozen=True):
    """An agent with job types. ``status`` is busy, idle, or lost: its heartbeat is overdue, and its jobs are rescued."""

    id: UUID
    project: str
    name: str
    status: str
    last_seen: datetime
    job_types: list[str]
    labels: list[str]
    current_job: UUID | None
    running: int
    metadata: dict[str, Json]
    registered_at: datetime


class PrunableJobs(msgspec.Struct, frozen=True):
    """Jobs of one partition that are older than their retention: those that ended before ``until``, or the ``whole``."""

    relation: str
    until: datetime
    whole: bool


class ArchivedJob(msgspec.Struct, frozen=True):
    """An ended job as a ``line`` of JSON."""

    project_id: int
    id: UUID
    line: str
