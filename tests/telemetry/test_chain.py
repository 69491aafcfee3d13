"""Traces through real processes: an agent's command, a daemon, and a worker; and a daemon whose collector is gone."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

import coordinator
from tests.daemon import Daemon
from tests.forked import ROOT, Forked
from tests.http_client import http_client
from tests.telemetry.collector import CollectedSpan, Collector, collecting
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
# The command line, which waits at its end for as long as it takes to send its spans.
PATIENT = """
import sys
from coordinator.cli.main import main
from coordinator.telemetry import otel
otel.CLOSE_S = 600
main(sys.argv[1:])
"""
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def _chain(collector: Collector) -> list[CollectedSpan]:
    """Return the spans from an attempt of a job up to the one that has no parent here."""
    by_id = {span.id: span for span in collector.spans if span.trace == TRACE}
    chain = [span for span in by_id.values() if span.name == "process default"]
    while chain and (above := by_id.get(chain[-1].parent)) is not None:
        chain.append(above)
    return chain


@pytest.mark.slow
async def test_one_trace_leads_from_a_command_to_the_worker_that_ran_its_job(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        monkeypatch.setenv("COORDINATOR_TRACING", "on")
        monkeypatch.setenv("TRACEPARENT", PARENT)
        with Daemon(database_url, tracing="on") as daemon:
            await daemon.ready()
            worker = Forked("tests.telemetry.traced_worker", daemon.url)
            try:
                command = [sys.executable, "-c", PATIENT, "job", "enqueue", "traced", '"x"', "--url", daemon.url]
                subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
                await until(lambda: len(_chain(collector)) == 7, "every process has sent its spans")
            finally:
                worker.kill()
                worker.wait()
        chain = _chain(collector)
        assert [(span.service, span.name) for span in reversed(chain)] == [
            ("coordinator-cli", "coordinator job enqueue"),
            ("coordinator-cli", "job_enqueue"),
            ("coordinator-cli", "POST"),
            ("coordinator-daemon", "POST /v1/jobs/enqueue"),
            ("coordinator-daemon", "job_enqueue"),
            ("coordinator-daemon", "SELECT coordinator.job_enqueue"),
            ("coordinator-worker", "process default"),
        ]
        async with coordinator.connect(database_url) as client:
            found = await client.signals.get("traced/environment")
        assert found.value == f"00-{TRACE}-{chain[0].id}-01"


@pytest.mark.slow
async def test_a_daemon_whose_collector_does_not_answer_works_on_and_ends_in_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector takes connections and says nothing, and the exporter would wait for an hour."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
        with Daemon(database_url, tracing="on") as daemon:
            await daemon.ready()
            async with http_client(daemon.url) as http:
                for _ in range(30):  # each has three spans
                    assert (await http.get("/v1/signals")).status_code == 200
                await daemon.logged("Queue full, dropping Span.")
                assert (await http.get("/v1/signals")).status_code == 200
            daemon.send(signal.SIGTERM)
            assert await daemon.ended() == 0
            assert "daemon.stopped" in daemon.events()
