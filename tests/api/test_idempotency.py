"""Idempotency-Key: a change and the record of its response are one transaction."""

from __future__ import annotations

from uuid import uuid4

import anyio
import asyncpg
import httpx

from tests.api.test_problems import problem


async def send(http: httpx.AsyncClient, project: str, key: str, body: str = "go") -> httpx.Response:
    return await http.post(
        "/v1/directives/send",
        json={"project": project, "body": body, "everyone": True},
        headers={"Idempotency-Key": key},
    )


async def sent(http: httpx.AsyncClient, project: str) -> int:
    return len((await http.get("/v1/directives", params={"project": project})).json()["items"])


async def test_a_repeated_request_is_done_once_and_gets_the_same_response(
    http: httpx.AsyncClient, project: str
) -> None:
    first, again = await send(http, project, "k"), await send(http, project, "k")
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert await sent(http, project) == 1


async def test_a_key_belongs_to_one_request(http: httpx.AsyncClient, project: str) -> None:
    await send(http, project, "k")
    assert problem(await send(http, project, "k", "other"), 409, "conflict")["code"] == "ZC305"
    other = await http.post("/v1/projects/create", json={"project": project}, headers={"Idempotency-Key": "k"})
    assert other.json()["code"] == "ZC305"
    assert await sent(http, project) == 1


async def test_a_failed_request_is_not_recorded(http: httpx.AsyncClient, project: str) -> None:
    body = {"project": project, "key": "k", "value": 1}
    headers = {"Idempotency-Key": "k", "If-Match": '"1"'}
    assert (await http.post("/v1/signals/set", json=body, headers=headers)).status_code == 412
    done = await http.post("/v1/signals/set", json=body, headers={"Idempotency-Key": "k"})
    assert (done.status_code, "idempotency-replayed" in done.headers) == (200, False)
    again = await http.post("/v1/signals/set", json=body, headers={"Idempotency-Key": "k"})
    assert (again.headers["etag"], again.headers["idempotency-replayed"]) == (done.headers["etag"], "true")


async def test_concurrent_requests_with_one_key_are_done_once(http: httpx.AsyncClient, project: str) -> None:
    key = uuid4().hex
    answers: list[httpx.Response] = []

    async def one() -> None:
        answers.append(await send(http, project, key))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert await sent(http, project) == 1


async def test_a_key_can_be_used_again_after_it_expires(http: httpx.AsyncClient, project: str, api_url: str) -> None:
    await send(http, project, "k")
    connection = await asyncpg.connect(api_url)
    try:
        await connection.execute(
            "update coordinator.idempotency_keys set expires_at = now() - interval '1 s' where project = $1", project
        )
    finally:
        await connection.close()
    assert (await send(http, project, "k", "other")).status_code == 200
    assert await sent(http, project) == 2


async def test_a_key_that_is_too_long_is_refused(http: httpx.AsyncClient, project: str) -> None:
    problem(await send(http, project, "k" * 201), 422, "invalid-argument")
    assert await sent(http, project) == 0


async def test_a_repeated_pop_returns_exactly_the_same_entries(http: httpx.AsyncClient, project: str) -> None:
    log = f'"project": "{project}", "kind": "note", "key": "k"'
    exact = '{"b":  1e16, "a": "\\u0000 \\ud800"}'
    headers = {"Content-Type": "application/json"}
    append = f'{{{log}, "entries": [{{"data": {exact}}}, {{"data": {exact}}}]}}'
    for _ in range(2):
        done = await http.post("/v1/logs/append", content=append, headers={**headers, "Idempotency-Key": "append"})
        assert (done.status_code, done.json()["last_seq"]) == (200, 2)
    popped = [
        await http.post("/v1/logs/pop", content=f"{{{log}}}", headers={**headers, "Idempotency-Key": "pop"})
        for _ in range(2)
    ]
    assert popped[0].content == popped[1].content
    assert f'"data":{exact}'.encode() in popped[0].content
