"""``/mcp`` of a daemon, through the SDK's own client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from unittest import mock

import anyio
import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from coordinator.api.access import Access
from coordinator.api.gateway import Gateway
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.mcp.mount import Mount
from coordinator.model.token import new_secret
from coordinator.operations import tokens
from tests.daemon import Daemon
from tests.http_client import http_client
from tests.waiting import DEADLINE_S, until

MODES = ["legacy", "auto"]
LISTENING = "2026-07-28"  # "auto" gives a busy server 10 seconds, and then uses the older version


@asynccontextmanager
async def connected(url: str, mode: str = "auto", token: str | None = None) -> AsyncIterator[Client]:
    """A client of the protocol; ``mode`` is its generation, as the SDK names it."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    patience = mock.patch("mcp.client.session.DISCOVER_TIMEOUT_SECONDS", DEADLINE_S)  # then it uses an older version
    with patience:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=DEADLINE_S) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            yield client


async def called(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool, and return what it answers."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


@pytest.mark.parametrize("mode", MODES)
async def test_tools_are_the_operations(daemon: Daemon, project: str, mode: str) -> None:
    async with connected(f"{daemon.url}/mcp?project={project}", mode) as client:
        offered = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert offered["signal_get"].annotations.read_only_hint
        assert offered["signal_delete"].annotations.destructive_hint
        set_ = await called(client, "signal_set", key="a/b", value={"x": 1e16}, ttl="5m")
        assert set_["project"] == project
        assert (await called(client, "signal_get", key="a/b"))["version"] == set_["version"]
        for number in range(3):
            await called(client, "observation_append", content=f"{number}", agent="coder-1")
        page = await called(client, "signal_list", limit=1)
        assert [item["key"] for item in page["items"]] == ["a/b"]
        item = {"id": 1, "status": "OPEN"}
        await called(client, "document_put", kind="todo", key="plan", value={"items": [item]})
        await called(client, "document_item", kind="todo", key="plan", item="1", patch={"status": "DONE"})
        assert (await called(client, "document_get", kind="todo", key="plan", path=["items", "0", "status"]))[
            "value"
        ] == "DONE"
        job = await called(client, "job_enqueue", type="build", payload={"n": 1})
        assert "no worker" in json.dumps(await called(client, "job_why", job=job["id"])).lower()


HOSTILE: list[tuple[str, dict[str, Any], str]] = [
    ("signal_set", {"key": "a\0b", "value": 1}, "22021"),
    ("signal_set", {"key": "a"}, "ZC100"),
    ("signal_set", {"key": "a", "value": 1, "valeu": 2}, "ZC100"),
    ("signal_set", {"key": "a", "value": 1, "ttl": -1}, "ZC"),
    ("signal_set", {"key": "a", "value": "x" * 200_000}, "ZH413"),
    ("signal_set", {"key": ["a"], "value": 1}, "ZC100"),
    ("signal_get", {"key": "none"}, "ZC"),
    ("signal_list", {"limit": "many"}, "ZC100"),
    ("signal_list", {"after": "nonsense"}, "ZC"),
    ("signal_list", {"project": "other"}, "ZC100"),
    ("memory_search", {"words": ""}, "ZC"),
    ("job_show", {"job": "not-a-job"}, "ZC100"),
    ("lock_acquire", {"resources": ["../x"], "agent": "coder-1"}, "ZC"),
]


@pytest.mark.parametrize(("tool", "arguments", "code"), HOSTILE)
async def test_an_error_is_the_result_of_the_tool_with_code_and_hint(
    daemon: Daemon, project: str, tool: str, arguments: dict[str, Any], code: str
) -> None:
    async with connected(f"{daemon.url}/mcp?project={project}") as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content["error"]["code"].startswith(code), result.structured_content
    assert result.structured_content["error"]["hint"]
    assert result.content[0].text.startswith(result.structured_content["error"]["code"])


BEYOND = {
    "deep": ("[" * 100_000 + "]" * 100_000, "error"),
    "nested": ('{"a":' * 300 + "1" + "}" * 300, "error"),
    "digits": ("1" * 100_000, "error"),
    "exponent": ("1e999999", "ZC104"),
    "half a character": (r'"\ud800"', "error"),
    "large": ('"' + "x" * (5 << 20) + '"', "ZH413"),
    "cut off": ('"', "error"),
}


@pytest.mark.parametrize(("value", "said"), BEYOND.values(), ids=BEYOND)
async def test_a_value_beyond_what_is_stored_is_refused_and_the_next_call_answered(
    daemon: Daemon, project: str, value: str, said: str
) -> None:
    call = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"signal_set","arguments":{"key":"a","value":%s}}}'
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    async with http_client() as http:
        refused, answered = [
            await http.post(f"{daemon.url}/mcp?project={project}", content=call % each, headers=headers)
            for each in (value, "7")
        ]
    assert refused.status_code < httpx.codes.INTERNAL_SERVER_ERROR
    assert said in refused.text
    assert "Traceback" not in refused.text
    assert '"value":7' in answered.text.replace("\\", "")
    assert not daemon.lines("request.failed")


