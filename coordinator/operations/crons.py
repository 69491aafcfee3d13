"""Crons: jobs that are enqueued at recurring times, only once however many daemons run."""

from __future__ import annotations

from datetime import datetime

from coordinator.model.cron import Cron, CronTime
from coordinator.model.job import JobReceipt
from coordinator.model.operation import Batch, InProject, Json, Operation, Scope

__all__ = ["Delete", "Fire", "Get", "List", "Pause", "Preview", "Resume", "Run", "Set"]


class Set(InProject[Cron], frozen=True, kw_only=True):
    """Create or change a cron. Omitted fields keep their values; a new cron needs ``schedule`` and ``job``.

    ``schedule`` is minute, hour, day, month and weekday in the time zone ``zone`` (UTC), such as ``30 8 * * mon-fri``; or @hourly,
    @daily, @weekly, @monthly, @yearly. ``job`` is an object of the fields of ``jobs.Enqueue``; ``{fire_at}`` in any text of it
    stands for the time. ``missed`` says what follows when no daemon ran at some times: skip, once (one job for all of them; the
    default) or all (a job for each).
    """

    function = "cron_set"
    speakers = ("actor",)
    examples = {
        "schedule": "30 8 * * mon-fri",
        "zone": "Europe/Berlin",
        "job": {"type": "report", "payload": {"of": "{fire_at}"}},
    }

    cron: str
    schedule: str | None = None
    job: dict[str, Json] | None = None
    zone: str | None = None
    missed: str | None = None
    actor: str | None = None


class Delete(InProject[bool], frozen=True, kw_only=True):
    """Delete a cron, but not the jobs that it enqueued.

    Raises: ``NotFound``.
    """

    function = "cron_delete"
    speakers = ("actor",)

    cron: str
    actor: str | None = None


class Pause(InProject[Cron], frozen=True, kw_only=True):
    """Pause a cron: it does not fire, and times that pass do not count as missed. Pausing it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "cron_pause"
    speakers = ("actor",)

    cron: str
    reason: str | None = None
    actor: str | None = None


class Resume(InProject[Cron], frozen=True, kw_only=True):
    """Resume a paused cron: it fires at its next time. Resuming it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "cron_resume"
    speakers = ("actor",)

    cron: str
    actor: str | None = None


class Run(InProject[JobReceipt], frozen=True, kw_only=True):
    """Enqueue the job of a cron now, even if it is paused. Its next time does not change.

    Raises: ``NotFound``; what ``jobs.Enqueue`` raises.
    """

    function = "cron_run"
    speakers = ("actor",)

    cron: str
    actor: str | None = None


class Get(InProject[Cron], frozen=True, kw_only=True):
    """Read a cron.

    Raises: ``NotFound``.
    """

    function = "cron_get"
    reads = True
    route = "/v1/crons/{cron}"

    cron: str


class List(InProject[list[Cron]], frozen=True, kw_only=True):
    """List the crons of a project, by name."""

    function = "cron_list"
    reads = True
    page_by = ("cron",)

    after: list[str] | None = None
    limit: int = 1000


class Preview(Operation[list[CronTime]], frozen=True, kw_only=True):
    """Return the first ``limit`` times of a schedule after ``since`` (now).

    Raises: ``InvalidArgument`` if the schedule is malformed or never fires.
    """

    function = "cron_preview"
    reads = True
    scope = Scope.NONE

    schedule: str
    zone: str = "UTC"
    since: datetime | None = None
    limit: int = 5


class Fire(Batch, frozen=True, kw_only=True):
    """Enqueue the jobs of crons whose time has come; returns how many crons fired."""

    function = "cron_fire"

    limit: int = 100
