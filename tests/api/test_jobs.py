"""Jobs over HTTP: durable before the response, once for each idempotency key, and many in one body of their own limit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import httpx
import pytest

from coordinator.model.catalogue import LIMITS
from tests.api.sse import Frame, Frames
from tests.api.test_operations import post
from tests.api.test_problems import problem
from tests.waiting import DEADLINE_S


async def test_a_job_is_a_durable_row_with_a_uuid_before_the_response(
    http: httpx.AsyncClient, project: str, api_url: str
) -> None:
    made = await post(http, "jobs/enqueue", project=project, type="summarize", payload={"page": 7}, key="acme")
    assert (made["status"], made["created"]) == ("queued", True)
    connection = await asyncpg.connect(api_url)
    row = await connection.fetchrow("select * from coordinator.jobs_open where id = $1", UUID(made["id"]))
    await connection.close()
    assert row is not None
    assert (row["type"], json.loads(row["payload"]), row["key"]) == ("summarize", {"page": 7}, "acme")


async def test_a_job_without_a_payload_has_an_empty_one(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "agents/register", project=project, name="w", job_types=["x"], ttl="1h")
    for body in ({}, {"payload": None}, {"payload": [1, None]}):
        await post(http, "jobs/enqueue", project=project, type="x", **body)
    claimed = await post(http, "jobs/claim", project=project, agent="w", limit=3)
    assert [grant["payload"] for grant in claimed["items"]] == [{}, None, [1, None]]


async def test_a_job_goes_from_enqueue_to_its_end(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "agents/register", project=project, name="w", job_types=["x"], labels=["gpu"], ttl="1h")
    made = await post(http, "jobs/enqueue", project=project, type="x", labels=["gpu"], deadline="10m", backoff="1s")
    (grant,) = (await post(http, "jobs/claim", project=project, agent="w"))["items"]
    assert (grant["id"], grant["attempt"], grant["stale"]) == (made["id"], 1, False)
    own = {"project": project, "agent": "w", "job": grant["id"], "fence": grant["fence"]}
    assert (await post(http, "jobs/progress", **own, percent=50, checkpoint={"page": 3}))["cancel_at"] is None
    assert (await post(http, "jobs/release", **own))["status"] == "queued"
    stale = problem(await http.post("/v1/jobs/complete", json=own), 409, "conflict")
    assert (stale["code"], stale["facts"]["status"]) == ("ZC320", "queued")
    (again,) = (await post(http, "jobs/claim", project=project, agent="w"))["items"]
    assert (again["attempt"], again["checkpoint"]) == (1, {"page": 3})
    own["fence"] = again["fence"]
    assert (await post(http, "jobs/snooze", **own, delay="1h"))["status"] == "scheduled"
    assert (await post(http, "jobs/cancel", project=project, job=made["id"]))["status"] == "cancelled"
    assert problem(await http.post("/v1/jobs/cancel", json={"project": project, "job": made["id"]}), 409, "conflict")


async def test_a_claim_finishes_jobs_and_says_which_were_lost(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "agents/register", project=project, name="w", job_types=["x"], ttl="1h")
    await post(http, "jobs/enqueue_many", project=project, jobs=[{"type": "x"}] * 3)
    first, second = (await post(http, "jobs/claim", project=project, agent="w", limit=2))["items"]
    finished = {"finished": [first["id"], second["id"]], "fences": [first["fence"], second["fence"] + 1000]}
    answer = await post(http, "jobs/claim", project=project, agent="w", **finished, results=[{"n": 1}, None])
    stale, fresh = answer["items"]
    assert (stale["id"], stale["stale"]) == (second["id"], True)
    assert (fresh["stale"], fresh["attempt"]) == (False, 1)


async def test_a_claim_waits_until_a_job_is_enqueued_or_its_queue_resumed(
    http: httpx.AsyncClient, project: str
) -> None:
    await post(http, "agents/register", project=project, name="w", job_types=["x"], ttl="1h")
    await post(http, "queues/set", project=project, queue="q")
    await post(http, "queues/pause", project=project, queue="q")
    claimed: list[str] = []

    async def claim() -> None:
        answer = await http.post(f"/v1/jobs/claim?wait={DEADLINE_S:g}s", json={"project": project, "agent": "w"})
        claimed.extend(grant["id"] for grant in answer.json()["items"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(claim)
        made = await post(http, "jobs/enqueue", project=project, type="x")
    assert claimed == [made["id"]]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(claim)
        paused = await post(http, "jobs/enqueue", project=project, type="x", queue="q")
        await post(http, "queues/resume", project=project, queue="q")
    assert claimed == [made["id"], paused["id"]]
    only_finish = await http.post("/v1/jobs/claim?wait=60s", json={"project": project, "agent": "w", "limit": 0})
    assert only_finish.json()["items"] == []


async def test_an_idempotency_key_enqueues_once(http: httpx.AsyncClient, project: str) -> None:
    for path, body in (("enqueue", {"type": "x"}), ("enqueue_many", {"jobs": [{"type": "x"}, {"type": "y"}]})):
        sent: dict[str, Any] = {"json": {"project": project, **body}, "headers": {"Idempotency-Key": path}}
        first = await http.post(f"/v1/jobs/{path}", **sent)
        again = await http.post(f"/v1/jobs/{path}", **sent)
        assert (first.status_code, again.content) == (200, first.content)
        assert again.headers["idempotency-replayed"] == "true"
    queue = await http.get("/v1/queues/default", params={"project": project})
    assert queue.json()["queued_count"] == 3


async def test_durations_of_many_jobs_are_written_as_everywhere(http: httpx.AsyncClient, project: str) -> None:
    delays = ["90", 90, "1m30s", "PT90S", "90s"]
    jobs = [{"type": "x", "delay": delay} for delay in delays]
    made = (await post(http, "jobs/enqueue_many", project=project, jobs=jobs))["items"]
    assert len({job["scheduled_at"] for job in made}) == 1
    assert {job["status"] for job in made} == {"scheduled"}


@pytest.mark.parametrize(
    ("jobs", "code"),
    [
        ([{"type": "a"}, {"type": ""}], "ZC101"),
        ([{"type": "a"}, 7], "ZC103"),
        ([{"type": "a"}, {"typ": "b"}], "ZC105"),
        ([{"type": "a"}, {"type": "b", "delay": "soon"}], "22007"),
        ([{"type": "a"}, {"type": "b", "payload": "x" * LIMITS["json"]}], "ZC102"),
    ],
    ids=str,
)
async def test_an_error_names_the_place_of_the_job(
    http: httpx.AsyncClient, project: str, jobs: list[Any], code: str
) -> None:
    answer = await http.post("/v1/jobs/enqueue_many", json={"project": project, "jobs": jobs})
    refused = problem(answer, 422, "invalid-argument")
    assert (refused["code"], refused["facts"]) == (code, {"job": 1})
    assert (await http.get("/v1/queues", params={"project": project})).json()["items"] == []


async def test_the_limit_of_the_body_is_that_of_the_batch(http: httpx.AsyncClient, project: str) -> None:
    job = {"type": "x", "payload": "x" * (LIMITS["json"] - 2)}
    count = LIMITS["job_batch_bytes"] // (LIMITS["json"] + 60)
    answer = await http.post("/v1/jobs/enqueue_many", json={"project": project, "jobs": [job] * count})
    assert answer.status_code == 200, answer.text
    large = await http.post("/v1/jobs/enqueue_many", json={"project": project, "jobs": [job] * (count + 1)})
    assert "job_batch_bytes" in problem(large, 413, "too-large")["hint"]
    many = [{"type": "x"}] * (LIMITS["job_batch"] + 1)
    refused = await http.post("/v1/jobs/enqueue_many", json={"project": project, "jobs": many})
    assert problem(refused, 422, "invalid-argument")["code"] == "ZC102"


@asynccontextmanager
async def output_stream(http: httpx.AsyncClient, resume: str | None = None, **query: Any) -> AsyncIterator[Frames]:
    headers = {"accept": "text/event-stream"} | ({} if resume is None else {"last-event-id": resume})
    async with http.stream("GET", "/v1/jobs/output", params=query, headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
        yield Frames(response)


async def chunks_of(frames: Frames, count: int) -> list[Frame]:
    found: list[Frame] = []
    while len(found) < count:
        frame = await frames.next()
        assert frame is not None, "the stream ended"
        if frame.data is not None:
            found.append(frame)
    return found


async def test_output_is_streamed_as_it_grows_and_resumes_after_a_chunk(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "agents/register", project=project, name="w", job_types=["x"], ttl="1h")
    await post(http, "jobs/enqueue", project=project, type="x")
    (grant,) = (await post(http, "jobs/claim", project=project, agent="w"))["items"]
    own = {"project": project, "agent": "w", "job": grant["id"], "fence": grant["fence"]}
    query = {"project": project, "job": grant["id"]}
    await post(http, "jobs/write", **own, chunks=["a", {"b": "\n"}])
    async with output_stream(http, **query) as frames:
        assert frames.response.headers["content-type"].startswith("text/event-stream")
        first = await chunks_of(frames, 2)
        assert [frame.data["chunk"] for frame in first] == ["a", {"b": "\n"}]
        await post(http, "jobs/write", **own, chunks=["c"])
        (third,) = await chunks_of(frames, 1)
        assert (third.data["seq"], third.data["chunk"]) == (3, "c")
    async with output_stream(http, first[0].id, **query) as frames:
        assert [frame.data["seq"] for frame in await chunks_of(frames, 2)] == [2, 3]
        await post(http, "jobs/complete", **own)
        (last,) = await chunks_of(frames, 1)
        assert (last.data["status"], last.id) == ("completed", "end")
        (bye,) = await frames.until("bye")
        assert bye.data == {"reason": "ended: nothing follows"}
        assert await frames.next() is None
    async with output_stream(http, "end", **query) as frames:
        assert frames.response.status_code == 204, "a browser does not return"
    async with output_stream(http, third.id, **query) as frames:
        assert [frame.data["seq"] for frame in await chunks_of(frames, 1)] == [4]
    page = (await http.get("/v1/jobs/output", params={**query, "limit": 1})).json()
    async with output_stream(http, **query, after=page["cursor"]) as frames:
        assert [frame.data["seq"] for frame in await chunks_of(frames, 3)] == [2, 3, 4]


async def test_a_stream_of_output_that_cannot_begin_is_a_problem(http: httpx.AsyncClient, project: str) -> None:
    query = {"project": project, "job": "00000000-0000-7000-8000-000000000000"}
    async with output_stream(http, **query) as frames:
        assert problem(frames.response, 404, "not-found")["code"] == "ZC209"
    async with output_stream(http, "1.2", **query) as frames:
        assert problem(frames.response, 422, "invalid-argument")["code"] == "ZC103"


async def test_a_log_is_streamed_before_it_exists_and_as_it_grows(http: httpx.AsyncClient, project: str) -> None:
    query = {"project": project, "kind": "run", "key": "r"}
    async with http.stream("GET", "/v1/logs/read", params=query, headers={"accept": "text/event-stream"}) as response:
        frames = Frames(response)
        for number in (1, 2):
            await post(http, "logs/append", **query, entries=[{"data": number}])
            (frame,) = await chunks_of(frames, 1)
            assert frame.data["seq"] == number


async def test_output_is_followed_by_the_cursor_of_each_answer(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "agents/register", project=project, name="w", job_types=["x"], ttl="1h")
    await post(http, "jobs/enqueue", project=project, type="x")
    (grant,) = (await post(http, "jobs/claim", project=project, agent="w"))["items"]
    own = {"project": project, "agent": "w", "job": grant["id"], "fence": grant["fence"]}
    query: dict[str, Any] = {"project": project, "job": grant["id"]}
    read: list[Any] = []
    for chunks in (["a", "b"], ["c"]):
        await post(http, "jobs/write", **own, chunks=chunks)
        page = (await http.get("/v1/jobs/output", params={**query, "wait": "1m"})).json()
        read += [item["chunk"] for item in page["items"]]
        query["after"] = page["cursor"]
    assert read == ["a", "b", "c"]
    await post(http, "jobs/complete", **own)
    (last,) = (await http.get("/v1/jobs/output", params={**query, "wait": "1m"})).json()["items"]
    assert (last["seq"], last["status"]) == (4, "completed")
    whole = (await http.get("/v1/jobs/output", params={"project": project, "job": grant["id"]})).json()
    assert (len(whole["items"]), whole["cursor"]) == (4, None), "nothing follows a page that did not wait"
