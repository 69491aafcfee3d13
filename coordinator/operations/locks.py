"""Locks: fenced leases over names, paths, globs and slots.

A resource is text: ``name:deploy``, ``src/a.py``, ``src/`` (everything below it), ``src/**/*.py``; ``path:app/[id]/x`` takes
a path literally. A grant of several resources has one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import msgspec

from coordinator.model import lock as model
from coordinator.model.agent_ref import AgentRef
from coordinator.model.lease import LeaseChange, LeaseStep
from coordinator.model.operation import Batch, InProject, Operation

__all__ = [
    "Acquire",
    "Assert",
    "Break",
    "Cancel",
    "Chains",
    "Check",
    "Expire",
    "List",
    "ListWaiting",
    "Poll",
    "PruneBreaks",
    "Release",
    "Renew",
    "Resize",
    "Show",
]


class Acquire(InProject[list[model.Grant]], frozen=True, kw_only=True):
    """Lock several resources atomically. With ``wait``, the result may be a ticket; poll with it.

    ``ttl`` is 1 second to 1 day, and ``wait`` at most 1 day. ``delay`` is at most 1 hour: nobody else gets the lock for this long after it
    expired or was broken, or its agent ended. A repetition with the same ``request_id`` returns the same result.

    ``owner`` is who holds the locks below the agent, by default the agent itself. Owners exclude each other, but may use what
    their agent and the owners above them hold: ``session/subagent`` what ``session`` holds. Locks that the owner already
    holds are renewed; a named owner releases them as often as it acquired them. ``within``: owners of the agent that release
    nothing until this call is answered, so that a deadlock through them is found.

    Raises: ``Conflict``, which names the holder, or the cycle if waiting would be a deadlock.
    """

    function = "lock_acquire"
    speakers = ("agent",)

    resources: list[str]
    agent: AgentRef
    shared: bool = False
    slots: int | None = None
    ttl: timedelta = timedelta(seconds=30)
    wait: timedelta | None = None
    delay: timedelta = timedelta(0)
    request_id: UUID | None = None
    owner: str = ""
    within: list[str] = msgspec.field(default_factory=list)

    def leases(self, result: list[model.Grant]) -> Iterator[LeaseChange]:
        """Yield the grants, and the places in the queue."""
        for grant in result:
            yield _change(LeaseStep.GRANTED if grant.granted else LeaseStep.WAITING, self, grant, self.ttl, self.owner)


class Poll(InProject[list[model.Grant]], frozen=True, kw_only=True):
    """Poll for the locks that a ticket waits for. Poll within 10 seconds of the grant: the TTL starts then.

    Raises: ``WaitTimedOut``, which names the agent in the way, or if the ticket was cancelled or not polled in time:
    acquire again.
    """

    function = "lock_poll"
    speakers = ("agent",)
    woken_by = ("lock.granted",)
    look_s: ClassVar[float] = 3.0

    ticket: int
    agent: AgentRef

    def concerned_by(self, data: dict[str, Any]) -> bool:
        """Return whether a lock was granted to this ticket."""
        return data.get("ticket") == self.ticket

    def leases(self, result: list[model.Grant]) -> Iterator[LeaseChange]:
        """Yield the grants, for the TTL in the ticket's request."""
        for grant in result:
            if grant.granted:
                yield _change(LeaseStep.GRANTED, self, grant, None, None)

    def answered(self, result: list[model.Grant]) -> bool:
        """Return whether every resource is granted."""
        return bool(result) and all(grant.granted for grant in result)


class Cancel(InProject[bool], frozen=True, kw_only=True):
    """Cancel a ticket, and release what it was granted in the meantime; return false if there is no such ticket."""

    function = "lock_cancel"
    speakers = ("agent",)

    ticket: int
    agent: AgentRef

    def leases(self, result: bool) -> Iterator[LeaseChange]:  # noqa: ARG002 - the ticket is over either way
        """Yield the end of the wait."""
        yield LeaseChange(step=LeaseStep.ENDED, project=self.project, holder=self.agent, ticket=self.ticket)


class Renew(InProject[list[model.Renewal]], frozen=True, kw_only=True):
    """Renew locks for their TTL, or for ``ttl``, all or none. ``tokens`` is one for all resources, or one for each.

    Raises: ``Conflict`` if one of them is lost: stop the work that it protects.
    """

    function = "lock_renew"
    speakers = ("agent",)

    resources: list[str]
    agent: AgentRef
    tokens: list[int]
    ttl: timedelta | None = None

    def leases(self, result: list[model.Renewal]) -> Iterator[LeaseChange]:
        """Yield the renewals."""
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


