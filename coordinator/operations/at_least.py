"""Reads that include a position: they wait until they include what a writer has written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from coordinator.model.operation import Operation
from coordinator.operations.executor import AtLeastRunner, Executor, Wake
from coordinator.operations.positions import Included

__all__ = ["AtLeast", "ReadsAtLeast"]

R = TypeVar("R")


class ReadsAtLeast:
    """An executor whose reads wait until they include a position. Writes do not change."""

    def __init__(self, executor: AtLeastRunner, position: str) -> None:
        self._executor = executor
        self._position = position

    async def run(self, operation: Operation[R]) -> R:
        """Run an operation.

        Raises: what it raises; a read also ``WaitTimedOut``, and what ``Included`` raises.
        """
        if not operation.reads or operation.internal:
            return await self._executor.run(operation)
        return await self._executor.run_at_least(Included(position=self._position, in_log=operation.of_log), operation)

    async def run_at_least(self, included: Included, operation: Operation[R]) -> R:
        """Run a read that also includes another position."""
        both = f"{self._position},{included.position}"
        return await self._executor.run_at_least(Included(position=both, in_log=included.in_log), operation)


class AtLeast(ReadsAtLeast):
    """The same for an executor."""

    _executor: Executor

    def __init__(self, executor: Executor, position: str) -> None:
        super().__init__(executor, position)

    def wake(self, *, project: str | None = None, topics: Sequence[str] = ()) -> AbstractAsyncContextManager[Wake]:
        """Listen for growth of the event log while the context lasts."""
        return self._executor.wake(project=project, topics=topics)
