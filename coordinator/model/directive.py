"""Directives and their receipts."""

from __future__ import annotations

from datetime import datetime

import msgspec

from coordinator.model.operation import Json

__all__ = ["Directive", "Pending", "Receipt"]


class Directive(msgspec.Struct, frozen=True):
    """An instruction to agents; without ``to_agent`` and ``to_role``, to everyone.

    ``status`` is unseen or seen in an agent's inbox, and the directive's own status elsewhere.
    """

    id: int
    project: str
    to_agent: str | None
    to_role: str | None
    body: str
    data: dict[str, Json]
    priority: int
    key: str | None
    status: str
    actor: str
    sent_at: datetime
    expires_at: datetime


class Receipt(msgspec.Struct, frozen=True):
    """An agent's answer: seen, done or refused."""

    directive_id: int
    agent: str
    status: str
    reason: str | None
    seen_at: datetime
    acknowledged_at: datetime


class Pending(msgspec.Struct, frozen=True):
    """A recipient that has not answered an open directive; ``status`` is unseen or seen."""

    id: int
    agent: str
    status: str
    priority: int
    body: str
    actor: str
    sent_at: datetime
    expires_at: datetime
