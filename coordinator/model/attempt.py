"""The base of operations on an attempt of a job."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import InProject

__all__ = ["OfAttempt"]

R = TypeVar("R")


class OfAttempt(InProject[R], frozen=True, kw_only=True):
    """An operation of the worker that runs an attempt: the job, the worker, and the fence of its claim."""

    speakers = ("agent",)

    job: UUID
    agent: AgentRef
    fence: int
