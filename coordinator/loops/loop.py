"""What a loop is: a name, a rhythm, and one bounded run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from coordinator.operations.executor import Executor

__all__ = ["Loop", "Run"]


class Run(msgspec.Struct, frozen=True):
    """What one run did: how many things it handled, and in how many seconds it wants to run again (None: in its rhythm)."""

    handled: int
    again_s: float | None = None


class Loop(msgspec.Struct, frozen=True):
    """One loop. It runs when the leader's heartbeat says that ``name`` is due, and every ``every_s`` seconds at the latest.

    ``run_once`` does one bounded batch. It may be killed, fail, or run twice at once anywhere: the SQL function it calls
    is one transaction.
    """

    name: str
    every_s: float
    run_once: Callable[[Executor], Awaitable[Run]]
