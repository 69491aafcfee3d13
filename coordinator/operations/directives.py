"""Directives: durable, ordered instructions from managers to agents, who acknowledge them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from coordinator.model.agent_ref import is_agent_id
from coordinator.model.directive import Directive, Pending, Receipt, Sent
from coordinator.model.operation import Batch, InProject, Json, Operation

__all__ = ["Acknowledge", "Expire", "Inbox", "List", "ListPending", "Prune", "Revoke", "Send"]


class Send(InProject[Sent], frozen=True, kw_only=True):
    """Send a directive to an agent, to a role, to the worker of a job, or to everyone. It is open for ``ttl`` (1 second to 366 days).

    ``priority`` is -100 to 100, higher first. With ``key``, it supersedes the open directive with the same key and
    target.

    Raises: ``InvalidArgument`` unless the call names exactly one target.
    """

    function = "directive_send"
    speakers = ("actor",)

    body: str
    to_agent: str | None = None
    to_role: str | None = None
    to_job: UUID | None = None
    everyone: bool = False
    priority: int = 0
    ttl: timedelta = timedelta(days=7)
    key: str | None = None
    data: dict[str, Json] = msgspec.field(default_factory=dict)
    actor: str | None = None


class Inbox(InProject[list[Directive]], frozen=True, kw_only=True):
    """List the open directives for an agent, for its roles, for the jobs that it runs and for everyone, by priority and order of sending.

    Raises: ``NotFound`` if no agent of this name or id is known.
    """

    function = "directive_inbox"
    reads = True
    page_by = ("priority", "id")
    woken_by = ("agent.registered", "directive.sent")

    agent: str
    after: list[str] | None = None
    limit: int = 100

    def concerned_by(self, data: dict[str, Any]) -> bool:
        """Return whether the directive is for this agent, a role or everyone, or whether this agent has just registered."""
        return is_agent_id(self.agent) or data.get("to_agent", data.get("name")) in (None, self.agent)


class Acknowledge(InProject[Receipt], frozen=True, kw_only=True):
    """Acknowledge a directive as seen, then as done or, with a reason, refused. Repeating an answer changes nothing.

    Raises: ``Conflict`` if the directive is no longer open or has another answer; ``NotFound``.
    """

    function = "directive_acknowledge"
    speakers = ("agent",)

    directive: int
    agent: str
    status: str = "done"
    reason: str | None = None


class Revoke(InProject[bool], frozen=True, kw_only=True):
    """Revoke an open directive; return false if it was already revoked.

    Raises: ``Conflict`` if it ended in another way; ``NotFound``.
    """

    function = "directive_revoke"
    speakers = ("actor",)

    directive: int
    reason: str | None = None
    actor: str | None = None


class List(InProject[list[Directive]], frozen=True, kw_only=True):
    """List directives in order of sending; by default, only open ones."""

    function = "directive_list"
    reads = True
    page_by = ("id",)

    open: bool = True
    after: list[str] | None = None
    limit: int = 1000


class ListPending(InProject[list[Pending]], frozen=True, kw_only=True):
    """List the agents that have not yet answered an open directive, or one directive, by priority, order of sending and agent name."""

    function = "directive_pending"
    reads = True
    page_by = ("priority", "id", "agent")

    directive: int | None = None
    after: list[str] | None = None
    limit: int = 1000


class Expire(Batch, frozen=True, kw_only=True):
    """Expire open directives whose TTL has passed; return how many. Repeat until 0."""

    function = "directive_expire"


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete directives that ended longer ago than ``retention``; return how many. Repeat until 0."""

    function = "directive_prune"
    internal = True

    retention: timedelta = timedelta(days=30)
    limit: int = 1000
