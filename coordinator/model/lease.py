"""Changes of leases by the response to an operation, for processes that renew the leases of their caller."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

import msgspec

from coordinator.model.agent_ref import AgentRef

__all__ = ["LeaseChange", "LeaseStep"]


class LeaseStep(Enum):
    """The result of renewing or releasing a lease."""

    WAITING = "it may be granted to the ticket later"
    GRANTED = "it is held from the request on"
    RENEWED = "it is held from the request on, if it was before"
    ENDED = "it is no longer held, or the ticket no longer waits"


class LeaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change. ``name`` is what is leased, held until ``expires_at``; ``ttl``, ``owner`` None: as requested before."""

    step: LeaseStep
    project: str
    holder: AgentRef
    owner: str | None = None
    name: str | None = None
    token: int | None = None
    ticket: int | None = None
    ttl: timedelta | None = None
    expires_at: datetime | None = None
