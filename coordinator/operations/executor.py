"""What runs operations: straight on PostgreSQL, or through a daemon."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from coordinator.model.operation import Operation

__all__ = ["Executor", "Wake"]

R = TypeVar("R")


class Wake(Protocol):
    """Wakes a reader of the log when it may have grown."""

    async def wait(self, timeout_s: float) -> bool:
        """Return at the next hint (true), or after ``timeout_s`` seconds: a hint may be lost, and only makes a reader quicker."""


class Executor(Protocol):
    """Runs operations: one call, one round trip, one transaction."""

    async def run(self, operation: Operation[R]) -> R:
        """Run one operation.

        Raises: ``CoordinatorError`` of the kind that the operation documents; ``DatabaseUnavailable`` when there was no
        answer, and then it is not known whether an operation that writes was done.
        """

    def wake(self, *, project: str | None = None, topics: Sequence[str] = ()) -> AbstractAsyncContextManager[Wake]:
        """Listen for growth of the event log as long as the context lasts.

        ``project`` and ``topics`` say which events matter; hints may come for others, too.
        """
