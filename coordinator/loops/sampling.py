"""Samples the metrics of the database on the leader.

All samplers run in one call. If that fails or takes longer than ``SAMPLE_S``, each runs in a separate call, so that a
failing sampler stops no other. Its values stay as they were, and the time of its sample shows their age.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import structlog
from msgspec.structs import replace

from coordinator.errors import CoordinatorError, DatabaseBusy, DatabaseUnavailable
from coordinator.loops.loop import Loop, LoopRun
from coordinator.operations.executor import Runner
from coordinator.operations.work import SampleMetrics
from coordinator.telemetry import metrics

__all__ = ["Sampling"]

SAMPLE_S = 5.0

log = structlog.get_logger()


class Sampling(Loop, frozen=True, kw_only=True):
    """Stores the results of samplers in ``metrics.SAMPLES``."""

    operation: SampleMetrics

    async def run(self, executor: Runner) -> LoopRun:
        """Sample once.

        Raises: what the operation raises, if every sampler fails; ``DatabaseUnavailable``.
        """
        samplers = self.operation.samplers
        failed = await self._sample(executor, samplers)
        if failed is not None:
            errors = [await self._sample(executor, [sampler]) for sampler in samplers]
            for sampler, error in zip(samplers, errors, strict=True):
                if error is not None:
                    log.warning("metric.sample_failed", sampler=sampler, error=str(error) or "it took too long")
            if all(errors):
                raise failed
        return LoopRun(0)

    async def _sample(self, executor: Runner, samplers: Sequence[str]) -> Exception | None:
        """Run samplers; return the error if that failed."""
        call = replace(self.operation, samplers=list(samplers), since=metrics.SAMPLES.taken_at)
        try:
            with anyio.fail_after(SAMPLE_S):
                samples = await executor.run(call)
        except (CoordinatorError, TimeoutError) as error:
            if isinstance(error, DatabaseUnavailable) and not isinstance(error, DatabaseBusy):
                raise
            return error
        metrics.SAMPLES.keep(samples)
        return None
