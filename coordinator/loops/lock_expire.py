"""Take away locks whose TTL passed. They have been free since for whoever asked; this tells so, and serves who waits."""

from __future__ import annotations

from coordinator.loops.loop import Loop, Run
from coordinator.operations import locks
from coordinator.operations.executor import Executor

__all__ = ["lock_break_prune", "lock_expire"]

BATCH = 1000
PRUNE_EVERY_S = 3600.0


def lock_expire() -> Loop:
    """Make the loop."""

    async def run_once(executor: Executor) -> Run:
        count = await executor.run(locks.Expire(limit=BATCH))
        return Run(count, again_s=0 if count else None)

    return Loop("lock_expire", 60, run_once)


def lock_break_prune() -> Loop:
    """Make the loop that shortens the audit trail of broken locks."""

    async def run_once(executor: Executor) -> Run:
        count = await executor.run(locks.PruneBreaks())
        return Run(count, again_s=0 if count else None)

    return Loop("lock_break_prune", PRUNE_EVERY_S, run_once)
