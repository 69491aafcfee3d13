"""Every noun and verb over HTTP, as curl would call them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from coordinator.api.endpoint import Endpoint, endpoints
from coordinator.db.connection import connect
from coordinator.model.page import cursor_of
from tests.nouns import Known
from tests.populated import populate


async def post(http: httpx.AsyncClient, path: str, **body: Any) -> Any:
    answer = await http.post(f"/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def get(http: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await http.get(f"/v1/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_project_is_created_listed_shown_and_deleted(http: httpx.AsyncClient) -> None:
    made = await post(http, "projects/create", project="shortlived", description="a test")
    assert made["project"] == "shortlived"
    assert "shortlived" in [item["project"] for item in (await get(http, "projects"))["items"]]
    assert (await get(http, "projects/shortlived"))["project"] == "shortlived"
    assert (await post(http, "projects/delete", project="shortlived")) == {"result": True}
    assert (await http.get("/v1/projects/shortlived")).status_code == 404


async def test_an_agent_registers_heartbeats_is_listed_and_deregisters(http: httpx.AsyncClient, project: str) -> None:
    agent = await post(
        http, "agents/register", project=project, name="coder", ttl="1m30s", job_types=["build"], labels=["gpu"]
    )
    assert (agent["ttl"], agent["job_types"], agent["labels"]) == ("PT90S", ["build"], ["gpu"])
    assert (await post(http, "agents/heartbeat", agent=agent["id"]))["result"] > agent["registered_at"]
    assert [item["id"] for item in (await get(http, "agents", project=project))["items"]] == [agent["id"]]
    assert await post(http, "agents/deregister", agent=agent["id"]) == {"result": True}
    assert (await http.post("/v1/agents/heartbeat", json={"agent": agent["id"]})).status_code == 404


async def test_an_agent_is_given_by_name_or_id(http: httpx.AsyncClient, project: str) -> None:
    agent = await post(http, "agents/register", project=project, name="coder-1", role="coder", ttl="1h")
    assert (await get(http, "agents/find", project=project, agent="coder-1"))["result"] == agent["id"]
    (grant,) = (await post(http, "locks/acquire", project=project, resources=["src/"], agent="coder-1"))["items"]
    (held,) = (await get(http, "locks", project=project, agent="coder-1"))["items"]
    assert held["agent_id"] == agent["id"]
    renewal = {"project": project, "resources": ["src/"], "agent": "coder-1", "tokens": [grant["fencing_token"]]}
    assert (await post(http, "locks/renew", **renewal))["items"]
    assert (await post(http, "agents/heartbeat", project=project, agent="coder-1"))["result"]
    sent = await post(http, "directives/send", project=project, body="x", to_role="codr")
    assert (sent["recipients"], sent["meant"]) == (0, "coder")
    for path, body in (("locks/renew", renewal), ("agents/heartbeat", {"project": project})):
        unknown = await http.post(f"/v1/{path}", json={**body, "agent": "coder-l"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "ZC202")
        assert unknown.json()["hint"].startswith('Did you mean "coder-1"?')
        assert (await http.post(f"/v1/{path}", json={**body, "agent": 7})).status_code == 422
    await post(http, "agents/deregister", project=project, agent="coder-1")
    (ended,) = (await get(http, "agents", project=project, ended="true"))["items"]
    assert (ended["id"], ended["end_reason"]) == (agent["id"], "deregistered")
    gone = await http.post("/v1/locks/renew", json=renewal)
    assert f'agent "coder-1" ({agent["id"]}) deregistered at' in gone.json()["detail"]


async def test_a_directive_is_sent_read_acknowledged_pending_and_revoked(http: httpx.AsyncClient, project: str) -> None:
    sent = await post(http, "directives/send", project=project, body="stop", to_agent="coder", priority=5)
    assert [
        item["body"] for item in (await get(http, "directives/inbox", project=project, agent="coder"))["items"]
    ] == ["stop"]
    assert [item["agent"] for item in (await get(http, "directives/pending", project=project))["items"]] == ["coder"]
    receipt = await post(http, "directives/acknowledge", project=project, directive=sent["id"], agent="coder")
    assert receipt["status"] == "done"
    other = await post(http, "directives/send", project=project, body="go", everyone=True)
    assert await post(http, "directives/revoke", project=project, directive=other["id"]) == {"result": True}
    listed = await get(http, "directives", project=project, open="false")
    assert [item["status"] for item in listed["items"]] == ["open", "revoked"]


async def test_a_rule_is_set_listed_and_deleted(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "rules/set", project=project, when_set="FAILED", clears=["PASSED"])
    assert "FAILED" in [item["when_set"] for item in (await get(http, "rules", project=project))["items"]]
    await post(http, "signals/set", project=project, key="t/PASSED", value=1)
    await post(http, "signals/set", project=project, key="t/FAILED", value=1)
    assert [item["key"] for item in (await get(http, "signals", project=project))["items"]] == ["t/FAILED"]
    assert await post(http, "rules/delete", project=project, when_set="FAILED") == {"result": True}


async def test_the_project_is_default_if_none_is_named(http: httpx.AsyncClient) -> None:
    assert (await post(http, "signals/set", key="of/nobody", value=1))["project"] == "default"
    assert (await get(http, "signals/of/nobody"))["project"] == "default"


@pytest.mark.parametrize(
    "key", ["plain", "a/b/c", "set", "set/x", "delete", "a//b", "/a", "a/", "ä ö/%2F", "a?b#c", "..", "%", "a%2Fb", "*"]
)
async def test_a_key_of_any_characters_can_be_read(http: httpx.AsyncClient, project: str, key: str) -> None:
    from urllib.parse import quote

    await post(http, "signals/set", project=project, key=key, value=key)
    for safe in ("", "/"):
        path = f"/v1/signals/{quote(key, safe=safe)}" if key != ".." else "/v1/signals/%2E%2E"
        answer = await http.get(path, params={"project": project})
        assert (answer.status_code, answer.json()["value"]) == (200, key)


async def test_a_json_value_is_returned_unchanged(http: httpx.AsyncClient, project: str) -> None:
    value = {"a": [1, 2.5, None, True, "ü\u2028\n"], "b": {}, "big": 12345678901234567890}
    await post(http, "signals/set", project=project, key="k", value=value)
    assert (await get(http, "signals/k", project=project))["value"] == value
    await post(http, "signals/set", project=project, key="k", value=None)
    assert (await get(http, "signals/k", project=project))["value"] is None


@pytest.mark.parametrize("ttl", [90, 90.0, "90", "90s", "1m30s", "PT90S", "PT1M30S"])
async def test_a_duration_is_accepted_in_every_form(http: httpx.AsyncClient, project: str, ttl: object) -> None:
    assert (await post(http, "agents/register", project=project, name="a", ttl=ttl))["ttl"] == "PT90S"


async def test_pages_cover_a_list_without_gaps_or_repetitions(http: httpx.AsyncClient, project: str) -> None:
    for number in range(7):
        await post(http, "signals/set", project=project, key=f"k{number}", value=number)
        await post(http, "directives/send", project=project, body=f"d{number}", everyone=True)
    for noun, field, letter in (("signals", "key", "k"), ("directives", "body", "d")):
        seen: list[str] = []
        cursor: str | None = None
        for _ in range(4):
            query = {"project": project, "limit": 2} | ({"after": cursor} if cursor else {})
            page = await get(http, noun, **query)
            seen += [item[field] for item in page["items"]]
            cursor = page["cursor"]
        assert cursor is None
        assert seen == [f"{letter}{number}" for number in range(7)]


@pytest.fixture(scope="session")
def populated(api_url: str) -> Known:
    """Make a project with one of everything; return what arguments need to know of it, by field."""

    async def make() -> Known:
        connection = await connect(api_url)
        try:
            await connection.execute("select coordinator.project_create('populated')")
            return await populate(connection, "populated")
        finally:
            await connection.close()

    return asyncio.run(make())


LISTS = [endpoint for endpoint in endpoints() if endpoint.pages]


@pytest.mark.parametrize("endpoint", LISTS, ids=lambda endpoint: endpoint.operation.function)
async def test_every_list_has_the_same_cursor_and_limit(
    http: httpx.AsyncClient, populated: Known, endpoint: Endpoint
) -> None:
    fields = {field.name: field.required for field in msgspec.structs.fields(endpoint.operation)}
    query = {
        name: value
        for name, value in populated.items()
        if fields.get(name) or (name in ("project", "words") and name in fields)
    }
    answer = await http.get(endpoint.path, params=query | {"limit": 1})
    assert set(answer.json()) == {"items", "cursor", "event_cursor"}
    for bad in ("x", "ä", "WyJub25lIl0"):
        refused = await http.get(endpoint.path, params=query | {"after": bad})
        assert (refused.status_code, refused.json()["code"], bool(refused.json()["hint"])) == (422, "ZC103", True)
    assert (await http.get(endpoint.path, params=query | {"cursor": "x"})).status_code == 422
    cursor = cursor_of(endpoint.operation, ["1"] * len(endpoint.operation.page_by))
    assert "repeated" in (await http.get(endpoint.path, params=query | {"after": [cursor, cursor]})).json()["detail"]
    described = (await http.get("/schema/openapi.json")).json()["paths"][endpoint.path]["get"]
    parameters = {parameter["name"]: parameter for parameter in described["parameters"]}
    assert "cursor" not in parameters
    assert parameters["after"]["schema"] == {"type": "string"}
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 10000} | (
        {
            "default": {"directive_inbox": 100, "memory_search": 20, "knowledge_search": 20}.get(
                endpoint.operation.function, 1000
            )
        }
    )
    shown = described["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown["properties"]["cursor"] == {"type": ["string", "null"]}


async def test_a_queue_is_set_read_listed_paused_and_resumed(http: httpx.AsyncClient, project: str) -> None:
    made = await post(http, "queues/set", project=project, queue="a/b", fair_by="key", ageing="1m", weights={"k": 3})
    assert (made["ageing"], made["weights"], made["fair_by"]) == ("PT60S", {"k": 3}, "key")
    assert await get(http, "queues/a/b", project=project) == made
    paused = await post(http, "queues/pause", project=project, queue="a/b", reason="Down")
    assert (await get(http, "queues", project=project))["items"] == [paused]
    assert (await post(http, "queues/resume", project=project, queue="a/b"))["paused_at"] is None
    assert (await http.get("/v1/queues/c", params={"project": project})).json()["code"] == "ZC210"


async def test_a_cursor_of_another_list_is_refused(http: httpx.AsyncClient, project: str) -> None:
    for number in range(2):
        await post(http, "signals/set", project=project, key=str(number), value=number)
    cursor = (await get(http, "signals", project=project, limit=1))["cursor"]
    assert [item["key"] for item in (await get(http, "signals", project=project, after=cursor))["items"]] == ["1"]
    refused = await http.get("/v1/directives", params={"project": project, "after": cursor})
    assert (refused.status_code, refused.json()["code"]) == (422, "ZC103")


async def test_a_snapshot_and_the_events_after_its_cursor_have_no_gap(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "signals/set", project=project, key="k", value=1)
    snapshot = await get(http, "signals", project=project)
    one = await http.get("/v1/signals/k", params={"project": project})
    for number in (2, 3):
        await post(http, "signals/set", project=project, key="k", value=number)
    for start in (snapshot["event_cursor"], one.headers["event-cursor"]):
        values: list[int] = []
        cursor = start
        while not values or values[-1] != 3:
            page = await get(http, "events", project=project, topic="signal.set", after=cursor, wait="20s")
            values += [event["data"]["value"] for event in page["items"]]
            cursor = page["cursor"]
        assert values[-2:] == [2, 3]


async def test_an_etag_is_a_version_for_compare_and_set(http: httpx.AsyncClient, project: str) -> None:
    body = {"project": project, "key": "k", "value": 1}
    made = await http.post("/v1/signals/set", json=body, headers={"If-None-Match": "*"})
    assert made.headers["etag"] == f'"{made.json()["version"]}"'
    again = await http.post("/v1/signals/set", json=body, headers={"If-None-Match": "*"})
    assert (again.status_code, again.json()["facts"]) == (412, {"version": made.json()["version"]})
    read = await http.get("/v1/signals/k", params={"project": project})
    assert read.headers["etag"] == made.headers["etag"]
    query = {"project": project}
    assert (
        await http.get("/v1/signals/k", params=query, headers={"If-None-Match": made.headers["etag"]})
    ).status_code == 304
    changed = await http.post("/v1/signals/set", json=body, headers={"If-Match": made.headers["etag"]})
    assert changed.status_code == 200
    assert (
        await http.post("/v1/signals/set", json=body, headers={"If-Match": made.headers["etag"]})
    ).status_code == 412
    expected = await http.post("/v1/signals/set", json={**body, "expect": made.json()["version"]})
    assert (expected.status_code, expected.json()["code"]) == (409, "ZC301")
    deleted = {"project": project, "key": "k"}
    assert (
        await http.post("/v1/signals/delete", json=deleted, headers={"If-Match": made.headers["etag"]})
    ).status_code == 412
    assert (
        await http.post("/v1/signals/delete", json=deleted, headers={"If-Match": changed.headers["etag"]})
    ).status_code == 200


def test_every_operation_has_its_own_path() -> None:
    found = [(endpoint.method, endpoint.path) for endpoint in endpoints()]
    assert len(found) == len(set(found))
    assert not [endpoint.name for endpoint in endpoints() if endpoint.operation.internal]
