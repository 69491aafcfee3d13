"""Limits of jobs: how many run at once, start in an interval, or cost in a period."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from coordinator.model.limit import Limit
from coordinator.model.operation import Batch, InProject

__all__ = ["Delete", "Hold", "List", "Prune", "PruneKeys", "Refill", "Release", "Set", "Show"]


class Set(InProject[Limit], frozen=True, kw_only=True):
    """Set a limit, and create it if it does not exist. Omitted fields keep their values.

    A limit has one kind. ``slots``: maximum number of jobs that run at once. ``rate``: maximum number that start in
    each ``per`` (1 second); up to ``burst`` are accumulated. ``budget``: maximum cost in each ``period`` (hour, day or
    ever); a claim reserves ``reserve`` unless the job states its cost, and ``on_exhausted`` determines whether only
    claims stop, or running jobs are cancelled as well.

    It applies to the jobs of ``queue`` or ``type`` (or both), with ``per_key`` to each key separately, and to jobs that
    name it. With ``tree``, it applies to that job, which has no parent, and all jobs below it, and ends with the last
    of them. These and its kind cannot be changed later.

    Raises: ``Conflict`` if it exists with another kind, or applies to other jobs; if the tree has ended, or has a limit
    of this kind.
    """

    function = "limit_set"
    speakers = ("actor",)
    examples = {"name": "dollars", "budget": 5000000}

    name: str
    slots: int | None = None
    rate: float | None = None
    per: timedelta | None = None
    burst: int | None = None
    budget: int | None = None
    period: str | None = None
    reserve: int | None = None
    on_exhausted: str | None = None
    queue: str | None = None
    type: str | None = None
    per_key: bool | None = None
    tree: UUID | None = None
    actor: str | None = None


class Delete(InProject[bool], frozen=True, kw_only=True):
    """Delete a limit: jobs that name it start without it. Return whether it existed."""

    function = "limit_delete"
    speakers = ("actor",)
    examples = {"name": "dollars"}

    name: str
    actor: str | None = None


class Show(InProject[Limit], frozen=True, kw_only=True):
    """Read a limit: how much of it is used and free, and until when it is held.

    Raises: ``NotFound``.
    """

    function = "limit_show"
    reads = True
    route = "/v1/limits/{name}"

    name: str


class List(InProject[list[Limit]], frozen=True, kw_only=True):
    """List the limits of a project, by name."""

    function = "limit_list"
    reads = True
    page_by = ("name",)

    after: list[str] | None = None
    limit: int = 1000


class Hold(InProject[Limit], frozen=True, kw_only=True):
    """Hold a limit: for ``ttl``, workers get no job that needs it. A longer existing hold is kept.

    Raises: ``NotFound``.
    """

    function = "limit_hold"
    speakers = ("actor",)
    examples = {"name": "dollars"}

    name: str
    ttl: timedelta
    reason: str | None = None
    actor: str | None = None


class Release(InProject[Limit], frozen=True, kw_only=True):
    """End the hold of a limit. Releasing it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "limit_release"
    speakers = ("actor",)
    examples = {"name": "dollars"}

    name: str
    actor: str | None = None


class Refill(Batch, frozen=True, kw_only=True):
    """Wake workers that waited for a limit that is available again, and jobs that wait for the limit of their tree. Repeat until 0."""

    function = "limit_refill"


class Prune(Batch, frozen=True, kw_only=True):
    """Delete limits of trees that have ended; return how many. Repeat until 0."""

    function = "limit_prune"


class PruneKeys(Batch, frozen=True, kw_only=True):
    """Delete rows of keys without jobs that can be claimed; return how many. Repeat until 0."""

    function = "limit_prune_keys"

    limit: int = 10000
