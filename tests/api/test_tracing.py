from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from coordinator.api.access import Access
from coordinator.api.app import Readiness, create_app
from coordinator.api.gateway import Gateway
from coordinator.config import Config
from coordinator.db.database import Database
from tests.daemon import Daemon
from tests.http_client import http_client
from tests.spans import Spans
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
async def traced(db: Database, spans: Spans) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(lambda: Readiness(ready=True, leads=True), db, Gateway(db, Config()), Access(None), [])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_a_request_continues_the_trace_of_its_client(traced: httpx.AsyncClient, spans: Spans) -> None:
    answer = await traced.post(
        "/v1/signals/set", json={"key": "a", "value": "secret"}, headers={"traceparent": PARENT, "user-agent": "test"}
    )
    assert answer.status_code == 200, answer.text
    request = spans.one("POST /v1/signals/set")
    assert request.kind is SpanKind.SERVER
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == "00f067aa0ba902b7"
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/signals/set",
        "http.response.status_code": 200,
        "url.path": "/v1/signals/set",
        "url.scheme": "http",
        "user_agent.original": "test",
    }
    assert expected.items() <= dict(request.attributes or {}).items()
    assert spans.parent(spans.one("signal_set")) is request
    assert "secret" not in request.to_json()


async def test_a_route_is_named_without_what_it_is_about(traced: httpx.AsyncClient, spans: Spans) -> None:
    assert (await traced.get("/v1/signals/build/1")).status_code == 404
    (request,) = [span for span in spans.all() if span.kind is SpanKind.SERVER]
    assert request.name == "GET /v1/signals/{key}"
    assert request.status.status_code is StatusCode.UNSET  # the server did what it should


@pytest.mark.parametrize(
    "given", [[PARENT, PARENT], [PARENT + "-x"], ["00-" + "0" * 32 + "-00f067aa0ba902b7-01"], ["\xe9"]]
)
async def test_a_request_with_an_invalid_context_begins_a_trace(
    traced: httpx.AsyncClient,
    spans: Spans,
    given: list[str],
) -> None:
    headers = [(b"traceparent", one.encode("latin-1")) for one in given]
    assert (await traced.get("/v1/signals", headers=headers)).status_code == 200
    request = spans.one("GET /v1/signals")
    assert request.parent is None
    assert f"{request.context.trace_id:032x}" != TRACE


async def test_whoever_asks_for_health_or_metrics_makes_no_spans(traced: httpx.AsyncClient, spans: Spans) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await traced.get(path)).status_code == 200
    assert spans.all() == []


async def test_metrics_come_as_openmetrics_to_who_asks_for_it(traced: httpx.AsyncClient) -> None:
    asked = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    answer = await traced.get("/metrics", headers={"accept": asked})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert answer.text.endswith("# EOF\n")
    assert (await traced.get("/metrics")).headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("given", ["ticket-42", "0190b5c1-2f7e-7cc3-98c4-dc0c0c07398f", "a/b=c"])
async def test_a_response_has_the_id_of_its_request(http: httpx.AsyncClient, given: str) -> None:
    assert (await http.get("/livez", headers={"x-request-id": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", 'a"b', "x" * 129, "a\xe9", "<a>"])
async def test_an_id_that_is_not_sane_is_replaced(http: httpx.AsyncClient, given: str) -> None:
    answer = await http.get("/v1/nothing", headers=[(b"x-request-id", given.encode("latin-1"))])
    assert answer.status_code == 404
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


async def test_a_refused_request_has_an_id_too(http: httpx.AsyncClient) -> None:
    answer = await http.get("/livez", headers={"host": "evil.example", "x-request-id": "a"})
    assert answer.status_code == 403
    assert answer.headers["x-request-id"] == "a"


@pytest.fixture(scope="module")
def talkative(api_url: str) -> Iterator[Daemon]:
    """A daemon to which every call is slow."""
    with Daemon(api_url, slow_call_s=0) as process:
        asyncio.run(process.ready())
        yield process


async def _slow(daemon: Daemon, request_id: str, function: str) -> dict[str, Any]:
    async def look() -> list[dict[str, Any]]:
        lines = daemon.lines("call.slow")
        return [line for line in lines if line.get("request_id") == request_id and line["function"] == function]

    return (await until(look, f"the log has a line of {function}"))[0]


async def test_a_line_says_which_request_and_trace_it_belongs_to_and_who_is_concerned(talkative: Daemon) -> None:
    async with http_client(talkative.url) as http:
        await http.post("/v1/projects/create", json={"project": "lines"})
        headers = {"x-request-id": "r-1", "traceparent": PARENT}
        body = {"project": "lines", "key": "a", "value": "secret", "actor": "coder"}
        assert (await http.post("/v1/signals/set", json=body, headers=headers)).status_code == 200
    line = await _slow(talkative, "r-1", "coordinator.signal_set")
    assert line["trace_id"] == TRACE
    assert line["project"] == "lines"
    assert line["agent"] == "coder"


async def test_a_slow_call_names_its_function_and_the_shape_of_its_arguments_without_values(talkative: Daemon) -> None:
    async with http_client(talkative.url) as http:
        body = {"key": "the-key", "value": ["secret"], "ttl": "1h"}
        await http.post("/v1/signals/set", json=body, headers={"x-request-id": "r-2"})
    line = await _slow(talkative, "r-2", "coordinator.signal_set")
    assert line["level"] == "warning"
    assert line["seconds"] >= 0
    assert line["arguments"]["p_key"] == "text(7)"
    assert line["arguments"]["p_ttl"] == "interval"
    assert line["arguments"]["p_value"] == "jsonb(10 bytes)"
    assert "coordinator.signal_set(p_project => " in line["statement"]
    assert "auto_explain" in line["hint"]
    assert "secret" not in str(line)
    assert "the-key" not in str(line)


async def test_a_call_that_is_not_slow_has_no_line(daemon: Daemon, http: httpx.AsyncClient) -> None:
    await http.get("/v1/signals")
    assert daemon.lines("call.slow") == []
