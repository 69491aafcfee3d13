"""Every metric. Names are part of the API, ``coordinator_<noun>_<unit>``; ``docs/metrics.md`` lists them.

Metrics of a process are declared here. Metrics that the leader samples of the database are declared in SQL, beside what
they measure: see ``samples``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from coordinator.model.catalogue import METRICS
from coordinator.telemetry.call_meter import CALL_METER
from coordinator.telemetry.samples import Samples

__all__ = [
    "ARTIFACT_TRANSFERS",
    "CALL_ERRORS",
    "CALL_SECONDS",
    "EVENT_NUMBERED",
    "HOOK_VERDICTS",
    "LEADER",
    "LOOP_ERRORS",
    "LOOP_HANDLED",
    "LOOP_LAG_SECONDS",
    "LOOP_RUNS",
    "LOOP_SECONDS",
    "MCP_LISTENERS",
    "POOL_CONNECTIONS",
    "POOL_SIZE",
    "POOL_TIMEOUTS",
    "POOL_WAITING",
    "POOL_WAIT_SECONDS",
    "REGISTRY",
    "RELAY_BATCH_EVENTS",
    "RELAY_DOORBELLS",
    "RELAY_SLEEPING",
    "REPLICA_LAG",
    "REPLICA_READS",
    "REQUESTS",
    "REQUEST_SECONDS",
    "RETENTION_REMOVED",
    "SAMPLES",
    "STREAM_BEHIND",
    "STREAM_BEHIND_EVENTS",
    "STREAM_CLOSED",
    "STREAM_CONNECTIONS",
    "STREAM_EVENTS",
    "STREAM_SEND_SECONDS",
    "VALUE_UNREADABLE",
    "WEBHOOK_ATTEMPTS",
    "WEBHOOK_SECONDS",
    "renderer",
]

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

CALL_SECONDS = Histogram(
    "coordinator_call_seconds",
    "Latency of SQL function calls, as the caller sees it.",
    ["function"],
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
CALL_ERRORS = Counter(
    "coordinator_call_errors", "Failed SQL function calls.", ["function", "sqlstate"], registry=REGISTRY
)
CALL_METER.timer = lambda function: CALL_SECONDS.labels(function).observe
CALL_METER.failed = lambda function, sqlstate: CALL_ERRORS.labels(function, sqlstate).inc()
POOL_SIZE = Gauge("coordinator_pool_size", "Maximum number of connections in a pool.", ["pool"], registry=REGISTRY)
POOL_CONNECTIONS = Gauge(
    "coordinator_pool_connections", "Connections in a pool, idle or busy.", ["pool", "state"], registry=REGISTRY
)
POOL_WAITING = Gauge(
    "coordinator_pool_waiting", "Calls waiting for a connection from a pool.", ["pool"], registry=REGISTRY
)
POOL_WAIT_SECONDS = Histogram(
    "coordinator_pool_wait_seconds",
    "Time that calls waited for a connection when none was idle.",
    ["pool"],
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
POOL_TIMEOUTS = Counter(
    "coordinator_pool_timeouts", "Calls that got no connection in time.", ["pool"], registry=REGISTRY
)
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
RELAY_DOORBELLS = Counter(
    "coordinator_relay_doorbells",
    "Wake-ups of the sleeping relay: its doorbell rang, or it was missed and a heartbeat found events.",
    ["outcome"],
    registry=REGISTRY,
)
LOOP_RUNS = Counter("coordinator_loop_runs", "Runs of a loop.", ["loop"], registry=REGISTRY)
LOOP_ERRORS = Counter(
    "coordinator_loop_errors", "Failed runs of a loop; the loop continues.", ["loop"], registry=REGISTRY
)
LOOP_LAG_SECONDS = Gauge(
    "coordinator_loop_lag_seconds",
    "How long a loop of this leader has been due without a successful run; 0: it is not due.",
    ["loop"],
    registry=REGISTRY,
)
LOOP_HANDLED = Counter(
    "coordinator_loop_handled", "Rows expired, reaped or pruned by a loop.", ["loop"], registry=REGISTRY
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
    "Log entries, documents, sessions and artifacts removed by retention.",
    ["subject", "kind"],
    registry=REGISTRY,
)
LEADER = Gauge("coordinator_leader", "1 while this process leads.", registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "coordinator_request_seconds",
    "Duration of HTTP requests, except streams.",
    ["operation"],
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S[1::2],
)
REQUESTS = Counter(
    "coordinator_requests",
    "HTTP requests, except streams, by status.",
    ["operation", "status"],
    registry=REGISTRY,
)
HOOK_VERDICTS = Counter(
    "coordinator_hook_verdicts",
    "Responses to hooks of coding agents over HTTP: allow, deny, ask or none; unanswered: the policy decided.",
    ["tool", "decision"],
    registry=REGISTRY,
)
ARTIFACT_TRANSFERS = Gauge(
    "coordinator_artifact_transfers", "Artifacts being uploaded or downloaded over HTTP.", registry=REGISTRY
)
REPLICA_LAG = Gauge(
    "coordinator_replica_lag_seconds",
    "Maximum age of the data on this daemon's replica; NaN: unknown, or there is no replica.",
    registry=REGISTRY,
)
REPLICA_READS = Counter(
    "coordinator_replica_reads_total",
    "Lists and searches sent to the replica: served, failed, or behind the reader's position; the primary served the last two.",
    ["outcome"],
    registry=REGISTRY,
)
STREAM_CONNECTIONS = Gauge("coordinator_stream_connections", "Open streams and long-polls.", registry=REGISTRY)
MCP_LISTENERS = Gauge("coordinator_mcp_listeners", "Requests listening to resources over MCP.", registry=REGISTRY)
STREAM_BEHIND = Gauge(
    "coordinator_stream_behind", "Open streams that are behind and catch up at their own pace.", registry=REGISTRY
)
STREAM_BEHIND_EVENTS = Gauge(
    "coordinator_stream_behind_events", "Events by which the slowest open stream is behind.", registry=REGISTRY
)
STREAM_SEND_SECONDS = Histogram(
    "coordinator_stream_send_seconds",
    "Time from the notification of numbered events until they were written to the subscribed streams.",
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
STREAM_EVENTS = Counter("coordinator_stream_events", "Events that the gateway read from the log.", registry=REGISTRY)
STREAM_CLOSED = Counter("coordinator_stream_closed", "Streams that this process closed.", ["reason"], registry=REGISTRY)
VALUE_UNREADABLE = Counter(
    "coordinator_value_unreadable",
    "JSON values that this process replaced by a placeholder because they exceeded a limit.",
    ["reason"],
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "coordinator_webhook_attempts",
    "Webhook delivery attempts: delivered, failed, or dead (failed for the last time).",
    ["outcome"],
    registry=REGISTRY,
)
WEBHOOK_SECONDS = Histogram(
    "coordinator_webhook_seconds",
    "Duration of webhook delivery attempts.",
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
SAMPLES = Samples(METRICS, REGISTRY, _LATENCY_BUCKETS_S)


class _Collected(Collector):
    """A snapshot of the metrics."""

    def __init__(self) -> None:
        self._families = list(REGISTRY.collect())

    def collect(self) -> list[Family]:
        return self._families


def renderer(accept: str = "") -> tuple[Callable[[], bytes], str]:
    """Take the value of every metric; return a function that renders them, in any thread, and the media type.

    The format is the text format of Prometheus or, if ``accept`` names it, OpenMetrics, which has exemplars.
    """
    encode, media_type = choose_encoder(accept)
    return partial(encode, _Collected()), media_type