@pytest.mark.parametrize("mode", MODES)
async def test_an_unknown_tool_is_an_error_of_the_protocol_that_names_the_likely_one(
    daemon: Daemon, project: str, mode: str
) -> None:
    async with connected(f"{daemon.url}/mcp?project={project}", mode) as client:
        with pytest.raises(MCPError, match="Did you mean signal_set"):
            await client.call_tool("signal_sett", {})


async def test_resources_are_read_and_watched(daemon: Daemon, project: str, http: httpx.AsyncClient) -> None:
    signal = f"coordinator://{project}/signals/done"
    async with connected(f"{daemon.url}/mcp?project={project}", LISTENING) as client:
        listed = {resource.uri for resource in (await client.list_resources()).resources}
        assert f"coordinator://{project}/locks" in listed
        with pytest.raises(MCPError, match="ZC2"):
            await client.read_resource(signal)
        async with client.listen(resource_subscriptions=[signal, f"coordinator://{project}/agents"]) as changes:
            for key in ("other", "done"):
                await http.post("/v1/signals/set", json={"project": project, "key": key, "value": 1})
            with anyio.fail_after(DEADLINE_S):
                assert (await anext(aiter(changes))).uri == signal
        contents = (await client.read_resource(signal)).contents
        assert json.loads(contents[0].text)["value"] == 1


async def test_beyond_the_limit_of_those_that_listen_a_request_is_refused_until_one_ends(database_url: str) -> None:
    locks = "coordinator://default/locks"
    with Daemon(database_url, mcp_listeners=2) as daemon:
        await daemon.ready()
        async with connected(f"{daemon.url}/mcp", LISTENING) as client:
            async with client.listen(resource_subscriptions=[locks]), client.listen(resource_subscriptions=[locks]):
                assert await daemon.metric("coordinator_mcp_listeners") == 2
                with pytest.raises(MCPError, match="ZH503") as refusal:
                    async with client.listen(resource_subscriptions=[locks]):
                        pass
                assert refusal.value.error.data["code"] == "ZH503"
                assert "mcp_listeners" in refusal.value.error.data["hint"]
                assert (await called(client, "lock_list"))["items"] == []

            async def room() -> bool:
                return await daemon.metric("coordinator_mcp_listeners") == 0

            await until(room, "those that listened are gone")
            async with client.listen(resource_subscriptions=[locks]):
                pass


@pytest.mark.parametrize("uris", [["signals/x"] * 1001, ["signals/" + "x" * 30_000] * 3], ids=["number", "bytes"])
async def test_what_one_request_listens_to_is_bounded(daemon: Daemon, project: str, uris: list[str]) -> None:
    async with connected(f"{daemon.url}/mcp?project={project}", LISTENING) as client:
        with pytest.raises(MCPError, match="ZC102"):
            async with client.listen(resource_subscriptions=[f"coordinator://{project}/{uri}" for uri in uris]):
                pass


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_no_session_is_kept_so_there_is_no_separate_stream(http: httpx.AsyncClient, method: str) -> None:
    answer = await http.request(method, "/mcp", headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (405, "POST", "ZH405")


async def test_a_session_over_http_cannot_subscribe(daemon: Daemon, project: str) -> None:
    async with connected(f"{daemon.url}/mcp?project={project}", "legacy") as client:
        with pytest.warns(Warning, match="removed"), pytest.raises(MCPError, match="2026-07-28"):
            await client.subscribe_resource(f"coordinator://{project}/locks")


async def test_a_token_is_offered_and_allowed_no_more_than_its_role_and_project(
    database_url: str, config: Config
) -> None:
    reader, agent = new_secret(), new_secret()
    async with Database.open(database_url, config) as database:
        for secret, role, project in ((reader, "reader", None), (agent, "agent", "default")):
            await database.run(
                tokens.Create(name=role, role=role, hash=secret.hash, prefix=secret.prefix, project=project)
            )
    with Daemon(database_url, access="tokens") as daemon:
        await daemon.ready()
        async with http_client() as nobody:
            refused = await nobody.post(f"{daemon.url}/mcp", json={})
            assert (refused.status_code, refused.json()["code"]) == (401, "ZC500")
            other = await nobody.post(f"{daemon.url}/mcp", headers={"origin": "https://evil.example"}, json={})
            assert other.status_code == 403
        async with connected(f"{daemon.url}/mcp", token=reader.text) as client:
            offered = {tool.name for tool in (await client.list_tools()).tools}
            assert "signal_get" in offered
            assert "signal_set" not in offered
            with pytest.raises(MCPError, match="there is no tool"):
                await client.call_tool("signal_set", {"key": "a", "value": 1})
        async with connected(f"{daemon.url}/mcp?project=other", token=agent.text) as client:
            assert (await called(client, "signal_set", key="a", value=1))["project"] == "default"
            with pytest.raises(MCPError, match="there is no resource"):
                await client.read_resource("coordinator://other/signals")


async def test_an_sdk_that_cannot_be_loaded_ends_nothing_but_this_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise ImportError("no module named mcp")

    monkeypatch.setattr("coordinator.mcp.mount.import_module", missing)
    mount = Mount(Access(None), cast("Gateway", None), 1)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mount.run_forever)
            await mount.over(send)({"type": "http", "method": "POST", "headers": []}, send, send)  # type: ignore[arg-type]
            tasks.cancel_scope.cancel()
    assert sent[0]["status"] == 404
    assert "coordinatord[mcp]" in sent[1]["body"].decode()
