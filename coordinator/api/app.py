"""The application: the API below ``/v1``, its description at ``/schema``, health and metrics.

Requests below ``/v1`` go directly from the middleware to the operations. Starlette serves the other paths: its own
middleware and router take 9 µs of a request, as much as everything that a read does here besides its call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.api import openapi
from coordinator.api.access import Access
from coordinator.api.gateway import Gateway
from coordinator.api.problems import MethodNotAllowed, NoRoute, problem_response
from coordinator.api.response import Response
from coordinator.api.routes import Handler, OperationRoutes
from coordinator.api.tracing import Traced, routed
from coordinator.model.readiness import Readiness
from coordinator.operations.executor import Source
from coordinator.replica import Replica
from coordinator.telemetry import metrics
from coordinator.version import version

__all__ = ["Application", "create_app"]

Application = ASGIApp


def create_app(  # noqa: PLR0917 - each is one thing that lives as long as the daemon
    readiness: Callable[[], Readiness],
    database: Source,
    gateway: Gateway,
    access: Access,
    middleware: Sequence[Middleware],
    further: Mapping[str, Mapping[str, Handler]] | None = None,
    mcp: Callable[[Application], Application] | None = None,
    replica: Replica | None = None,
) -> Application:
    """Build the application. Each ``/readyz`` calls ``readiness``, which must not wait.

    ``further`` maps other paths below ``/v1`` to their handlers by method. ``mcp`` creates the application for
    ``/mcp``, given the application for everything else. ``replica`` serves lists while it can.
    """

    async def livez(_request: Request) -> Response:
        """Respond while the process can respond at all."""
        return Response(200, msgspec.json.encode({"status": "alive", "version": version()}))

    async def readyz(_request: Request) -> Response:
        """Respond with 200 if the database responds and the daemon is not shutting down, otherwise with 503."""
        state = readiness()
        return Response(200 if state.ready else 503, msgspec.json.encode(state))

    async def render_metrics(request: Request) -> Response:
        """Respond with all metrics in Prometheus' text format or, on request, as OpenMetrics with exemplars."""
        render, media_type = metrics.renderer(request.headers.get("accept", ""))
        text = await to_thread.run_sync(render)  # thousands of lines
        return Response(200, text, media_type=media_type.encode())

    async def show_schema(_request: Request) -> Response:
        """Respond with the API's description for people."""
        return Response(200, await to_thread.run_sync(openapi.page), media_type=b"text/html; charset=utf-8")

    async def show_openapi(_request: Request) -> Response:
        """Respond with the API's description for programs."""
        return Response(200, await to_thread.run_sync(openapi.encoded))

    handlers = {
        "/livez": livez,
        "/readyz": readyz,
        "/metrics": render_metrics,
        "/schema": show_schema,
        "/schema/openapi.json": show_openapi,
    }
    operations = OperationRoutes(database, gateway, access, further or {}, replica)
    others = Starlette(
        routes=[_get(path, handler) for path, handler in handlers.items()],
        exception_handlers={HTTPException: _problem, Exception: _problem},
    )
    others.router.redirect_slashes = False  # a path with a slash at its end is another path

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        below_v1 = scope["type"] == "http" and scope["path"].startswith("/v1/")
        if not below_v1 and scope.get("path") in handlers:
            routed(scope, scope["path"])
        await (operations if below_v1 else others)(scope, receive, send)

    # The call of a tool is a separate request within the request to /mcp.
    app: Application = dispatch if mcp is None else _beside(dispatch, "/mcp", mcp(Traced(dispatch)))
    for layer, arguments, options in reversed(middleware):
        app = layer(app, *arguments, **options)
    return Traced(app)


def _beside(app: Application, path: str, other: Application) -> Application:
    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = app
        if scope["type"] == "http" and scope["path"] == path:
            routed(scope, path)
            chosen = other
        await chosen(scope, receive, send)

    return dispatch


def _get(path: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route(path, handler)
    route.methods = {"GET"}  # without Starlette's automatic HEAD: no path here supports it
    return route


async def _problem(request: Request, error: Exception) -> Response:
    """Describe an exception of Starlette or a handler."""
    if isinstance(error, HTTPException):
        allow = (error.headers or {}).get("Allow")
        path = request.scope["path"]
        error = MethodNotAllowed(request.method, allow.split(", ")) if allow else NoRoute(path)
    return problem_response(error)
