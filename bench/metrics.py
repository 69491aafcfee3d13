"""Metrics with 1,000 projects and 1,000 queues: what a sample of the leader costs, and how long and large a scrape is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from bench.place import Options, fresh
from bench.report import Table, load, percentile
from coordinator import operations
from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.model.metric import Sample
from coordinator.operations.work import SampleMetrics
from coordinator.telemetry import metrics

__all__ = ["FILL", "run"]

SAMPLES = 60
SCRAPE_MS = 100
SCRAPE_BYTES = 1_000_000
# Of each project: a queue, a class, an agent, a limit, a directive, a log, a document, and a job in each state but running.
FILL = (
    """
with projects as (
  insert into coordinator.projects (name, created_at, updated_at)
  select 'p' || n, now(), now() from generate_series(1, 1000) n returning id, name),
queues as (
  insert into coordinator.queues (project_id, name, actor, created_at, updated_at)
  select p.id, 'q' || p.name, 'a', now(), now() from projects p returning 1),
classes as (
  insert into coordinator.job_classes (project_id, queue, type)
  select p.id, 'q' || p.name, 't' || p.name from projects p returning 1),
agents as (
  insert into coordinator.agents (project_id, project, name, ttl, registered_at, heartbeat_at, expires_at)
  select p.id, p.name, 'a', '1 day', now(), now(), now() + interval '1 day' from projects p returning 1),
limits as (
  insert into coordinator.job_limits (project_id, name, kind, slots, actor, created_at, updated_at)
  select p.id, 'l', 'slots', 1, 'a', now(), now() from projects p returning 1),
directives as (
  insert into coordinator.directives (project_id, body, priority, status, actor, sent_at, expires_at)
  select p.id, 'x', 0, 'open', 'a', now(), now() + interval '1 day' from projects p returning 1),
logs as (
  insert into coordinator.logs (project_id, kind, key, count, epoch, updated_at)
  select p.id, 'k' || p.name, 'a', 1, 0, now() from projects p returning 1),
documents as (
  insert into coordinator.documents (project_id, kind, key, version, epoch, actor, created_at, updated_at)
  select p.id, 'k' || p.name, 'a', 1, 0, 'a', now(), now() from projects p returning 1)
select count(*) from classes
""",
    "insert into coordinator.jobs_ready (class_id, lane_id, rank, id) select id, 0, 0, coordinator.job_id(1, gen_random_uuid()) from coordinator.job_classes",
    "insert into coordinator.jobs_later (id, class_id, due_at) select id, class_id, now() from coordinator.jobs_ready",
    "insert into coordinator.jobs_waiting (id, class_id, cause) select id, class_id, 'lock' from coordinator.jobs_ready",
)


async def run(options: Options) -> AsyncIterator[Table]:
    """Sample and render in this process, after a call and a request of every operation."""
    async with fresh(options) as place:
        await place.execute(*FILL, "vacuum analyze")
        connection = await connect(place.dsn)
        sampling: list[float] = []
        for _ in range(SAMPLES):
            began = time.perf_counter()
            samples: list[Sample] = await call(connection, SampleMetrics(samplers=metrics.SAMPLES.samplers))
            metrics.SAMPLES.keep(samples)
            sampling.append((time.perf_counter() - began) * 1000)
        await connection.close()
    for operation in operations.every():
        metrics.CALL_SECONDS.labels(operation.function).observe(0.001)
        metrics.REQUEST_SECONDS.labels(operation.function).observe(0.001)
        for status in (200, 409, 503):
            metrics.REQUESTS.labels(operation.function, status).inc()
    scrapes: list[float] = []
    page = b""
    for _ in range(SAMPLES):
        began = time.process_time()
        page = metrics.renderer()[0]()
        scrapes.append((time.process_time() - began) * 1000)
    series = sum(not line.startswith(b"#") for line in page.splitlines())
    middle, large = percentile(scrapes, 50), len(page)
    yield Table(
        "Metrics with 1,000 projects and 1,000 queues",
        ["what", "p50 ms", "p95 ms", "bytes", "target"],
        [
            ["a sample, one call", f"{percentile(sampling, 50):.1f}", f"{percentile(sampling, 95):.1f}", "", ""],
            [f"a scrape, {series:,} series", f"{middle:.1f}", f"{percentile(scrapes, 95):.1f}", f"{large:,}",
             f"≤ {SCRAPE_MS} ms, ≤ 1 MB: {'met' if middle <= SCRAPE_MS and large <= SCRAPE_BYTES else 'MISSED'}"],
        ],
        [f"{SAMPLES} of each, in one process, in which every operation was called by SQL and by HTTP with three statuses.",
         "A sample by the clock, a scrape by the processor time of the process.",
         f"Load average at the end {load():.1f}."],
    )  # fmt: skip
