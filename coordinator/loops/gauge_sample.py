"""Sample the database's contents for the metrics endpoint."""

from __future__ import annotations

from coordinator.loops.loop import Loop, Run
from coordinator.operations.executor import Executor
from coordinator.operations.work import SampleGauges
from coordinator.telemetry import metrics

__all__ = ["gauge_sample"]


def gauge_sample() -> Loop:
    """Make the loop."""

    async def run_once(executor: Executor) -> Run:
        gauges = await executor.run(SampleGauges())
        for gauge in gauges:
            metrics.CONTENT.labels(gauge.name).set(gauge.value)
        return Run(len(gauges))

    return Loop("gauge_sample", 15, run_once)
