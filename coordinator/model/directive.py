"""Directives and their receipts."""

from __future__ import annotations

from datetime import datetime

import msgspec

from coordinator.model.operation import Json

__all__ = ["Directive", "Pending", "Receipt"]


class Directive(msgspec.Struct, frozen=True):
    """What a manager tells agents; both targets null: everyone. ``status``: in an inbox unseen or seen, else the directive's own."""

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
    """A recipient that has not answered an open directive: ``status`` unseen or seen."""

    id: int
    agent: str
    status: str
    priority: int
    body: str
    actor: str
    sent_at: datetime
    expires_at: datetime
