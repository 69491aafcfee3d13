"""Jobs: work that is handed to workers and never lost."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = [
    "JobCancellation",
    "JobCharge",
    "JobGrant",
    "JobLease",
    "JobOutcome",
    "JobReceipt",
    "JobTreeOutcome",
    "JobVerdict",
]


class JobReceipt(msgspec.Struct, frozen=True):
    """A job that was enqueued: ``queued``, ``scheduled`` or ``waiting``; without ``created``, the one that answers for its key."""

    id: UUID
    queue: str
    type: str
    status: str
    scheduled_at: datetime
    created: bool


class JobGrant(msgspec.Struct, frozen=True):
    """A job that a claim gave to its worker, with the fence that every verb needs.

    With ``stale``, it is a job that the claim named as finished and the worker no longer had; only ``id`` and ``fence`` are set.
    ``steps`` counts its finished steps: if there are any, read them before the work begins.
    ``tokens`` has the fencing token of each of its locks, by resource. ``traceparent`` is the trace of the call that enqueued it (W3C Trace
    Context), if there was one.
    """

    id: UUID
    fence: int
    type: str | None
    queue: str | None
    key: str | None
    attempt: int | None
    payload: Json
    checkpoint: Json
    deadline_at: datetime | None
    stale: bool
    steps: int | None
    tokens: dict[str, int] | None = None
    traceparent: str | None = None

    @property
    def owner(self) -> str:
        """The owner of its locks: whatever the worker acquires as this owner, or as a part of it, also ends with the attempt."""
        return f"job/{self.id}/{self.fence}"


class JobLease(msgspec.Struct, frozen=True):
    """Until when a worker may have a job; with ``cancel_at``, it must stop by then."""

    id: UUID
    fence: int
    deadline_at: datetime
    stall_at: datetime | None
    cancel_at: datetime | None
    cancel_reason: str | None


class JobCharge(msgspec.Struct, frozen=True):
    """What a job has spent of a budget and what its claim reserved, and what is ``free`` for others; with ``cancel_at``, stop by then."""

    id: UUID
    budget: str
    spent: int
    reserved: int
    free: int
    cancel_at: datetime | None


class JobOutcome(msgspec.Struct, frozen=True):
    """The new state of a job. ``due_at`` is when it starts again or, while it runs, when its fence is revoked."""

    id: UUID
    status: str
    reason: str | None
    due_at: datetime | None


class JobTreeOutcome(JobOutcome, frozen=True):
    """The new state of a job whose tree is paused or resumed. ``following`` is how many jobs of its tree will follow soon."""

    following: int = 0


class JobCancellation(JobTreeOutcome, frozen=True):
    """The new state of a job whose cancellation was requested.

    ``cancelled`` is how many jobs this call cancelled, and ``following`` how many of its tree will be cancelled soon.
    """

    cancelled: int = 1


class JobVerdict(msgspec.Struct, frozen=True):
    """What a worker has to know of a fence: ``lost``, ``cancel`` or ``released``; a lost one has no ``id``."""

    fence: int
    id: UUID | None
    verdict: str
