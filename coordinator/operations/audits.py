"""The audit trail of a project: who did what, when, and from where."""

from __future__ import annotations

from datetime import datetime

from coordinator.model.audit import AuditCheck, AuditEntry, AuditState
from coordinator.model.operation import Batch, InProject, Operation, Scope

__all__ = ["Copy", "List", "Reset", "Set", "Show", "Verify"]


class List(Operation[list[AuditEntry]], frozen=True, kw_only=True):
    """List the entries of a trail, in order. Filters: ``actors``, topics such as ``token.*``, and time (from ``since`` on, before ``until``).

    Without a project: events in projects that do not exist (any more).
    """

    function = "audit_list"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("seq",)

    project: str | None = None
    actors: list[str] | None = None
    topics: list[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: list[str] | None = None
    limit: int = 1000


class Show(Operation[AuditState], frozen=True, kw_only=True):
    """Show a trail: its topics, its head, where its chain begins, and how many events were not copied yet."""

    function = "audit_show"
    reads = True
    scope = Scope.IN_PROJECT

    project: str | None = None


class Verify(Operation[AuditCheck], frozen=True, kw_only=True):
    """Compute the hashes of up to ``limit`` entries again, from the anchor on, or after entry ``after``, whose hash is ``hash``.

    Repeat with the returned values until ``checked`` is less than ``limit``.
    """

    function = "audit_verify"
    reads = True
    scope = Scope.IN_PROJECT

    project: str | None = None
    after: int | None = None
    hash: str | None = None
    limit: int = 1000


class Set(InProject[AuditState], frozen=True, kw_only=True):
    """Choose which events of a project are audited from now on, by ``topics`` such as ``lock.broken``, ``lock.*`` or ``*``.

    Events of ``audit.*`` are always audited, even without topics.
    """

    function = "audit_set"
    speakers = ("actor",)
    examples = {"topics": ["token.*", "lock.broken"]}

    topics: list[str]
    actor: str | None = None


class Reset(InProject[AuditState], frozen=True, kw_only=True):
    """Reset the audited topics of a project to the default."""

    function = "audit_reset"
    speakers = ("actor",)
    examples = {"project": "shop"}

    actor: str | None = None


class Copy(Batch, frozen=True, kw_only=True):
    """Copy audited events from up to ``limit`` chunks of the log into the trails; returns how many chunks it has read."""

    function = "audit_copy"

    limit: int = 20
