"""Long-polls: answered at the event, at the deadline, or never to a client that has gone.

The daemon of these tests does not look without an event: see `CONSTANTS`.
"""

from __future__ import annotations

import anyio
import httpx

from coordinator.operations import locks
from tests.api.sse import emit
from tests.api.test_operations import post
from tests.daemon import Daemon
from tests.waiting import until

CONNECTIONS = "coordinator_stream_connections"


async def waiting(daemon: Daemon, count: int) -> None:
    async def look() -> bool:
        return await daemon.metric(CONNECTIONS) == count

    await until(look, f"{count} long-polls wait")


async def test_a_wait_for_an_inbox_ends_when_a_directive_arrives(
    http: httpx.AsyncClient, project: str, daemon: Daemon
) -> None:
    answers: list[httpx.Response] = []
    await post(http, "agents/register", project=project, name="coder")

    async def wait() -> None:
        query = {"project": project, "agent": "coder", "wait": "10m"}
        answers.append(await http.get("/v1/directives/inbox", params=query))

    await waiting(daemon, 0)  # those before have ended
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await waiting(daemon, 1)
        await post(http, "directives/send", project=project, body="not yours", to_agent="other")
        await post(http, "directives/send", project=project, body="stop", to_agent="coder")
    assert [item["body"] for item in answers[0].json()["items"]] == ["stop"]


async def test_a_wait_for_an_inbox_with_directives_ends_at_once(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "agents/register", project=project, name="a")
    await post(http, "directives/send", project=project, body="stop", everyone=True)
    answer = await http.get("/v1/directives/inbox", params={"project": project, "agent": "a", "wait": "10m"})
    assert len(answer.json()["items"]) == 1


async def test_a_wait_ends_at_its_deadline_with_an_empty_result(http: httpx.AsyncClient, project: str) -> None:
    await post(http, "agents/register", project=project, name="a")
    for path in ("/v1/directives/inbox?agent=a&", "/v1/events?after=now&"):
        answer = await http.get(f"{path}project={project}&wait=0.3s")
        assert (answer.status_code, answer.json()["items"]) == (200, [])


async def test_a_wait_ends_when_its_client_disconnects(http: httpx.AsyncClient, project: str, daemon: Daemon) -> None:
    await post(http, "agents/register", project=project, name="coder")
    query = {"project": project, "agent": "coder", "wait": "10m"}
    with anyio.move_on_after(60):
        await waiting(daemon, 0)  # those before have ended
        async with anyio.create_task_group() as tasks:
            for path in ("/v1/directives/inbox", "/v1/events?after=now"):
                parameters = query if "inbox" in path else {"after": "now", "wait": "10m"}
                tasks.start_soon(lambda p=path, q=parameters: http.get(p.partition("?")[0], params=q))
            await waiting(daemon, 2)
            tasks.cancel_scope.cancel()
    await waiting(daemon, 0)
    assert "request.failed" not in daemon.events()


async def test_a_long_poll_for_events_returns_those_that_match_its_filter(
    http: httpx.AsyncClient, project: str, daemon: Daemon
) -> None:
    answers: list[httpx.Response] = []
    head = (await http.get("/v1/events/head")).json()["result"]  # "now" may come later than the metric shows

    async def wait() -> None:
        query = {"project": project, "topic": "custom.b", "exclude_self": "me", "after": head, "wait": "10m"}
        answers.append(await http.get("/v1/events", params=query))

    await waiting(daemon, 0)  # those before have ended
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await waiting(daemon, 1)
        await emit(http, project, "1", type="custom.a")
        await emit(http, project, "2", type="custom.b", actor="me")
        await emit(http, project, "3", type="custom.b", actor="you")
    assert [event["key"] for event in answers[0].json()["items"]] == ["3"]
    after = await http.get("/v1/events", params={"project": project, "after": answers[0].json()["cursor"]})
    assert after.json()["items"] == []


async def test_a_wait_for_a_lock_ends_when_it_is_granted(http: httpx.AsyncClient, project: str, daemon: Daemon) -> None:
    first = (await post(http, "agents/register", project=project, name="a"))["id"]
    second = (await post(http, "agents/register", project=project, name="b"))["id"]
    held = await post(http, "locks/acquire", project=project, resources=["name:deploy"], agent=first)
    token = held["items"][0]["fencing_token"]
    queued = await post(http, "locks/acquire", project=project, resources=["name:deploy"], agent=second, wait="1m")
    answers: list[httpx.Response] = []

    async def poll() -> None:
        body = {"project": project, "ticket": queued["items"][0]["ticket"], "agent": second}
        answers.append(await http.post("/v1/locks/poll", params={"wait": "10m"}, json=body))

    await waiting(daemon, 0)  # those before have ended
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poll)
        await waiting(daemon, 1)
        await post(http, "locks/release", project=project, resources=["name:deploy"], agent=first, tokens=[token])
    (grant,) = answers[0].json()["items"]
    assert grant["granted"]
    assert grant["fencing_token"] > token


