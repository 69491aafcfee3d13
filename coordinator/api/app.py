"""The application: the API below ``/v1``, its description at ``/schema``, health and metrics."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from litestar import Litestar, Request, Response, asgi, get
from litestar.config.app import AppConfig
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from coordinator.api import openapi
from coordinator.api.access import Access
from coordinator.api.gateway import Gateway
from coordinator.api.problems import (
    MEDIA_TYPE,
    MalformedRequest,
    MethodNotAllowed,
    NoRoute,
    headers_of,
    problem_of,
)
from coordinator.api.router import Router
from coordinator.db.database import Database
from coordinator.telemetry import metrics
from coordinator.version import version

__all__ = ["Readiness", "create_app"]


class Readiness(msgspec.Struct, frozen=True):
    """Whether the daemon can serve, and why not."""

    ready: bool
    leads: bool
    reason: str | None = None


def create_app(readiness: Callable[[], Readiness], database: Database, gateway: Gateway, access: Access) -> Litestar:
    """Make the application; ``readiness`` is asked at each ``/readyz`` and must not wait."""
    schema = msgspec.json.encode(openapi.document())
    page = openapi.page().encode()

    @get("/livez", sync_to_thread=False)
    def livez() -> dict[str, str]:
        """Answer while the process can answer at all."""
        return {"status": "alive", "version": version()}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[Readiness]:
        """Answer 200 while the database is heard from and the daemon is not shutting down, else 503."""
        state = readiness()
        return Response(state, status_code=200 if state.ready else 503)

    @get("/metrics", sync_to_thread=False, media_type="text/plain; version=0.0.4; charset=utf-8")
    def render_metrics() -> bytes:
        """Answer with every metric in Prometheus' text format."""
        return metrics.render()

    @get("/schema", sync_to_thread=False, media_type="text/html")
    def show_schema() -> bytes:
        """Answer with the API's description for people."""
        return page

    @get("/schema/openapi.json", sync_to_thread=False, media_type="application/json")
    def show_openapi() -> bytes:
        """Answer with the API's description for programs."""
        return schema

    return Litestar.from_config(
        AppConfig(
            route_handlers=[
                livez,
                readyz,
                render_metrics,
                show_schema,
                show_openapi,
                asgi("/v1", is_mount=True, copy_scope=True)(Router(database, gateway, access)),
            ],
            exception_handlers={Exception: _problem},
            openapi_config=None,
            debug=False,
        )
    )


def _problem(request: Request, error: Exception) -> Response[bytes]:  # type: ignore[type-arg]
    """Answer for everything that is not below ``/v1``."""
    if isinstance(error, MethodNotAllowedException):
        error = MethodNotAllowed(f"{request.method} is not possible here", allow="GET", hint="Use GET.")
    elif isinstance(error, NotFoundException):
        error = NoRoute("there is nothing at this path", hint="The API is below /v1; see /schema.")
    elif isinstance(error, HTTPException) and error.status_code < 500:
        error = MalformedRequest(error.detail, hint="See /schema.")
    problem = problem_of(error)
    headers = {name.decode(): value.decode() for name, value in headers_of(error)}
    return Response(msgspec.json.encode(problem), media_type=MEDIA_TYPE, status_code=problem.status, headers=headers)
