"""Transactions over HTTP: one call, all or none, once for each Idempotency-Key."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from tests.api.test_problems import problem

SET = {"verb": "signal_set", "key": "k", "value": 1}


async def run(
    http: httpx.AsyncClient, project: str, *writes: Any, key: str | None = None, **fields: Any
) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"project": project, "writes": list(writes), **fields}
    return await http.post("/v1/transactions/run", json=body, headers=headers)


async def keys(http: httpx.AsyncClient, project: str) -> list[str]:
    return [signal["key"] for signal in (await http.get("/v1/signals", params={"project": project})).json()["items"]]


async def test_the_answer_has_the_result_of_each_write(http: httpx.AsyncClient, project: str) -> None:
    answer = await run(
        http,
        project,
        {**SET, "ttl": "1h30m"},
        {"verb": "event_emit", "type": "custom.x"},
        {"verb": "signal_delete", "key": "k"},
        conditions=[{"verb": "assert_signal", "key": "k", "version": 0}],
        actor="me",
    )
    assert answer.status_code == 200, answer.text
    first, second, third = answer.json()["items"]
    assert (first["write"], first["verb"], first["result"]["actor"]) == (0, "signal_set", "me")
    assert second == {"write": 1, "verb": "event_emit", "result": None}
    assert third == {"write": 2, "verb": "signal_delete", "result": first["result"]["version"]}


async def test_a_condition_that_fails_is_a_conflict_that_names_it(http: httpx.AsyncClient, project: str) -> None:
    version = (await run(http, project, SET)).json()["items"][0]["result"]["version"]
    answer = await run(
        http, project, {**SET, "key": "other"}, conditions=[{"verb": "assert_signal", "key": "k", "version": 0}]
    )
    found = problem(answer, 409, "conflict")
    assert (found["code"], found["facts"]) == ("ZC301", {"condition": 0, "version": version})
    assert await keys(http, project) == ["k"]


async def test_the_error_for_a_transaction_beyond_the_limit_of_bodies_names_the_setting(
    http: httpx.AsyncClient, project: str
) -> None:
    refused = problem(await run(http, project, {**SET, "value": "x" * 100_000}), 413, "too-large")
    assert "http_body_bytes" in refused["hint"]
    assert await keys(http, project) == []


async def test_an_idempotency_key_makes_a_repetition_harmless(http: httpx.AsyncClient, project: str) -> None:
    key = uuid4().hex
    absent = [{"verb": "assert_signal", "key": "k", "version": 0}]
    answers: list[httpx.Response] = []

    async def once() -> None:
        answers.append(await run(http, project, SET, key=key, conditions=absent))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(once)
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    other = await run(http, project, {**SET, "value": 2}, key=key)
    assert problem(other, 409, "conflict")["code"] == "ZC305"
    problem(await run(http, project, SET, conditions=absent), 409, "conflict")


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown verb": ({"writes": [SET, {"verb": "signal_sett"}]}, 'Did you mean "signal_set"?'),
    "no verb": ({"writes": [SET, {}]}, "Use one of"),
    "a verb that is an object": ({"writes": [SET, {"verb": {"a": 1}}]}, "Use one of"),
    "an unknown field": ({"writes": [SET, {**SET, "valu": 1}]}, 'Did you mean "value"?'),
    "a missing field": ({"writes": [SET, {"verb": "signal_set"}]}, "signal_set has the fields key"),
    "another project": ({"writes": [SET, {**SET, "project": "default"}]}, "All parts are in the project"),
    "a number as text": ({"writes": [SET, {**SET, "expect": "1"}]}, "signal_set has the fields"),
    "a malformed duration": ({"writes": [SET, {**SET, "ttl": "soon"}]}, "signal_set has the fields"),
    "a transaction": ({"writes": [SET, {"verb": "transaction_run", "writes": [SET]}]}, "Use one of"),
    "a write as a condition": (
        {"writes": [SET], "conditions": [SET]},
        "Use one of assert_document, assert_fence, assert_job",
    ),
    "nothing": ({"writes": []}, "at least one write"),
    "no object": ({"writes": [1]}, "/schema"),
    "no list": ({"writes": SET}, "/schema"),
    "too many parts": ({"writes": [SET] * 101}, "Split it"),
    "nul": ({"writes": [{**SET, "value": "\0"}]}, ""),
    "a fault in a value": ({"writes": [SET, {**SET, "key": "a\n"}]}, "control characters"),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_transaction_is_refused_with_a_hint(http: httpx.AsyncClient, project: str, what: str) -> None:
    body, hint = MALFORMED[what]
    answer = await http.post("/v1/transactions/run", json={"project": project, **body})
    found = problem(answer, 422, "invalid-argument")
    assert hint in found["hint"]
    assert await keys(http, project) == []


async def test_the_description_shows_how_to_write_a_part(http: httpx.AsyncClient) -> None:
    document = (await http.get("/schema/openapi.json")).json()
    operation = document["paths"]["/v1/transactions/run"]["post"]
    assert '{"verb": "signal_set"' in operation["description"]
