"""Trees of jobs: a job and its descendants."""

from __future__ import annotations

from uuid import UUID

from coordinator.model.attempt import OfAttempt
from coordinator.model.job import JobTreeOutcome
from coordinator.model.job_history import Job
from coordinator.model.operation import Batch, InProject

__all__ = ["CancelChildren", "ChangeDue", "Pause", "Resume", "Settle", "Tree"]


class Tree(InProject[list[Job]], frozen=True, kw_only=True):
    """List a job and all those below it, whether they wait, run or have ended, oldest first: a parent before its children.

    Raises: ``NotFound``.
    """

    function = "job_tree"
    reads = True
    page_by = ("id",)

    job: UUID
    after: list[str] | None = None
    limit: int = 1000


class CancelChildren(OfAttempt[int], frozen=True, kw_only=True):
    """Cancel children of the job that the worker has under ``fence``, with all below them; return how many had not ended.

    ``children`` may also name jobs further below; without it, all children are cancelled: up to 1,000 jobs now, and the
    rest soon after.

    Raises: ``Conflict`` if the fence is stale, or a job is not below that job.
    """

    function = "job_cancel_children"

    children: list[UUID] | None = None
    reason: str | None = None


class Pause(InProject[JobTreeOutcome], frozen=True, kw_only=True):
    """Pause a job; with ``tree``, also the jobs below it and their later children: none of them can be claimed. Running attempts continue.

    Up to 1,000 jobs are paused now, and the rest soon after; until then, they cannot be claimed, either.

    Raises: ``Conflict`` if it has ended; with ``tree``, if all below it have ended as well. ``NotFound``.
    """

    function = "job_pause"
    speakers = ("actor",)

    job: UUID
    tree: bool = False
    reason: str | None = None
    actor: str | None = None


class Resume(InProject[JobTreeOutcome], frozen=True, kw_only=True):
    """Resume a job; with ``tree``, also the jobs below it, whoever paused them: up to 1,000 now, and the rest soon after.

    Raises: ``Conflict`` if it has ended; with ``tree``, if all below it have ended as well. ``NotFound``.
    """

    function = "job_resume"
    speakers = ("actor",)

    job: UUID
    tree: bool = False
    actor: str | None = None


class ChangeDue(Batch, frozen=True, kw_only=True):
    """Cancel, pause or resume further jobs of trees that were too large for one call; return how many. Repeat until 0."""

    function = "job_change_due"


class Settle(Batch, frozen=True, kw_only=True):
    """Settle jobs whose awaited jobs have ended, if these were too many for one call; return how many. Repeat until 0."""

    function = "job_settle_due"

    limit: int = 100
