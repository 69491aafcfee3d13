"""Streams and long-polls of chosen keys and actors, live and while they catch up."""

from __future__ import annotations

import anyio
import httpx
import pytest

from tests.api.sse import emit, stream
from tests.api.test_problems import problem
from tests.api.test_waiting import waiting
from tests.daemon import Daemon


async def test_a_stream_is_filtered_by_key_and_actor_live_and_behind(http: httpx.AsyncClient, project: str) -> None:
    async with (
        stream(http, project=project, key=["task/7/*", "*/DONE"], topic="custom.*") as keyed,
        stream(http, project=project, actor=["me", "you"], topic="custom.*") as acted,
        stream(http, project=project, actor="me", key="task/*", topic="custom.*", exclude_self="you") as both,
    ):
        for frames in (keyed, acted, both):
            await frames.until("ready")
        await emit(http, project, "task/7/STARTED", "task/8/STARTED", "task/8/DONE", actor="me")
        await emit(http, project, "task/7/FAILED", "other", actor="you")
        await emit(http, project, "task/7/LAST", "x/DONE", actor="nobody")
        await emit(http, project, "task/8/LAST", actor="me")
        expected = ["task/7/STARTED", "task/8/DONE", "task/7/FAILED", "task/7/LAST", "x/DONE"]
        assert [frame.data["key"] for frame in await keyed.events(5)] == expected
        expected = ["task/7/STARTED", "task/8/STARTED", "task/8/DONE", "task/7/FAILED", "other", "task/8/LAST"]
        assert [frame.data["key"] for frame in await acted.events(6)] == expected
        expected = ["task/7/STARTED", "task/8/STARTED", "task/8/DONE", "task/8/LAST"]
        assert [frame.data["key"] for frame in await both.events(4)] == expected
    async with stream(http, project=project, key="task/8/*", actor="me", topic="custom.*", after="start") as late:
        expected = ["task/8/STARTED", "task/8/DONE", "task/8/LAST"]
        assert [frame.data["key"] for frame in await late.events(3)] == expected


async def test_a_long_poll_waits_for_a_key_and_an_actor(http: httpx.AsyncClient, project: str, daemon: Daemon) -> None:
    answers: list[httpx.Response] = []
    head = (await http.get("/v1/events/head")).json()["result"]  # "now" may come later than the metric shows

    async def wait() -> None:
        query = {"project": project, "key": "task/*", "actor": "me", "after": head, "wait": "10m"}
        answers.append(await http.get("/v1/events", params=query))

    await waiting(daemon, 0)  # those before have ended
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await waiting(daemon, 1)
        await emit(http, project, "other", actor="me")
        await emit(http, project, "task/1", actor="you")
        await emit(http, project, "task/2", actor="me")
    assert [event["key"] for event in answers[0].json()["items"]] == ["task/2"]
    page = await http.get("/v1/events", params={"project": project, "key": ["task/1", "oth*"]})
    assert [event["key"] for event in page.json()["items"]] == ["other", "task/1"]


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/stream"])
@pytest.mark.parametrize("query", [{"key": ""}, {"key": "x" * 513}, {"key": ["a"] * 101}, {"actor": ["a"] * 101}])
async def test_a_malformed_filter_is_refused(http: httpx.AsyncClient, path: str, query: dict[str, str]) -> None:
    problem(await http.get(path, params=query), 422, "invalid-argument")
