"""Queues: the policies by which jobs are claimed. The first job creates a queue, and so does ``Set``."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from coordinator.model.operation import Batch, InProject, Json
from coordinator.model.queue import Queue

__all__ = ["Arrange", "Delete", "Get", "List", "Pause", "Resume", "Set"]


class Set(InProject[Queue], frozen=True, kw_only=True):
    """Set the policy of a queue, and create it if it does not exist. Omitted fields keep their values.

    ``fair_by`` is key, where keys take turns, or none. ``ageing`` is how long a job waits to gain one step of priority,
    1 second to 366 days; 0 means strict priority. ``weights`` are shares of keys in a fair queue, 1 to 1,000; keys that
    are not named keep theirs. ``max_waiting`` and ``max_waiting_per_key`` are limits, up to 1,000,000 jobs; 0 means no
    limit. ``events`` is call, for one event for each call and transition, or job. The policy also applies to jobs that
    already wait.
    """

    function = "queue_set"
    speakers = ("actor",)

    queue: str
    fair_by: str | None = None
    ageing: timedelta | None = None
    weights: dict[str, Json] = msgspec.field(default_factory=dict)
    max_waiting: int | None = None
    max_waiting_per_key: int | None = None
    events: str | None = None
    actor: str | None = None


class Pause(InProject[Queue], frozen=True, kw_only=True):
    """Pause a queue: its jobs cannot be claimed, and running ones continue. Pausing it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "queue_pause"
    speakers = ("actor",)

    queue: str
    reason: str | None = None
    actor: str | None = None


class Resume(InProject[Queue], frozen=True, kw_only=True):
    """Resume a paused queue. Resuming it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "queue_resume"
    speakers = ("actor",)

    queue: str
    actor: str | None = None


class Delete(InProject[bool], frozen=True, kw_only=True):
    """Delete a queue without open jobs, and its policy. Ended jobs, limits and crons stay; the next job creates it again.

    Raises: ``Conflict`` if it has open jobs; ``NotFound``.
    """

    function = "queue_delete"
    speakers = ("actor",)

    queue: str
    actor: str | None = None


class Get(InProject[Queue], frozen=True, kw_only=True):
    """Read the policy of a queue, and how many jobs are in it.

    Raises: ``NotFound``.
    """

    function = "queue_get"
    reads = True
    route = "/v1/queues/{queue}"

    queue: str


class List(InProject[list[Queue]], frozen=True, kw_only=True):
    """List the queues of a project, by name."""

    function = "queue_list"
    reads = True
    page_by = ("queue",)

    after: list[str] | None = None
    limit: int = 1000


class Arrange(Batch, frozen=True, kw_only=True):
    """Arrange queued jobs by the current policy of their queue; return how many were examined. Repeat until 0."""

    function = "queue_place"
