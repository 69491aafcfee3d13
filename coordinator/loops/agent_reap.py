"""Give up agents that were silent for their TTL, or whose process died: its liveness lock is free for 0.7 seconds."""

from __future__ import annotations

from coordinator.loops.loop import Loop, Run
from coordinator.operations import agents
from coordinator.operations.executor import Executor

__all__ = ["agent_reap"]

BATCH = 1000
MISSING_AGAIN_S = 0.71


def agent_reap() -> Loop:
    """Make the loop."""

    async def run_once(executor: Executor) -> Run:
        reaped = await executor.run(agents.Reap(limit=BATCH))
        if reaped.reaped:
            return Run(reaped.reaped, again_s=0)
        return Run(0, again_s=MISSING_AGAIN_S if reaped.missing else None)

    return Loop("agent_reap", 60, run_once)
