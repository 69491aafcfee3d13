"""Locks: fenced leases over names, paths, globs and slots.

A resource is a text: ``name:deploy``, ``src/a.py``, ``src/`` (all below), ``src/**/*.py``; ``path:app/[id]/x`` takes a path
as it stands. A grant of several resources has one token. ``coordinator.assert_fence`` is no operation: it guards the
transaction that it is called in, which is the caller's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from coordinator.model import lock as model
from coordinator.model.lease import LeaseChange, LeaseStep
from coordinator.model.operation import Operation, Scope

__all__ = [
    "Acquire",
    "Break",
    "Cancel",
    "Check",
    "Expire",
    "List",
    "ListWaiting",
    "Poll",
    "PruneBreaks",
    "Release",
    "Renew",
    "Show",
]


class Acquire(Operation[list[model.Grant]], frozen=True, kw_only=True):
    """Lock resources, all or none; with ``wait``, the answer may be a ticket to ``Poll`` with.

    ``ttl`` and ``wait`` are 1 second to 1 day, ``delay`` (nobody gets it for so long after it expired, was broken, or its
    agent ended) up to 1 hour. What the agent holds already is renewed. Asked again with the same ``request_id`` the
    answer is the same.

    Raises: ``Conflict`` naming who is in the way, or the circle that waiting would close.
    """

    function = "lock_acquire"
    scope = Scope.IN_PROJECT
    speakers = ("agent",)

    project: str
    resources: list[str]
    agent: UUID
    shared: bool = False
    slots: int | None = None
    ttl: timedelta = timedelta(seconds=30)
    wait: timedelta | None = None
    delay: timedelta = timedelta(0)
    request_id: UUID | None = None

    def leases(self, result: list[model.Grant]) -> Iterator[LeaseChange]:
        """Yield what was granted, and what is to be waited for."""
        for grant in result:
            yield _change(LeaseStep.GRANTED if grant.granted else LeaseStep.WAITING, self, grant, self.ttl)


class Poll(Operation[list[model.Grant]], frozen=True, kw_only=True):
    """Ask for what a ticket waits for; the TTL begins at the first asking, within 10 seconds of the hand-off.

    Raises: ``WaitTimedOut``; ``NotFound``: cancelled, ended, or not asked for in time: acquire again.
    """

    function = "lock_poll"
    scope = Scope.IN_PROJECT
    speakers = ("agent",)
    woken_by = ("lock.granted",)

    project: str
    ticket: int
    agent: UUID

    def concerned_by(self, data: dict[str, Any]) -> bool:
        """Tell whether a lock went to this ticket."""
        return data.get("ticket") == self.ticket

    def leases(self, result: list[model.Grant]) -> Iterator[LeaseChange]:
        """Yield what was granted, for the TTL of the request that the ticket is of."""
        for grant in result:
            if grant.granted:
                yield _change(LeaseStep.GRANTED, self, grant, None)

    def answered(self, result: list[model.Grant]) -> bool:
        """Return whether every resource is granted."""
        return bool(result) and all(grant.granted for grant in result)


class Cancel(Operation[bool], frozen=True, kw_only=True):
    """Wait no more, and give back what the ticket was handed meanwhile; false: there is neither."""

    function = "lock_cancel"
    scope = Scope.IN_PROJECT
    speakers = ("agent",)

    project: str
    ticket: int
    agent: UUID

    def leases(self, result: bool) -> Iterator[LeaseChange]:  # noqa: ARG002 - the ticket is over either way
        """Yield the end of the wait."""
        yield LeaseChange(step=LeaseStep.ENDED, project=self.project, holder=self.agent, ticket=self.ticket)


class Renew(Operation[list[model.Renewal]], frozen=True, kw_only=True):
    """Keep locks for their TTL from now on, all or none; ``tokens``: one for all, or one for each.

    Raises: ``Conflict``: one is lost. Stop what it was for.
    """

    function = "lock_renew"
    scope = Scope.IN_PROJECT
    speakers = ("agent",)

    project: str
    resources: list[str]
    agent: UUID
    tokens: list[int]
    ttl: timedelta | None = None

    def leases(self, result: list[model.Renewal]) -> Iterator[LeaseChange]:
        """Yield what was renewed."""
        for renewal in result:
            yield LeaseChange(
                step=LeaseStep.RENEWED,
                project=self.project,
                holder=self.agent,
                name=renewal.resource,
                token=renewal.fencing_token,
                ttl=self.ttl,
                expires_at=renewal.expires_at,
            )


class Release(Operation[int], frozen=True, kw_only=True):
    """Give locks back, all or none, and hand them to who waits next; ``tokens``: one for all, or one for each.

    Raises: ``Conflict``: one is lost already; after a release whose answer was lost, it was done.
    """

    function = "lock_release"
    scope = Scope.IN_PROJECT
    speakers = ("agent",)

    project: str
    resources: list[str]
    agent: UUID
    tokens: list[int]

    def leases(self, result: int) -> Iterator[LeaseChange]:  # noqa: ARG002 - all or none, and none is an error
        """Yield what was released, as the caller spelled it."""
        tokens = self.tokens if len(self.tokens) == len(self.resources) else self.tokens * len(self.resources)
        for resource, token in zip(self.resources, tokens, strict=True):
            yield LeaseChange(step=LeaseStep.ENDED, project=self.project, holder=self.agent, name=resource, token=token)


class Break(Operation[int], frozen=True, kw_only=True):
    """Take a lock from its holders, or from the one with ``agent`` and ``token``; answers from how many.

    Raises: ``NotFound``: nobody holds it. ``Conflict``: not this one.
    """

    function = "lock_break"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    project: str
    resource: str
    reason: str
    agent: UUID | None = None
    token: int | None = None
    delay: timedelta | None = None
    actor: str | None = None


class Check(Operation[list[model.PathCheck]], frozen=True, kw_only=True):
    """Tell for each path whether an agent may write it: free, mine or held. At most 1,000 paths, taken as they stand."""

    function = "lock_check"
    reads = True
    scope = Scope.IN_PROJECT

    project: str
    paths: list[str]
    agent: UUID | None = None


class List(Operation[list[model.Lock]], frozen=True, kw_only=True):
    """List locks in byte order: of a project, of an agent, or all that overlap the directory ``under``."""

    function = "lock_list"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("resource", "fencing_token")

    project: str
    under: str | None = None
    agent: UUID | None = None
    after: list[str] | None = None
    limit: int = 1000


class Show(Operation[list[model.Lock]], frozen=True, kw_only=True):
    """Tell who holds a resource or what overlaps it.

    Raises: ``NotFound``: nobody.
    """

    function = "lock_show"
    reads = True
    scope = Scope.IN_PROJECT

    project: str
    resource: str


class ListWaiting(Operation[list[model.Waiter]], frozen=True, kw_only=True):
    """List who waits for a resource or what overlaps it, in order."""

    function = "lock_waiting"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("ticket", "resource")

    project: str
    resource: str
    after: list[str] | None = None
    limit: int = 1000


class Expire(Operation[int], frozen=True, kw_only=True):
    """Take away locks and tickets whose time passed, and serve who waits; answers how many. Again until 0."""

    function = "lock_expire"
    internal = True

    limit: int = 1000


class PruneBreaks(Operation[int], frozen=True, kw_only=True):
    """Delete from the audit trail what was broken longer ago than ``retention``; answers how many. Again until 0."""

    function = "lock_break_prune"
    internal = True

    retention: timedelta = timedelta(days=90)
    limit: int = 10000


def _change(step: LeaseStep, request: Acquire | Poll, grant: model.Grant, ttl: timedelta | None) -> LeaseChange:
    return LeaseChange(
        step=step,
        project=request.project,
        holder=request.agent,
        name=grant.resource,
        token=grant.fencing_token,
        ticket=grant.ticket,
        ttl=ttl,
        expires_at=grant.expires_at,
    )