class Release(InProject[int], frozen=True, kw_only=True):
    """Release locks, all or none, and pass them on to the next waiters. ``tokens`` is one for all resources, or one for each.

    With ``request_id``, only what that request acquired is released.

    Raises: ``Conflict`` if one of them is lost; if the response to an earlier release was lost, that release succeeded.
    """

    function = "lock_release"
    speakers = ("agent",)

    resources: list[str]
    agent: AgentRef
    tokens: list[int]
    request_id: UUID | None = None

    def leases(self, result: int) -> Iterator[LeaseChange]:  # noqa: ARG002 - all or none, and none is an error
        """Yield what was released, as the caller spelled it."""
        tokens = self.tokens if len(self.tokens) == len(self.resources) else self.tokens * len(self.resources)
        for resource, token in zip(self.resources, tokens, strict=True):
            yield LeaseChange(step=LeaseStep.ENDED, project=self.project, holder=self.agent, name=resource, token=token)


class Break(InProject[int], frozen=True, kw_only=True):
    """Take a lock from its holders, or only from the one with ``agent`` and ``token``; return how many lost it.

    Raises: ``NotFound`` if nobody holds it; ``Conflict`` if somebody else does.
    """

    function = "lock_break"
    speakers = ("actor",)

    resource: str
    reason: str
    agent: AgentRef | None = None
    token: int | None = None
    delay: timedelta | None = None
    actor: str | None = None


class Assert(InProject[None], frozen=True, kw_only=True):
    """Require, in a transaction, that ``token`` holds a lock; nobody takes the lock over before the transaction ends.

    Raises: ``Conflict`` if the token is stale.
    """

    function = "assert_fence"
    internal = True

    resource: str
    token: int


class Resize(InProject[int], frozen=True, kw_only=True):
    """Change the number of slots of a counted lock while it is held; return the former number.

    With fewer slots than holders, all holders keep theirs, and no agent gets one until enough are released.

    Raises: ``NotFound`` if nobody holds it; ``Conflict`` if it has no slots.
    """

    function = "lock_resize"
    speakers = ("actor",)

    resource: str
    slots: int
    actor: str | None = None


class Check(InProject[list[model.PathCheck]], frozen=True, kw_only=True):
    """Check for each path whether an agent may write it: free, mine or held. At most 1,000 paths, taken literally."""

    function = "lock_check"
    reads = True

    paths: list[str]
    agent: AgentRef | None = None


class List(InProject[list[model.Lock]], frozen=True, kw_only=True):
    """List locks in byte order: those of a project, of an agent, or all that overlap the directory ``under``."""

    function = "lock_list"
    reads = True
    page_by = ("resource", "fencing_token")

    under: str | None = None
    agent: AgentRef | None = None
    after: list[str] | None = None
    limit: int = 1000


class Show(InProject[list[model.Lock]], frozen=True, kw_only=True):
    """Show who holds a resource or one that overlaps it.

    Raises: ``NotFound`` if nobody does.
    """

    function = "lock_show"
    reads = True

    resource: str


class ListWaiting(InProject[list[model.Waiter]], frozen=True, kw_only=True):
    """List who waits for a resource or one that overlaps it, in order."""

    function = "lock_waiting"
    reads = True
    page_by = ("ticket", "resource")

    resource: str
    after: list[str] | None = None
    limit: int = 1000


class Chains(InProject[list[model.LockBlocker]], frozen=True, kw_only=True):
    """List which tickets wait for which holders: the oldest 200."""

    function = "lock_chains"
    reads = True


class Expire(Batch, frozen=True, kw_only=True):
    """Expire locks and tickets whose time has passed, and serve the waiters; return how many. Repeat until 0."""

    function = "lock_expire"


class PruneBreaks(Operation[int], frozen=True, kw_only=True):
    """Delete records of locks that were broken longer ago than ``retention``; return how many. Repeat until 0."""

    function = "lock_break_prune"
    internal = True

    retention: timedelta = timedelta(days=90)
    limit: int = 10000


def _change(
    step: LeaseStep, request: Acquire | Poll, grant: model.Grant, ttl: timedelta | None, owner: str | None
) -> LeaseChange:
    return LeaseChange(
        step=step,
        project=request.project,
        holder=request.agent,
        owner=owner,
        name=grant.resource,
        token=grant.fencing_token,
        ticket=grant.ticket,
        ttl=ttl,
        expires_at=grant.expires_at,
    )
