"""Every loop of the leader. Each kind of expiry or pruning is one row here."""

from __future__ import annotations

from datetime import timedelta

import structlog

from coordinator.config import Config
from coordinator.loops.artifact_objects import DeletingObjects, MovingContents
from coordinator.loops.job_archive import ArchivingPrune
from coordinator.loops.loop import Loop, LoopRun
from coordinator.loops.measuring import Measuring
from coordinator.loops.sampling import Sampling
from coordinator.model.agent import Reaped
from coordinator.model.retention import RetentionResult
from coordinator.objects import ObjectStore
from coordinator.operations import (
    agents,
    artifacts,
    audits,
    briefings,
    crons,
    directives,
    documents,
    events,
    files,
    idempotency,
    job_history,
    job_trees,
    job_waits,
    jobs,
    limits,
    locks,
    logs,
    queues,
    retentions,
    signals,
    webhooks,
)
from coordinator.operations.work import SampleMetrics, SizesMeasure, TablesAnalyze
from coordinator.telemetry import metrics

__all__ = ["table"]

log = structlog.get_logger()

REAPED_SHOWN = 100  # agents that one log line names
PAUSE_S = 0.02  # between batches of retention, so that writers get through
MISSING_AGAIN_S = 0.71  # a process whose liveness lock is free twice, 0.7 seconds apart, is dead


def table(config: Config) -> tuple[Loop, ...]:
    """List the loops. For loops without ``every_s``, the heartbeat reports all work, or the work can wait for ten minutes."""
    return (
        Loop(signals.Expire()),
        Loop(directives.Expire()),
        Loop(locks.Expire()),
        Loop(agents.Reap(), judge=_reaped, every_s=60),
        Loop(jobs.Promote()),
        Loop(jobs.WakeDue()),
        Loop(queues.Arrange(), judge=_paced),
        Loop(job_trees.Settle()),
        Loop(job_trees.ChangeDue()),
        Loop(jobs.Expire()),
        Loop(jobs.Rescue(), every_s=60),
        Loop(crons.Fire()),
        Loop(job_waits.Match()),
        Loop(audits.Copy(), judge=_copied),
        Loop(limits.Refill()),
        Loop(limits.Prune(), every_s=60),
        Loop(limits.PruneKeys(), every_s=3600),
        Loop(jobs.PruneDedupes()),
        Loop(jobs.PruneClasses(), every_s=3600),
        Loop(events.Extend()),
        Loop(events.Prune(retention=config.event_retention), every_s=60),
        Loop(directives.Prune(retention=config.directive_retention), every_s=60),
        Loop(job_history.Extend()),
        Loop(job_history.Index()),
        _job_prune(config),
        Loop(retentions.Trim(), judge=_removed),
        Loop(retentions.ExpireDocuments(), judge=_removed),
        Loop(retentions.ExpireSessions(), judge=_removed),
        Loop(retentions.ExpireArtifacts(), judge=_removed),
        Loop(retentions.Sweep(), judge=_paced),
        *_configure(config),
        Loop(idempotency.Prune()),
        Loop(signals.Prune()),
        Loop(artifacts.Prune()),
        *_objects(config),
        Loop(webhooks.Prune()),
        Loop(logs.Prune(), every_s=3600),
        Loop(documents.Prune(), every_s=3600),
        Loop(locks.PruneBreaks(), every_s=3600),
        Loop(files.Prune(), every_s=3600),
        Loop(briefings.Prune(), every_s=3600),
        Loop(agents.Prune(), every_s=3600),
        Loop(TablesAnalyze(), every_s=300),
        Measuring(
            operation=SizesMeasure(limit_bytes=config.database_max_bytes),
            every_s=3600,
            disk=config.data_dir if config.database_url is None else None,
        ),
        Sampling(operation=SampleMetrics(samplers=metrics.SAMPLES.samplers), every_s=15),
    )


def _job_prune(config: Config) -> Loop:
    operation = job_history.Prune(completed=config.job_completed_retention, other=config.job_retention)
    if config.job_archive is None:
        return Loop(operation, every_s=60)
    return ArchivingPrune(operation=operation, every_s=60, folder=config.job_archive)


def _objects(config: Config) -> list[Loop]:
    objects = ObjectStore(config)
    if objects.url is None:
        return []
    return [
        MovingContents(operation=artifacts.Move(store=objects.url), objects=objects),
        DeletingObjects(operation=artifacts.DeleteObjects(store=objects.url), objects=objects),
    ]


def _configure(config: Config) -> list[Loop]:
    days, count = config.history_retention_days, config.history_max_entries
    if days is None and count is None:
        return []
    max_age = None if days is None else timedelta(days=days)
    return [Loop(retentions.Configure(max_age=max_age, max_count=count), every_s=3600)]


def _removed(results: list[RetentionResult]) -> LoopRun:
    for result in results:
        if result.removed:
            metrics.RETENTION_REMOVED.labels(result.subject, result.kind).inc(result.removed)
    return LoopRun(sum(result.removed for result in results), again_s=PAUSE_S if results else None)


def _paced(count: int) -> LoopRun:
    """Run again after a pause while there is work, which is not counted."""
    return LoopRun(0, again_s=PAUSE_S if count else None)


def _copied(chunks: int) -> LoopRun:
    return LoopRun(0, again_s=PAUSE_S if chunks == audits.Copy().limit else None)


def _reaped(result: Reaped) -> LoopRun:
    if result.reaped:
        log.warning("agent.reaped", count=result.reaped, agents=result.agents[:REAPED_SHOWN])
        return LoopRun(result.reaped, again_s=0)
    return LoopRun(0, again_s=MISSING_AGAIN_S if result.missing else None)
