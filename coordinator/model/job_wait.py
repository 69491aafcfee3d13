"""Jobs that wait without a worker: what became of them, and the questions that they ask."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from coordinator.model.operation import Json

__all__ = ["JobQuestion", "JobSuspension"]


class JobSuspension(msgspec.Struct, frozen=True):
    """The new state of a job that its worker suspended.

    ``status`` is waiting, until ``due_at`` at the latest; running, because the wait is over already, with its ``result``; or
    cancelled, because that was requested.
    """

    id: UUID
    status: str
    due_at: datetime | None
    result: Json


class JobQuestion(msgspec.Struct, frozen=True):
    """A question of a job that waits for the answer of a manager: one of ``options``, or anything if there are none.

    If nobody answers until ``due_at``, the answer is ``fallback``. ``worker`` asked, and may not answer.
    """

    job: UUID
    step: str
    ordinal: int
    question: str
    options: list[str] | None
    fallback: Json
    worker: str
    asked_at: datetime
    due_at: datetime | None
    type: str
    queue: str
    project: str
