"""Take away signals whose TTL passed. Readers have not seen them since; this tells subscribers, and frees the room."""

from __future__ import annotations

from coordinator.loops.loop import Loop, Run
from coordinator.operations import signals
from coordinator.operations.executor import Executor

__all__ = ["signal_expire"]

BATCH = 1000


def signal_expire() -> Loop:
    """Make the loop."""

    async def run_once(executor: Executor) -> Run:
        count = await executor.run(signals.Expire(limit=BATCH))
        return Run(count, again_s=0 if count else None)

    return Loop("signal_expire", 60, run_once)
