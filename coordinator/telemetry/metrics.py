"""Every metric. Names are API, ``coordinator_<noun>_<unit>``; ``docs/metrics.md`` lists them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

__all__ = [
    "ARTIFACT_TRANSFERS",
    "CALL_ERRORS",
    "CALL_SECONDS",
    "CONTENT",
    "EVENT_NUMBERED",
    "LEADER",
    "LOOP_ERRORS",
    "LOOP_HANDLED",
    "LOOP_RUNS",
    "LOOP_SECONDS",
    "REGISTRY",
    "RELAY_BATCH_EVENTS",
    "RELAY_SLEEPING",
    "REQUEST_SECONDS",
    "RETENTION_REMOVED",
    "STREAM_CLOSED",
    "STREAM_CONNECTIONS",
    "STREAM_EVENTS",
    "VALUE_UNREADABLE",
    "WEBHOOK_ATTEMPTS",
    "WEBHOOK_SECONDS",
    "render",
]

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

CALL_SECONDS = Histogram(
    "coordinator_call_seconds",
    "Latency of each SQL function, seen by the caller.",
    ["function"],
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
CALL_ERRORS = Counter("coordinator_call_errors", "Calls that failed.", ["function", "sqlstate"], registry=REGISTRY)
EVENT_NUMBERED = Counter(
    "coordinator_event_numbered", "Events that the relay of this process numbered.", registry=REGISTRY
)
RELAY_BATCH_EVENTS = Histogram(
    "coordinator_relay_batch_events",
    "Events that the relay numbered in one step.",
    registry=REGISTRY,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
RELAY_SLEEPING = Gauge(
    "coordinator_relay_sleeping",
    "1 while the relay of this process sleeps until its doorbell rings.",
    registry=REGISTRY,
)
LOOP_RUNS = Counter("coordinator_loop_runs", "Runs of a loop.", ["loop"], registry=REGISTRY)
LOOP_ERRORS = Counter("coordinator_loop_errors", "Runs that failed; the loop continues.", ["loop"], registry=REGISTRY)
LOOP_HANDLED = Counter(
    "coordinator_loop_handled", "Rows that a loop expired, reaped or pruned.", ["loop"], registry=REGISTRY
)
LOOP_SECONDS = Histogram(
    "coordinator_loop_seconds",
    "Duration of each run of a loop.",
    ["loop"],
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
RETENTION_REMOVED = Counter(
    "coordinator_retention_removed",
    "Entries of logs, documents and sessions that retention removed.",
    ["subject", "kind"],
    registry=REGISTRY,
)
LEADER = Gauge("coordinator_leader", "1 while this process leads.", registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "coordinator_request_seconds",
    "Duration of HTTP requests, except streams and long-polls.",
    ["operation", "status"],
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
ARTIFACT_TRANSFERS = Gauge(
    "coordinator_artifact_transfers", "Artifacts that are being uploaded or downloaded over HTTP.", registry=REGISTRY
)
STREAM_CONNECTIONS = Gauge("coordinator_stream_connections", "Open streams and long-polls.", registry=REGISTRY)
STREAM_EVENTS = Counter("coordinator_stream_events", "Events that the gateway read from the log.", registry=REGISTRY)
STREAM_CLOSED = Counter("coordinator_stream_closed", "Streams that this process closed.", ["reason"], registry=REGISTRY)
VALUE_UNREADABLE = Counter(
    "coordinator_value_unreadable",
    "JSON values that exceeded a limit when this process read them, and were replaced by a placeholder.",
    ["reason"],
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "coordinator_webhook_attempts",
    "Attempts of webhooks: delivered, failed, or dead (failed for the last time).",
    ["outcome"],
    registry=REGISTRY,
)
WEBHOOK_SECONDS = Histogram(
    "coordinator_webhook_seconds",
    "Duration of each attempt of a webhook.",
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
CONTENT = Gauge(
    "coordinator_content",
    "Figures of the database's contents, sampled by the leader.",
    ["name"],
    registry=REGISTRY,
)


def render() -> bytes:
    """Render every metric in the text format of Prometheus."""
    return generate_latest(REGISTRY)
