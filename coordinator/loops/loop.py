"""Loops: an operation, and how often it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from coordinator.model.operation import Operation
from coordinator.operations.executor import Runner

__all__ = ["Loop", "LoopRun"]


class LoopRun(msgspec.Struct, frozen=True):
    """The result of one run: how many items it handled, and after how many seconds to run again (None: at the usual time)."""

    handled: int
    again_s: float | None = None


def _counted(count: int) -> LoopRun:
    """Run again immediately while there is work."""
    return LoopRun(count, again_s=0 if count else None)


class Loop(msgspec.Struct, frozen=True):
    """An operation that the leader runs when its heartbeat reports work, and at least every ``every_s`` seconds.

    Each run is one bounded batch and one transaction, so it may be killed, fail, or run twice at once. ``judge``
    converts the operation's result to a ``LoopRun``; by default, the result is the number of handled items.
    """

    operation: Operation[Any]
    every_s: float = 600.0
    judge: Callable[[Any], LoopRun] = _counted

    async def run(self, executor: Runner) -> LoopRun:
        """Run once.

        Raises: what the operation raises.
        """
        return self.judge(await executor.run(self.operation))

    @property
    def name(self) -> str:
        """Name of the loop in heartbeats, log lines and metrics: the name of its SQL function."""
        return self.operation.function
