"""Positions over HTTP: each write has one, and a read with ``at_least`` waits until it includes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import httpx
import pytest

from tests.api.conftest import CONSTANTS, LIMITS
from tests.api.sse import stream
from tests.api.test_problems import problem
from tests.api.test_waiting import waiting
from tests.daemon import Daemon
from tests.http_client import http_client

SET = "select coordinator.signal_set($1, 'k', to_jsonb($2::integer))"


@pytest.fixture(scope="module")
def patient(api_url: str) -> Iterator[Daemon]:
    """A daemon whose waits only an event can end."""
    names = ("AT_LEAST_S", "LOOK_S")
    with Daemon(
        api_url, constants=CONSTANTS | {f"coordinator.api.calls.{name}": 3600 for name in names}, **LIMITS
    ) as process:
        asyncio.run(process.ready())
        yield process


@pytest.fixture(scope="module")
def hasty(api_url: str) -> Iterator[Daemon]:
    """A daemon that waits for a fifth of a second."""
    with Daemon(api_url, constants={"coordinator.api.calls.AT_LEAST_S": 0.2}) as process:
        asyncio.run(process.ready())
        yield process


async def write(http: httpx.AsyncClient, project: str, value: int, **headers: str) -> httpx.Response:
    body = {"project": project, "key": "k", "value": value}
    answer = await http.post("/v1/signals/set", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("path", ["signals/k?", "signals?", "events?key=k&", "events?key=k&wait=1m&"])
async def test_a_read_waits_until_it_includes_a_position(
    path: str, project: str, patient: Daemon, api_url: str
) -> None:
    writer = await asyncpg.connect(api_url)
    try:
        async with http_client(patient.url) as http, asyncio.TaskGroup() as tasks:
            async with writer.transaction():
                await writer.execute(SET, project, 7)
                position = await writer.fetchval("select coordinator.position_now()")
                read = tasks.create_task(http.get(f"/v1/{path}project={project}&at_least={position}"))
                await waiting(patient, 1)
                assert not read.done()
            answer = await read
        assert answer.status_code == 200, answer.text
        found = answer.json()
        last = found["items"][-1] if "items" in found else found
        assert last.get("data", last)["value"] == 7
    finally:
        await writer.close()


async def test_a_stream_is_ready_when_it_includes_a_position(http: httpx.AsyncClient, project: str) -> None:
    for value in range(5):
        position = (await write(http, project, value)).headers["position"]
        async with stream(http, project=project, at_least=position) as frames:
            cursor = (await frames.next()).data["cursor"]
        after = await http.get("/v1/events", params={"project": project, "after": cursor})
        assert after.json()["items"] == []


async def test_a_stream_that_is_resumed_waits_for_no_position(http: httpx.AsyncClient, project: str) -> None:
    """A browser that reconnects repeats the query, perhaps when the position is of an epoch that is forgotten."""
    cursor = (await http.get("/v1/events/head")).json()["result"]
    query = {"project": project, "at_least": "forgotten.x7"}
    async with stream(http, headers={"last-event-id": cursor}, **query) as frames:
        assert (await frames.next()).event == "ready"
    answer = await http.get("/v1/events/stream", params=query)
    assert problem(answer, 409, "conflict")["code"] == "ZC317"


async def test_each_write_has_a_position_and_nothing_else_has(http: httpx.AsyncClient, project: str) -> None:
    positions = {(await write(http, project, value)).headers["position"] for value in (1, 1, 2)}
    assert len(positions) == 3
    assert "position" not in (await http.get(f"/v1/signals/k?project={project}")).headers
    body = {"project": project, "key": "k", "value": 1, "expect": 7}
    refused = await http.post("/v1/signals/set", json=body)
    assert (refused.status_code, "position" in refused.headers) == (409, False)


async def test_a_repeated_request_has_the_position_of_the_first(http: httpx.AsyncClient, project: str) -> None:
    key = {"Idempotency-Key": "k"}
    first = await write(http, project, 1, **key)
    await write(http, project, 2)
    again = await write(http, project, 1, **key)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["position"] == first.headers["position"]


async def test_several_positions_are_all_included(http: httpx.AsyncClient, project: str) -> None:
    positions = [(await write(http, project, value)).headers["position"] for value in range(3)]
    for query in ([("at_least", position) for position in positions], [("at_least", ",".join(positions))]):
        answer = await http.get("/v1/events", params=[("project", project), ("topic", "signal.*"), *query])
        assert [event["data"]["value"] for event in answer.json()["items"]] == [0, 1, 2]


@pytest.mark.slow
async def test_a_wait_for_a_position_has_an_end(http: httpx.AsyncClient, project: str, hasty: Daemon) -> None:
    epoch = (await write(http, project, 1)).headers["position"].partition(".")[0]
    async with http_client(hasty.url) as client:
        for path in ("signals", "signals/k", "events", "events/stream", "status"):
            answer = await client.get(f"/v1/{path}?project={project}&at_least={epoch}.x999999999999")
            assert problem(answer, 408, "wait-timed-out")["code"] == "ZC402"
            answer = await client.get(f"/v1/{path}?project={project}&at_least={epoch}.y")
            assert problem(answer, 422, "invalid-argument")["code"] == "ZC103"
