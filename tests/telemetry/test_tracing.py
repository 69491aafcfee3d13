from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

import coordinator
from coordinator.client import lease
from coordinator.db.database import Database
from coordinator.errors import ConfigurationError, NotFound
from coordinator.loops.keeper import Keeper
from coordinator.loops.loop import Loop
from coordinator.operations import jobs, signals
from coordinator.operations.work import LeaderRenew
from coordinator.telemetry import metrics, otel, tracing
from coordinator.telemetry.tracing import TraceContext, parsed
from tests.spans import Spans
from tests.waiting import LASTING_S, OFTEN, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "given", [PARENT, f"cc-{TRACE}-00f067aa0ba902b7-01", f"cc-{TRACE}-00f067aa0ba902b7-01-what comes"]
)
def test_a_context_is_read_as_this_version_knows_it(given: str) -> None:
    assert parsed(given) == TraceContext(PARENT)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "00",
        PARENT.upper(),
        PARENT + "-more",  # version 00 has four parts
        PARENT + "\n",
        " " + PARENT,
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-1",
        f"00-{TRACE}-00f067aa0ba902b7-0x",
        f"cc-{TRACE}-00f067aa0ba902b7-01.more",
        f"cc-{TRACE}-00f067aa0ba902b7-01-" + "x" * 10_000,
        f"00-{TRACE}-00f067aa0ba902b7-01'; drop table x; --",
        PARENT.replace("4", "\N{ARABIC-INDIC DIGIT FOUR}"),
    ],
)
def test_a_context_that_is_not_valid_is_ignored(given: str | None) -> None:
    assert parsed(given, "a=1") is None


def test_flags_that_nobody_knows_are_not_passed_on() -> None:
    context = parsed(f"00-{TRACE}-00f067aa0ba902b7-ff")
    assert context is not None
    assert context.traceparent.endswith("-03")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a=1,b=2", "a=1,b=2"),
        ("a=1 ,\tb=2,,", "a=1,b=2"),
        ("tenant@vendor=x y", "tenant@vendor=x y"),
        ("", None),
        ("a", None),
        ("A=1", None),
        ("a=1,a=2", None),
        ("a=\x00", None),
        ("a=é", None),
        ("a=" + "x" * 600, None),
        (",".join(f"k{n}=1" for n in range(33)), None),
    ],
)
def test_a_state_is_kept_if_it_is_valid_and_not_too_long(given: str, expected: str | None) -> None:
    assert parsed(PARENT, given) == TraceContext(PARENT, expected)


async def test_an_operation_and_its_sql_call_have_spans(db: Database, spans: Spans) -> None:
    await db.run(signals.Set(project="default", key="a", value="secret"))
    call = spans.one("SELECT coordinator.signal_set")
    assert call.kind is SpanKind.CLIENT
    attributes = dict(call.attributes or {})
    assert attributes["db.system.name"] == "postgresql"
    assert attributes["db.stored_procedure.name"] == "coordinator.signal_set"
    assert "coordinator.signal_set(" in str(attributes["db.query.text"])
    operation = spans.one("signal_set")
    assert spans.parent(call) is operation
    assert dict(operation.attributes or {}) == {"coordinator.operation": "signal_set", "coordinator.project": "default"}
    assert "secret" not in "".join(span.to_json() for span in spans.all())


async def test_a_job_is_enqueued_by_a_producer(db: Database, spans: Spans) -> None:
    await db.run(jobs.Enqueue(project="default", type="t", payload={}, queue="default"))
    operation = spans.one("job_enqueue")
    assert operation.kind is SpanKind.PRODUCER
    assert {"messaging.system": "coordinator", "messaging.destination.name": "default"}.items() <= dict(
        operation.attributes or {}
    ).items()


async def test_a_span_says_which_error_ended_it_and_not_its_message(db: Database, spans: Spans) -> None:
    with pytest.raises(NotFound):
        await db.run(signals.Get(project="nowhere", key="a"))
    call = spans.one("SELECT coordinator.signal_get")
    attributes = dict(call.attributes or {})
    assert attributes["db.response.status_code"].startswith("ZC2")  # type: ignore[union-attr]
    assert attributes["error.type"] == "not-found"
    assert call.status.status_code is StatusCode.ERROR
    assert not call.events
    assert "nowhere" not in str(call.status.description)


async def test_what_a_daemon_does_every_second_has_no_span_of_its_own(db: Database, spans: Spans) -> None:
    await db.run(LeaderRenew(process=0))
    assert spans.all() == []
    with tracing.span("x"):
        await db.run(LeaderRenew(process=0))
    assert spans.parent(spans.one("leader_renew")) is spans.one("x")


