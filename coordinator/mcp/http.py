"""Serves the protocol over HTTP, with the SDK.

A call gets its response as JSON, which costs less than a stream. A call that may take long gets a stream: its
keep-alives prevent proxies from closing it, and a disconnect is noticed, so that a caller that is gone leaves the
queue. A call whose envelope the SDK has accepted before goes directly to the tool: see ``envelopes``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from coordinator.api.access import Access
from coordinator.api.app import Application
from coordinator.api.gateway import Gateway
from coordinator.api.local import Local
from coordinator.api.response import Response
from coordinator.mcp.envelopes import Envelopes, repeated_call
from coordinator.mcp.listeners import Listeners
from coordinator.mcp.server import LISTEN, McpHandlers
from coordinator.mcp.tools import TOOLS, WAITING, McpCaller, result_of
from coordinator.model.hint import DEFAULT_PROJECT

__all__ = ["serving"]

_LONG = tuple(name.encode() for name in (LISTEN, *WAITING))


@asynccontextmanager
async def serving(
    inner: Application, access: Access, gateway: Gateway, agent: Callable[[], str | None], listeners: int
) -> AsyncIterator[Application]:
    """Yield the application that serves the path."""

    async def caller_of(scope: Any) -> tuple[Local, McpCaller]:
        principal = await access.identify(scope)
        headers = [(name, value) for name, value in scope["headers"] if name == b"authorization"]
        project = principal.project or _query(scope).get("project") or DEFAULT_PROJECT
        local = Local(inner, headers, principal, scope.get("client"))
        return local, McpCaller(project, agent(), principal.role, principal)

    async def resolve(context: Any) -> tuple[Local, McpCaller]:
        return await caller_of(context.request.scope)

    server = McpHandlers(resolve, gateway, Listeners(listeners)).server
    brief = StreamableHTTPSessionManager(server, stateless=True, json_response=True)
    long = StreamableHTTPSessionManager(server, stateless=True)
    envelopes = Envelopes()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        sent = False

        async def again() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return first

        body = first.get("body", b"")
        if first.get("more_body") or any(name in body for name in _LONG):
            await long.handle_request(scope, again, send)
            return
        call = repeated_call(scope["headers"], body)
        if call is None:
            await brief.handle_request(scope, again, send)
            return
        added = envelopes.added(call)
        if added is not None:
            local, caller = await caller_of(scope)
            if caller.may_use(TOOLS[call.tool]):
                result = await result_of(TOOLS[call.tool], call.arguments, caller, local)
                await Response(200, call.response(result, added))(scope, receive, send)
                return
        messages: list[Any] = []

        async def heard(message: Any) -> None:
            messages.append(message)
            await send(message)

        await brief.handle_request(scope, again, heard)
        envelopes.learn(call, messages)

    async with brief.run(), long.run():
        yield serve


def _query(scope: Any) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1")))
