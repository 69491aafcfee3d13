"""Calls whose envelope the SDK has accepted before: they are answered as the SDK answers them."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from coordinator.api.access import Access
from coordinator.api.app import Application
from coordinator.api.gateway import Gateway
from coordinator.mcp.envelopes import MOST, Envelopes, repeated_call
from coordinator.mcp.http import serving

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
FOUND = {"project": "shop", "key": "a", "value": {"text": 'é "\\ \n', "large": 2**53}, "version": 5}
PROBLEM = {"code": "ZC201", "detail": "there is no signal", "hint": "Set it.", "facts": {"key": "b"}}


def headers(tool: str = "signal_get", **further: str) -> list[tuple[bytes, bytes]]:
    given = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": tool,
        **further,
    }
    return [(name.encode(), value.encode()) for name, value in given.items()]


def body(tool: str = "signal_get", meta: dict[str, Any] | None = None, **arguments: Any) -> bytes:
    parameters = {"name": tool, "arguments": arguments, "_meta": META if meta is None else meta}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}).encode()


async def inner(scope: Any, _receive: Any, send: Any) -> None:
    """Stand for the rest of the API: one signal exists."""
    found = scope["path"] == "/v1/signals/a"
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(FOUND if found else PROBLEM).encode()})


def served() -> AbstractAsyncContextManager[Application]:
    return serving(inner, Access(None), cast("Gateway", None), lambda: None, 10)


@pytest.fixture
def by_sdk(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the bodies of requests that the SDK handles, as they come."""
    handled: list[bytes] = []
    real = StreamableHTTPSessionManager.handle_request

    async def handle(self: Any, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        handled.append(message["body"])

        async def again() -> Any:
            return message

        await real(self, scope, again, send)

    monkeypatch.setattr(StreamableHTTPSessionManager, "handle_request", handle)
    return handled


async def post(app: Application, content: bytes, given: list[tuple[bytes, bytes]]) -> tuple[int, dict[str, Any]]:
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": given}
    await app(scope, receive, send)
    return messages[0]["status"], json.loads(b"".join(message["body"] for message in messages[1:]) or b"{}")


ANSWERED: list[dict[str, Any]] = [{"key": "a"}, {"key": "b"}, {"kye": "a"}, {"key": ["a"]}, {}]


@pytest.mark.parametrize("arguments", ANSWERED, ids=repr)
async def test_the_second_call_is_answered_without_the_sdk_as_the_first_was_by_it(
    by_sdk: list[bytes], arguments: dict[str, Any]
) -> None:
    async with served() as app:
        first = await post(app, body(**arguments), headers())
        second = await post(app, body(**arguments), headers())
    assert len(by_sdk) == 1
    assert second == first
    assert first[0] == 200
    assert first[1]["result"]["isError"] == (arguments != {"key": "a"})


OTHERS: list[tuple[bytes, list[tuple[bytes, bytes]]]] = [
    (body(meta={**META, "progressToken": 1}, key="a"), headers()),
    (body(meta={**META, "traceparent": "00-" + "1" * 32 + "-" + "1" * 16 + "-01"}, key="a"), headers()),
    (body(meta={}, key="a"), headers()),
    (body(key="\ud800"), headers()),
    (body(key=float("inf")), headers()),
    (body(key="a"), headers("signal_list")),
    (body(key="a"), headers(accept="text/html")),
    (body(key="a"), [*headers(), (b"mcp-name", b"signal_get")]),
    (body("signal_gett", key="a"), headers("signal_gett")),
    (body(key="a").replace(b'"2.0"', b'"1.0"'), headers()),
    (body(key="a").replace(b'"id": 1', b'"id": 1.5'), headers()),
    (body(key="a").replace(b'"id": 1', b'"id": null'), headers()),
    (body(key="a").replace(b'{"key": "a"}', b"[1]"), headers()),
    (body(key="a").replace(b'{"key": "a"}', b"null"), headers()),
    (body(key="a").replace(b'{"key": "a"}', b'{"key": "a"'), headers()),
    (body(key="a").replace(b'"jsonrpc"', b'"further": 1, "jsonrpc"'), headers()),
    (b"[" + body(key="a") + b"]", headers()),
    (body(key="a") + b"\xff", headers()),
    (b"", headers()),
]


@pytest.mark.parametrize(("content", "given"), OTHERS, ids=range(len(OTHERS)))
async def test_what_differs_from_what_was_accepted_is_left_to_the_sdk(
    by_sdk: list[bytes], content: bytes, given: list[tuple[bytes, bytes]]
) -> None:
    async with served() as app:
        await post(app, body(key="a"), headers())
        await post(app, content, given)
    assert by_sdk == [body(key="a"), content]


async def test_an_envelope_that_the_sdk_refuses_is_not_remembered(by_sdk: list[bytes]) -> None:
    wrong = body(meta={**META, "io.modelcontextprotocol/clientInfo": 7}, key="a")
    async with served() as app:
        answers = [await post(app, wrong, headers()) for _ in range(2)]
    assert by_sdk == [wrong, wrong]
    assert "error" in answers[0][1]


async def test_a_role_that_may_not_use_a_tool_is_refused_after_others_were_accepted(
    by_sdk: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from coordinator.mcp.tools import McpCaller

    async with served() as app:
        await post(app, body("signal_delete", key="a"), headers("signal_delete"))
        monkeypatch.setattr(McpCaller, "may_use", lambda _self, _tool: False)
        _, refused = await post(app, body("signal_delete", key="a"), headers("signal_delete"))
    assert "there is no tool" in refused["error"]["message"]
    assert len(by_sdk) == 2


def test_what_is_remembered_is_bounded() -> None:
    envelopes = Envelopes()
    answer = [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]},
        {"type": "http.response.body", "body": b'{"result": {"content": [], "resultType": "complete"}}'},
    ]
    calls = [repeated_call(headers(), body(meta={"n": number}, key="a")) for number in range(MOST + 1)]
    for call in calls:
        assert call is not None
        envelopes.learn(call, answer)
    assert [envelopes.added(call) for call in calls if call][:2] == [None, b',"resultType":"complete"']
    assert repeated_call(headers(), body(meta={"n": "x" * 5000}, key="a")) is None
