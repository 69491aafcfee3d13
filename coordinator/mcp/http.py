"""What serves the protocol over HTTP, from the SDK."""

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
from coordinator.mcp.server import Face
from coordinator.mcp.tools import McpCaller

__all__ = ["serving"]


@asynccontextmanager
async def serving(
    inner: Application, access: Access, closing: anyio.Event, agent: Callable[[], str | None]
) -> AsyncIterator[Application]:
    """Yield the application of the path."""

    async def resolve(context: Any) -> tuple[Local, McpCaller]:
        request = context.request
        principal = await access.identify(request.scope)
        headers = [(name, value) for name, value in request.scope["headers"] if name == b"authorization"]
        project = principal.project or request.query_params.get("project") or DEFAULT_PROJECT
        return Local(inner, headers), McpCaller(project, agent(), principal.role)

    face = Face(resolve, closing)
    manager = StreamableHTTPSessionManager(face.server, stateless=True)
    async with manager.run():
        yield manager.handle_request
