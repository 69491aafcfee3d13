"""Directives: what managers tell agents; durable, ordered, acknowledged."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from coordinator.model.directive import Directive, Pending, Receipt
from coordinator.model.operation import Json, Operation, Scope

__all__ = ["Acknowledge", "Expire", "Inbox", "List", "ListPending", "Prune", "Revoke", "Send"]


class Send(Operation[Directive], frozen=True, kw_only=True):
    """Send a directive to one agent name, a role, or everyone, for ``ttl`` (1 second to 366 days).

    ``priority`` is -100 to 100, higher first. ``key``: supersedes the open one of the same key and target.

    Raises: ``InvalidArgument`` unless there is exactly one target.
    """

    function = "directive_send"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    project: str
    body: str
    to_agent: str | None = None
    to_role: str | None = None
    everyone: bool = False
    priority: int = 0
    ttl: timedelta = timedelta(days=7)
    key: str | None = None
    data: dict[str, Json] = msgspec.field(default_factory=dict)
    actor: str | None = None


class Inbox(Operation[list[Directive]], frozen=True, kw_only=True):
    """List what is open for an agent name, its roles and everyone, by priority and order of sending."""

    function = "directive_inbox"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("priority", "id")
    woken_by = ("agent.registered", "directive.sent")

    project: str
    agent: str
    after: list[str] | None = None
    limit: int = 100

    def concerned_by(self, data: dict[str, Any]) -> bool:
        """Tell whether a directive is for this agent, a role or everyone, or an agent that registered is this one."""
        return data.get("to_agent", data.get("name")) in (None, self.agent)


class Acknowledge(Operation[Receipt], frozen=True, kw_only=True):
    """Answer a directive: seen, then done or refused with a reason. Saying the same again changes nothing.

    Raises: ``Conflict`` where it is no longer open or was answered otherwise; ``NotFound``.
    """

    function = "directive_acknowledge"
    scope = Scope.IN_PROJECT
    speakers = ("agent",)

    project: str
    directive: int
    agent: str
    status: str = "done"
    reason: str | None = None


class Revoke(Operation[bool], frozen=True, kw_only=True):
    """Take an open directive back; false if it was revoked already.

    Raises: ``Conflict`` where it ended otherwise; ``NotFound``.
    """

    function = "directive_revoke"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    project: str
    directive: int
    reason: str | None = None
    actor: str | None = None


class List(Operation[list[Directive]], frozen=True, kw_only=True):
    """List directives in order of sending, by default only open ones."""

    function = "directive_list"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("id",)

    project: str
    open: bool = True
    after: list[str] | None = None
    limit: int = 1000


class ListPending(Operation[list[Pending]], frozen=True, kw_only=True):
    """List who has not answered open directives, or one directive, yet: by priority, order of sending, and name."""

    function = "directive_pending"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("priority", "id", "agent")

    project: str
    directive: int | None = None
    after: list[str] | None = None
    limit: int = 1000


class Expire(Operation[int], frozen=True, kw_only=True):
    """Mark open directives whose time passed; answers how many. Again until 0."""

    function = "directive_expire"
    internal = True

    limit: int = 1000


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete directives that ended longer ago than ``retention``; answers how many. Again until 0."""

    function = "directive_prune"
    internal = True

    retention: timedelta = timedelta(days=30)
    limit: int = 1000
