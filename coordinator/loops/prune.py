"""Delete what is older than its retention: events, ended directives, recorded answers, signals that outlived their project."""

from __future__ import annotations

from datetime import timedelta

from coordinator.loops.loop import Loop, Run
from coordinator.operations import directives, events, idempotency, signals
from coordinator.operations.executor import Executor

__all__ = ["directive_prune", "event_prune", "idempotency_prune", "signal_prune"]

EVERY_S = 60.0


def event_prune(retention: timedelta) -> Loop:
    """Make the loop for events numbered longer ago than ``retention``."""

    async def run_once(executor: Executor) -> Run:
        count = await executor.run(events.Prune(retention=retention))
        return Run(count, again_s=0 if count else None)

    return Loop("event_prune", EVERY_S, run_once)


def directive_prune(retention: timedelta) -> Loop:
    """Make the loop for directives that ended longer ago than ``retention``."""

    async def run_once(executor: Executor) -> Run:
        count = await executor.run(directives.Prune(retention=retention))
        return Run(count, again_s=0 if count else None)

    return Loop("directive_prune", EVERY_S, run_once)


def idempotency_prune() -> Loop:
    """Make the loop for answers that were recorded for repetitions of a request."""

    async def run_once(executor: Executor) -> Run:
        count = await executor.run(idempotency.Prune())
        return Run(count, again_s=0 if count else None)

    return Loop("idempotency_prune", EVERY_S, run_once)


def signal_prune() -> Loop:
    """Make the loop for signals that were set while their project was being deleted."""

    async def run_once(executor: Executor) -> Run:
        return Run(await executor.run(signals.Prune()))

    return Loop("signal_prune", EVERY_S, run_once)
