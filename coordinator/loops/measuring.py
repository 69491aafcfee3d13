"""Measures the size of the database, for the doctor, which compares it with earlier days."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from anyio import to_thread
from msgspec.structs import replace

from coordinator.loops.loop import Loop, LoopRun
from coordinator.operations.executor import Runner
from coordinator.operations.work import SizesMeasure

__all__ = ["Measuring"]


class Measuring(Loop, frozen=True, kw_only=True):
    """Records today's sizes. ``disk`` is the location of the database, if it is on this host: its free space limits the database."""

    operation: SizesMeasure
    disk: Path | None

    async def run(self, executor: Runner) -> LoopRun:
        """Measure once.

        Raises: what the operation raises.
        """
        operation = self.operation
        if self.disk is not None:
            with suppress(OSError):  # the sizes are useful without it
                operation = replace(operation, free_bytes=(await to_thread.run_sync(shutil.disk_usage, self.disk)).free)
        await executor.run(operation)
        return LoopRun(0)
