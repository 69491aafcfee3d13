"""Directives: instructions from managers to agents; durable, ordered, acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from uuid import UUID

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.agent_ref import AgentRef
from coordinator.model.directive import Directive, Pending, Receipt, Sent
from coordinator.model.operation import Json
from coordinator.operations import directives

__all__ = ["Directives"]

DEFAULT_TTL_S = 7 * 86400.0


class Directives(Verbs):
    """The directives of the client's project."""

    async def send(
        self,
        body: str,
        *,
        to_agent: AgentRef | None = None,
        to_role: str | None = None,
        to_job: UUID | None = None,
        everyone: bool = False,
        priority: int = 0,
        ttl: Duration = DEFAULT_TTL_S,
        key: str | None = None,
        data: Mapping[str, Json] | None = None,
    ) -> Sent:
        """Send a directive to an agent (by name or id), to a role, to the worker of a job until the job ends, or to everyone.

        ``priority`` is -100 to 100, higher first. With ``key``, it supersedes the open directive with the same key and
        target.

        Raises: ``InvalidArgument`` unless there is exactly one target.
        """
        return await self._caller.run(
            directives.Send(
                body=body,
                to_agent=None if to_agent is None else str(to_agent),
                to_role=to_role,
                to_job=to_job,
                everyone=everyone,
                priority=priority,
                ttl=as_duration(ttl),
                key=key,
                data=dict(data or {}),
                **await self._caller.author(),
            )
        )

    def inbox(self, *, agent: AgentRef | None = None, after: str | None = None, limit: int = 100) -> Listing[Directive]:
        """List the open directives of an agent (default: the client's own), by priority, then oldest first."""

        async def operation() -> directives.Inbox:
            name = await self._caller.agent_name(agent)
            return directives.Inbox(project=self._caller.project, agent=name, limit=limit)

        return Listing(self._caller, operation, after)

    async def acknowledge(
        self,
        directive: Directive | Sent | int,
        status: Literal["seen", "done", "refused"] = "done",
        *,
        reason: str | None = None,
        agent: AgentRef | None = None,
    ) -> Receipt:
        """Acknowledge a directive: seen, then done, or refused with a reason. Repeating it changes nothing.

        Raises: ``Conflict`` if the directive is no longer open or has another answer; ``NotFound``.
        """
        return await self._caller.run(
            directives.Acknowledge(
                project=self._caller.project,
                directive=_number(directive),
                agent=await self._caller.agent_name(agent),
                status=status,
                reason=reason,
            )
        )

    async def revoke(self, directive: Directive | Sent | int, *, reason: str | None = None) -> bool:
        """Revoke an open directive; return false if it was revoked already.

        Raises: ``Conflict`` if it ended in another way; ``NotFound``.
        """
        return await self._caller.run(
            directives.Revoke(directive=_number(directive), reason=reason, **await self._caller.author())
        )

    def pending(
        self, directive: Directive | Sent | int | None = None, *, after: str | None = None, limit: int = PAGE
    ) -> Listing[Pending]:
        """List the agents that have not yet acknowledged one directive, or any open directive."""
        number = None if directive is None else _number(directive)
        operation = directives.ListPending(project=self._caller.project, directive=number, limit=limit)
        return Listing(self._caller, operation, after)

    def list(self, *, open: bool = True, after: str | None = None, limit: int = PAGE) -> Listing[Directive]:
        """List directives, oldest first; with ``open=False`` also those that have ended."""
        return Listing(self._caller, directives.List(project=self._caller.project, open=open, limit=limit), after)


def _number(directive: Directive | Sent | int) -> int:
    return directive if isinstance(directive, int) else directive.id
