"""Every metric, in one place. Names are API: ``coordinator_<noun>_<unit>``.

| metric                                  | labels   | meaning                                                     |
|-----------------------------------------|----------|-------------------------------------------------------------|
| coordinator_call_seconds                | function | latency of each SQL function, as its caller sees it         |
| coordinator_call_errors_total           | function, sqlstate | calls that ended with an error                    |
| coordinator_event_numbered_total        |          | events that this process's relay numbered                   |
| coordinator_relay_batch_events          |          | events in a batch of the relay                              |
| coordinator_relay_sleeping              |          | 1 while this process's relay sleeps behind its doorbell     |
| coordinator_loop_runs_total             | loop     | runs of a loop                                              |
| coordinator_loop_errors_total           | loop     | runs that failed; the loop goes on                          |
| coordinator_loop_handled_total          | loop     | things that a loop expired, reaped or pruned                |
| coordinator_loop_seconds                | loop     | duration of a run                                           |
| coordinator_leader                      |          | 1 while this process leads                                  |
| coordinator_request_seconds             | operation, status | HTTP requests, streams and long-polls left out     |
| coordinator_stream_connections          |          | streams and long-polls that are open                        |
| coordinator_stream_events_total         |          | events that the gateway read from the log                   |
| coordinator_stream_closed_total         | reason   | streams that this process ended                             |
| coordinator_content                     | name     | figures of the database's contents, sampled by the leader   |
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

__all__ = [
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
    "STREAM_CLOSED",
    "STREAM_CONNECTIONS",
    "STREAM_EVENTS",
    "render",
]

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

CALL_SECONDS = Histogram(
    "coordinator_call_seconds",
    "Latency of each SQL function, as its caller sees it.",
    ["function"],
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
CALL_ERRORS = Counter(
    "coordinator_call_errors", "Calls that ended with an error.", ["function", "sqlstate"], registry=REGISTRY
)
EVENT_NUMBERED = Counter("coordinator_event_numbered", "Events that this process's relay numbered.", registry=REGISTRY)
RELAY_BATCH_EVENTS = Histogram(
    "coordinator_relay_batch_events",
    "Events in a batch of the relay.",
    registry=REGISTRY,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
RELAY_SLEEPING = Gauge(
    "coordinator_relay_sleeping",
    "1 while this process's relay sleeps behind its doorbell.",
    registry=REGISTRY,
)
LOOP_RUNS = Counter("coordinator_loop_runs", "Runs of a loop.", ["loop"], registry=REGISTRY)
LOOP_ERRORS = Counter("coordinator_loop_errors", "Runs that failed; the loop goes on.", ["loop"], registry=REGISTRY)
LOOP_HANDLED = Counter(
    "coordinator_loop_handled", "Things that a loop expired, reaped or pruned.", ["loop"], registry=REGISTRY
)
LOOP_SECONDS = Histogram(
    "coordinator_loop_seconds", "Duration of a run.", ["loop"], registry=REGISTRY, buckets=_LATENCY_BUCKETS_S
)
LEADER = Gauge("coordinator_leader", "1 while this process leads.", registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "coordinator_request_seconds",
    "HTTP requests, streams and long-polls left out.",
    ["operation", "status"],
    registry=REGISTRY,
    buckets=_LATENCY_BUCKETS_S,
)
STREAM_CONNECTIONS = Gauge("coordinator_stream_connections", "Streams and long-polls that are open.", registry=REGISTRY)
STREAM_EVENTS = Counter("coordinator_stream_events", "Events that the gateway read from the log.", registry=REGISTRY)
STREAM_CLOSED = Counter("coordinator_stream_closed", "Streams that this process ended.", ["reason"], registry=REGISTRY)
CONTENT = Gauge(
    "coordinator_content",
    "Figures of the database's contents, sampled by the leader.",
    ["name"],
    registry=REGISTRY,
)


def render() -> bytes:
    """Render every metric in Prometheus' text format."""
    return generate_latest(REGISTRY)
