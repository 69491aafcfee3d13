"""Directives and their receipts."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = ["Directive", "Pending", "Receipt", "Sent"]


class _Instruction(msgspec.Struct, frozen=True):
    id: int
    project: str
    to_agent: str | None
    to_role: str | None
    to_job: UUID | None
    body: str
    data: dict[str, Json]
    priority: int
    key: str | None
    status: str
    actor: str
    sent_at: datetime
    expires_at: datetime


class Directive(_Instruction, frozen=True):
    """An instruction to agents; without ``to_agent``, ``to_role`` and ``to_job``, to everyone.

    ``status`` is unseen or seen in an agent's inbox, and the directive's own status elsewhere. ``traceparent`` is the trace of the call
    that sent it (W3C Trace Context), if there was one.
    """

    traceparent: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """An agent's answer: seen, done or refused."""

    directive_id: int
    agent: str
    status: str
    reason: str | None
    seen_at: datetime
    acknowledged_at: datetime


class Sent(_Instruction, frozen=True):
    """A directive that was just sent. ``recipients`` is how many registered agents receive it now.

    If there are none, ``meant`` is the name or role that was probably meant, if there is one like it.
    """

    recipients: int
    meant: str | None
    traceparent: str | None = None


class Pending(msgspec.Struct, frozen=True):
    """A recipient that has not answered an open directive; ``status`` is unseen or seen.

    ``agent`` is None where no recipient is registered and none has answered.
    """

    id: int
    agent: str | None
    status: str
    priority: int
    body: str
    actor: str
    sent_at: datetime
    expires_at: datetime
