"""What serves the protocol over HTTP, from the SDK.

A call gets its response as JSON, at less cost than a stream. What may take long gets a stream: its signs of life keep proxies
from closing it, and its end is noticed, so that a caller that is gone leaves the queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from coordinator.api.access import Access
from coordinator.api.app import Application
from coordinator.api.endpoint import DEFAULT_PROJECT
from coordinator.api.local import Local
from coordinator.mcp.listeners import Listeners
from coordinator.mcp.server import LISTEN, Face
from coordinator.mcp.tools import WAITING, McpCaller

__all__ = ["serving"]

_LONG = tuple(name.encode() for name in (LISTEN, *WAITING))


@asynccontextmanager
async def serving(
    inner: Application, access: Access, closing: anyio.Event, agent: Callable[[], str | None], listeners: int
) -> AsyncIterator[Application]:
    """Yield the application of the path."""

    async def resolve(context: Any) -> tuple[Local, McpCaller]:
        request = context.request
        principal = await access.identify(request.scope)
        headers = [(name, value) for name, value in request.scope["headers"] if name == b"authorization"]
        project = principal.project or request.query_params.get("project") or DEFAULT_PROJECT
        return Local(inner, headers), McpCaller(project, agent(), principal.role, principal.caller)

    server = Face(resolve, closing, Listeners(listeners)).server
    brief = StreamableHTTPSessionManager(server, stateless=True, json_response=True)
    long = StreamableHTTPSessionManager(server, stateless=True)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        sent = False

        async def again() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return first

        whole = not first.get("more_body") and not any(name in first.get("body", b"") for name in _LONG)
        await (brief if whole else long).handle_request(scope, again, send)

    async with brief.run(), long.run():
        yield serve
