"""What a sidecar hands to its daemon, and what its own lines say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.daemon import Daemon
from tests.http_client import http_client
from tests.sidecar.conftest import sidecar
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.slow
async def test_a_request_keeps_its_id_and_its_trace_on_the_way_to_the_daemon(database_url: str) -> None:
    with Daemon(database_url, slow_call_s=0) as daemon:
        await daemon.ready()
        with sidecar(daemon.url, "--agent", "helper") as beside:
            await beside.started()
            headers = {
                "x-request-id": "ticket-42",
                "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
                "tracestate": "a=1",
            }
            async with http_client(beside.url) as http:
                answer = await http.post("/v1/signals/set", json={"key": "a", "value": 1}, headers=headers)
            assert (answer.status_code, answer.headers["x-request-id"]) == (200, "ticket-42")

            async def look() -> list[dict[str, Any]]:
                lines = daemon.lines("call.slow")
                return [line for line in lines if line["function"] == "coordinator.signal_set"]

            (line,) = await until(look, "the daemon has called it")
        assert (line["request_id"], line["trace_id"], line["agent"]) == ("ticket-42", TRACE, "helper")


@pytest.mark.slow
async def test_lines_of_a_sidecar_name_its_project_and_agent(database_url: str) -> None:
    with sidecar(database_url, "--agent", "helper", COORDINATOR_SLOW_CALL_S="0") as beside:
        await beside.started()
        async with http_client(beside.url) as http:
            await http.post("/v1/signals/set", json={"key": "a", "value": 1}, headers={"x-request-id": "ticket-42"})

        async def look() -> list[dict[str, Any]]:
            lines = beside.lines("call.slow")
            return [line for line in lines if line["function"] == "coordinator.signal_set"]

        (line,) = await until(look, "the sidecar has called it")
    assert (line["request_id"], line["project"], line["agent"]) == ("ticket-42", "default", "helper")