async def test_a_wait_for_a_job_ends_when_it_has_ended(http: httpx.AsyncClient, project: str, daemon: Daemon) -> None:
    answers: list[httpx.Response] = []
    worker = await post(http, "agents/register", project=project, name="w1", job_types=["t"])
    job, other = [await post(http, "jobs/enqueue", project=project, type="t") for _ in range(2)]
    grants = await post(http, "jobs/claim", project=project, agent=worker["id"], limit=2)

    async def wait() -> None:
        answers.append(await http.get("/v1/jobs/show", params={"project": project, "job": job["id"], "wait": "10m"}))

    await waiting(daemon, 0)  # those before have ended
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await waiting(daemon, 1)
        for one in (other, job):
            (fence,) = [grant["fence"] for grant in grants["items"] if grant["id"] == one["id"]]
            named = {"project": project, "agent": worker["id"], "job": one["id"], "fence": fence}
            await post(http, "jobs/complete", **named, result={"of": one["id"]})
    assert (answers[0].json()["status"], answers[0].json()["result"]) == ("completed", {"of": job["id"]})
    assert (await http.get("/v1/jobs", params={"project": project, "payload": '{"n": 1}'})).json()["items"] == []
    refused = await http.get("/v1/jobs", params={"project": project, "payload": "{"})
    assert (refused.status_code, "not JSON" in refused.json()["detail"]) == (422, True)


async def test_a_log_is_followed_by_waiting_after_the_last_cursor(
    http: httpx.AsyncClient, project: str, daemon: Daemon
) -> None:
    log = {"project": project, "kind": "note", "key": "k"}
    await post(http, "logs/append", **log, entries=[{"data": 1}])
    page = (await http.get("/v1/logs/read", params={**log, "limit": 1})).json()
    answers: list[httpx.Response] = []

    async def wait() -> None:
        answers.append(await http.get("/v1/logs/read", params={**log, "after": page["cursor"], "wait": "10m"}))

    await waiting(daemon, 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await waiting(daemon, 1)
        await post(http, "logs/append", **{**log, "key": "other"}, entries=[{"data": "not this"}])
        await post(http, "logs/append", **log, entries=[{"data": 2}, {"data": 3}])
    assert [item["data"] for item in answers[0].json()["items"]] == [2, 3]
    epoch = answers[0].json()["items"][0]["epoch"]
    await post(http, "logs/append", **log, entries=[{"data": 4}])
    stale = await http.post(
        "/v1/logs/append", json={**log, "entries": [{"data": 5}]}, headers={"If-Match": f'"{epoch}.3"'}
    )
    assert stale.status_code == 412
    assert (await http.get("/v1/logs/read", params={**log, "at": "2020-01-01T00:00:00Z"})).json()["items"] == []


async def test_a_wait_for_a_log_that_does_not_exist_ends_with_its_first_entries(
    http: httpx.AsyncClient, project: str, daemon: Daemon
) -> None:
    query = {"project": project, "kind": "note", "key": "later"}
    missing = await http.get("/v1/logs/read", params={**query, "wait": "0.1s"})
    assert (missing.status_code, missing.json()["code"]) == (404, "ZC216")
    answers: list[httpx.Response] = []

    async def wait() -> None:
        answers.append(await http.get("/v1/logs/read", params={**query, "wait": "10m"}))

    await waiting(daemon, 0)  # those before have ended
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await waiting(daemon, 1)
        for key in ("other", "later"):
            await post(http, "logs/append", project=project, kind="note", key=key, entries=[{"data": 1}, {"data": 2}])
    assert [item["seq"] for item in answers[0].json()["items"]] == [1, 2]
    gone = {**query, "after": answers[0].json()["cursor"] or "WyJsb2dfcmVhZCIsIiIsIjIiXQ", "wait": "10m"}
    await post(http, "logs/delete", project=project, kind="note", key="later")
    assert (
        await http.get("/v1/logs/read", params=gone)
    ).status_code == 404  # a reader that has read it learns this at once


def test_a_ticket_is_asked_for_more_often_than_its_lock_waits_to_be_claimed() -> None:
    """Where every event is lost, the wait is only slower."""
    assert locks.Poll.look_s * 3 < 10
