"""Mark open directives whose time passed. Nobody has got them since; this tells subscribers."""

from __future__ import annotations

from coordinator.loops.loop import Loop, Run
from coordinator.operations import directives
from coordinator.operations.executor import Executor

__all__ = ["directive_expire"]

BATCH = 1000


def directive_expire() -> Loop:
    """Make the loop."""

    async def run_once(executor: Executor) -> Run:
        count = await executor.run(directives.Expire(limit=BATCH))
        return Run(count, again_s=0 if count else None)

    return Loop("directive_expire", 60, run_once)
