"""Errors are always problem+json, always with a hint, and never a page or a stack trace."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest
import structlog
from starlette.responses import Response

from coordinator.api.access import Access
from coordinator.api.app import create_app
from coordinator.api.gateway import Gateway
from coordinator.api.request import Request
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.model.readiness import Readiness
from tests.http_client import http_client

JSON = {"content-type": "application/json"}


def problem(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["type"]) == (status, f"urn:coordinator:{name}")
    assert found["hint"]
    assert found["code"]
    assert "Traceback" not in answer.text
    return found


async def test_a_path_without_a_route_is_answered_with_the_routes_of_its_noun(http: httpx.AsyncClient) -> None:
    for path in ("/v1/messages", "/v1/messages/chat%2F7", "/v1/mesages/window"):
        hint = problem(await http.get(path), 404, "no-route")["hint"]
        assert hint == "Below /v1/messages: GET /v1/messages/window, POST /v1/messages/append. See /schema."
    for path in ("/", "/v1", "/v1/nothing", "/messages", "/v1//"):
        assert problem(await http.get(path), 404, "no-route")["hint"] == "The API is below /v1; see /schema."


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/", 404, "no-route"),
        ("GET", "/nothing", 404, "no-route"),
        ("GET", "/v1", 404, "no-route"),
        ("GET", "/v1/nothing", 404, "no-route"),
        ("GET", "/v1/agents/x", 404, "no-route"),
        ("POST", "/v1/signals/reap", 405, "method-not-allowed"),
        ("GET", "/v1/agents/register", 405, "method-not-allowed"),
        ("DELETE", "/v1/signals", 405, "method-not-allowed"),
        ("HEAD", "/v1/signals", 405, "method-not-allowed"),
        ("OPTIONS", "/v1/signals", 405, "method-not-allowed"),
        ("POST", "/livez", 405, "method-not-allowed"),
        ("POST", "/v1/agents/reap", 404, "no-route"),
        ("POST", "/v1/relays/step", 404, "no-route"),
        ("GET", "/v1/signals/k%FF", 400, "malformed-request"),
        ("GET", "/v1/signals?prefix=%FF", 400, "malformed-request"),
        ("GET", "/v1/signals?limit=0", 422, "invalid-argument"),
        ("GET", "/v1/signals?limit=many", 422, "invalid-argument"),
        ("GET", "/v1/signals?limit=1&limit=2", 422, "invalid-argument"),
        ("GET", "/v1/signals?unknown=1", 422, "invalid-argument"),
        ("GET", "/v1/signals?after=k", 422, "invalid-argument"),
        ("GET", "/v1/signals?after=%21", 422, "invalid-argument"),
        ("GET", "/v1/signals?wait=1s", 422, "invalid-argument"),
        ("GET", "/v1/signals/k?key=k", 422, "invalid-argument"),
        ("GET", "/v1/signals/absent", 404, "not-found"),
        ("GET", "/v1/signals/k?project=absent", 404, "not-found"),
        ("GET", "/v1/directives/inbox", 422, "invalid-argument"),
        ("GET", "/v1/directives/inbox?agent=a&wait=601s", 422, "invalid-argument"),
        ("GET", "/v1/directives/inbox?agent=a&wait=soon", 422, "invalid-argument"),
        ("GET", "/v1/events?after=x", 422, "invalid-argument"),
        ("GET", "/v1/events?topic=A.b", 422, "invalid-argument"),
        ("GET", "/v1/events?unknown=1", 422, "invalid-argument"),
        ("GET", "/v1/events/stream?after=x", 422, "invalid-argument"),
        ("GET", "/v1/events/stream?topic=signal.*.x", 422, "invalid-argument"),
        ("GET", "/v1/events/stream?" + "&".join(["topic=a"] * 101), 422, "invalid-argument"),
        ("GET", "/v1/events/stream?limit=1", 422, "invalid-argument"),
    ],
)
async def test_a_wrong_path_method_or_query_is_a_problem(
    http: httpx.AsyncClient, method: str, path: str, status: int, name: str
) -> None:
    answer = await http.request(method, path)
    if method == "HEAD":
        assert answer.status_code == status
    else:
        problem(answer, status, name)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b"", 400, "malformed-request"),
        (b"{", 400, "malformed-request"),
        (b'{"key": "k", "value": 1} x', 400, "malformed-request"),
        (b'{"key": "\xff", "value": 1}', 400, "malformed-request"),
        (b'{"key": "\\ud800", "value": 1}', 400, "malformed-request"),
        (b'{"key": "k", "value": ' + b"[" * 50_000 + b"}", 400, "malformed-request"),
        (b"[]", 422, "invalid-argument"),
        (b"{}", 422, "invalid-argument"),
        (b'{"key": "k", "value": 1, "colour": "red"}', 422, "invalid-argument"),
        (b'{"key": 5, "value": 1}', 422, "invalid-argument"),
        (b'{"key": "k", "value": 1, "ttl": "soon"}', 422, "invalid-argument"),
        (b'{"key": "k", "value": 1, "ttl": true}', 422, "invalid-argument"),
        (b'{"key": "k", "value": 1, "ttl": -5}', 422, "invalid-argument"),
        (b'{"key": "k", "value": 1, "ttl": 1e300}', 422, "invalid-argument"),
        (b'{"key": "k", "value": 1, "expect": 99999999999999999999}', 422, "invalid-argument"),
        (b'{"key": "k\\u0000", "value": 1}', 422, "invalid-argument"),
        (b'{"key": "k", "value": "\\u0000"}', 422, "invalid-argument"),
        (b'{"key": "k", "value": 1, "project": "absent"}', 404, "not-found"),
        (b'{"key": "k", "value": 1, "expect": 5}', 409, "conflict"),
        (b'{"key": "k", "value": "' + b"x" * 100_000 + b'"}', 413, "too-large"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else None,
)
async def test_a_wrong_body_is_a_problem_and_changes_nothing(
    http: httpx.AsyncClient, body: bytes, status: int, name: str
) -> None:
    problem(await http.post("/v1/signals/set", content=body, headers=JSON), status, name)
    assert (await http.get("/v1/signals/k")).status_code == 404


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_a_body_that_is_not_declared_as_json_is_refused(http: httpx.AsyncClient, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    problem(
        await http.post("/v1/signals/set", content=b'{"key":"k","value":1}', headers=headers),
        415,
        "unsupported-media-type",
    )


async def test_a_body_without_a_length_is_measured_as_it_arrives(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 50_000_000:
            sent += 10_000
            yield b" " * 10_000

    # The server closes the connection after its response; the client may see either.
    with suppress(httpx.ReadError, httpx.WriteError):
        problem(await http.post("/v1/signals/set", content=endless(), headers=JSON), 413, "too-large")
    assert sent < 50_000_000


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": "*"},
        {"If-Match": "abc"},
        {"If-Match": '"0"'},
        {"If-None-Match": '"1"'},
        {"If-Match": '"1"', "If-None-Match": "*"},
    ],
)
async def test_an_invalid_condition_is_refused(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await http.post("/v1/signals/set", json={"key": "k", "value": 1}, headers=headers)
    problem(answer, 422, "invalid-argument")
    answer = await http.post("/v1/signals/set", json={"key": "k", "value": 1, "expect": 1}, headers={"If-Match": '"1"'})
    problem(answer, 422, "invalid-argument")


async def test_a_condition_on_something_without_a_version_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/projects/create", json={"project": "x"}, headers={"If-Match": '"1"'})
    problem(answer, 422, "invalid-argument")


async def test_an_error_of_the_database_has_a_hint_and_facts(http: httpx.AsyncClient, project: str) -> None:
    made = await http.post("/v1/signals/set", json={"project": project, "key": "k", "value": 1})
    answer = await http.post("/v1/signals/set", json={"project": project, "key": "k", "value": 1, "expect": 1 << 40})
    found = problem(answer, 409, "conflict")
    assert found["facts"] == {"version": made.json()["version"]}
    assert found["title"] == "Conflict"


async def test_hundreds_of_concurrent_requests_are_served(http: httpx.AsyncClient, project: str) -> None:
    statuses: list[int] = []

    async def set_one(number: int) -> None:
        async with http_client(str(http.base_url)) as one:  # a pool for each: one of many connections is slow
            answer = await one.post("/v1/signals/set", json={"project": project, "key": f"k{number}", "value": 1})
        statuses.append(answer.status_code)

    async with anyio.create_task_group() as tasks:
        for number in range(300):
            tasks.start_soon(set_one, number)
    assert statuses == [200] * 300


@pytest.mark.parametrize("path", ["/v1/broken", "/readyz"])
async def test_a_bug_is_a_problem_without_details_and_is_logged(db: Database, path: str) -> None:
    def broken() -> Readiness:
        raise ZeroDivisionError("secret words")

    async def handler(_request: Request) -> Response:
        raise ZeroDivisionError("secret words")

    app = create_app(broken, db, Gateway(db, Config()), Access(None), [], {"/v1/broken": {"GET": handler}})
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    with structlog.testing.capture_logs() as logs:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get(path)
    problem(answer, 500, "internal")
    assert "secret words" not in answer.text
    assert [(line["event"], line["log_level"]) for line in logs] == [("request.failed", "error")]


@pytest.mark.parametrize(
    ("method", "path", "body", "hint"),
    [
        (
            "POST",
            "signals/set",
            {"key": "k", "valeu": 1},
            "Did you mean value? Fields: project, key (required), value (required), ",
        ),
        (
            "POST",
            "directives/send",
            {"body": "x", "to": "coder"},
            "Did you mean to_agent? Fields: project, body (required), ",
        ),
        (
            "POST",
            "projects/create",
            {"nmae": "x"},
            "Fields: project (required), description, username, title, settings, actor. See /schema.",
        ),
        ("POST", "locks/acquire", {}, "Fields: project, resources (required), agent (required), "),
        ("GET", "signals?prefx=a", None, "Did you mean prefix? Fields: "),
        ("GET", "directives/inbox?agnt=a", None, "Did you mean agent? Fields: project, agent, "),
        (
            "GET",
            "events?topics=signal.set",
            None,
            "Did you mean topic? Fields: after, project, topic, key, actor, exclude_self, at_least, limit, wait.",
        ),
    ],
)
async def test_a_field_that_there_is_not_gets_the_one_that_was_meant_and_all_there_are(
    http: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None, hint: str
) -> None:
    answer = await http.request(method, f"/v1/{path}", json=body)
    assert problem(answer, 422, "invalid-argument")["hint"].startswith(hint)


async def test_a_hint_names_the_route_and_the_command(http: httpx.AsyncClient) -> None:
    hint = problem(await http.get("/v1/signals/absent"), 404, "not-found")["hint"]
    assert '"coordinator signal list" or GET /v1/signals' in hint
    hint = problem(await http.get("/v1/signals/k?project=absent"), 404, "not-found")["hint"]
    assert '"coordinator project create absent" or POST /v1/projects/create' in hint


async def test_a_command_in_a_hint_names_the_project_of_the_request(http: httpx.AsyncClient) -> None:
    await http.post("/v1/projects/create", json={"project": "hinted"})
    hint = problem(await http.get("/v1/signals/absent?project=hinted"), 404, "not-found")["hint"]
    assert '"coordinator --project hinted signal list" or GET /v1/signals' in hint