async def test_a_run_of_a_loop_has_a_span(db: Database, spans: Spans) -> None:
    keeper = Keeper(db, db, [Loop(signals.Expire(), every_s=0.001)], lambda: None, lambda _: None)
    keeper._leads_until = float("inf")
    import anyio

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper._run_loop, next(iter(keeper._loops.values())))
        (run, *_) = await until(lambda: spans.named("loop signal_expire"), "the loop has run")
        tasks.cancel_scope.cancel()
    assert dict(run.attributes or {})["coordinator.loop.handled"] == 0
    calls = [call for call in spans.named("signal_expire") if call.parent]
    assert spans.parent(calls[0]) is not None


async def test_a_context_that_came_in_is_passed_on_without_spans(db: Database) -> None:
    assert tracing.headers() == {}
    with tracing.received("x", "server", {}, parsed(PARENT, "a=1")):
        await db.run(signals.List(project="default"))
        assert tracing.headers() == {"traceparent": PARENT, "tracestate": "a=1"}
        assert tracing.trace_id() == TRACE
    assert tracing.traceparent() is None


async def test_a_span_below_one_that_came_in_is_in_its_trace(spans: Spans) -> None:
    with tracing.received("x", "server", {}, parsed(PARENT, "a=1")):
        below = tracing.current()
    assert below is not None
    assert below.traceparent[3:35] == TRACE
    assert below.traceparent != PARENT
    assert below.tracestate == "a=1"
    assert spans.one("x").parent is not None


async def test_call_seconds_have_the_trace_as_exemplar_in_openmetrics_alone(db: Database, spans: Spans) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    with tracing.span("x"):
        await db.run(signals.List(project="default"))
    call = spans.one("SELECT coordinator.signal_list")
    render, media_type = metrics.renderer("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    (family,) = [
        family
        for family in text_string_to_metric_families(render().decode())
        if family.name == "coordinator_call_seconds"
    ]
    exemplars = [sample.exemplar.labels for sample in family.samples if sample.exemplar is not None]
    assert {"trace_id": f"{call.context.trace_id:032x}", "span_id": f"{call.context.span_id:016x}"} in exemplars
    for accept in ("", "text/plain;version=0.0.4", "*/*"):
        render, media_type = metrics.renderer(accept)
        assert media_type == "text/plain; version=0.0.4; charset=utf-8"
        assert b"trace_id" not in render()


async def test_a_trace_that_is_not_recorded_is_not_an_exemplar() -> None:
    with tracing.received("x", "server", {}, parsed(PARENT[:-1] + "0")):
        assert tracing.exemplar() is None
    with tracing.received("x", "server", {}, parsed(PARENT)):
        assert tracing.exemplar() == {"trace_id": TRACE, "span_id": "00f067aa0ba902b7"}


def test_tracing_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(ConfigurationError) as raised:
        tracing.start("test")
    assert "coordinatord[otel]" in str(raised.value.hint)


def test_switched_off_nothing_imports_opentelemetry() -> None:
    code = """
import sys
import coordinator.cli.main, coordinator.client.http, coordinator.daemon, coordinator.sidecar.main, coordinator.worker
from coordinator.telemetry import tracing
with tracing.span("x") as span:
    span.set("a", 1)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_what_keeps_an_agent_alive_is_not_in_the_trace_of_who_connected(
    database_url: str, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else that trace would never end."""
    monkeypatch.setattr(lease, "RENEWALS_PER_TTL", OFTEN)
    with tracing.span("connects"), tracing.apart():
        assert tracing.current() is None
    with tracing.received("x", "server", {}, parsed(PARENT)):
        async with coordinator.connect(database_url, agent="a", ttl=LASTING_S) as client:
            (beat, *_) = await until(lambda: spans.named("agent_heartbeat"), "the agent was kept alive")
            await client.signals.set("a", 1)
    assert f"{beat.context.trace_id:032x}" != TRACE
    assert f"{spans.one('signal_set').context.trace_id:032x}" == TRACE


def test_the_end_of_a_process_waits_for_a_collector_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    class Stuck(TracerProvider):
        def shutdown(self) -> None:
            over.wait()

    monkeypatch.setattr(otel, "CLOSE_S", 0.01)
    tracing.use(otel.OpenTelemetry(Stuck(shutdown_on_exit=False), owned=True))
    tracing.stop()  # returns
    assert not tracing.on()
    over.set()


def test_the_provider_of_the_program_is_used_and_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    monkeypatch.setattr(provider, "shutdown", lambda: pytest.fail("it belongs to the program"))
    tracer = otel.OpenTelemetry.opened("test")
    with tracer.span("x", "internal", {}, None):
        assert tracer.current() is not None
    tracer.close()
