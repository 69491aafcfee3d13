"""The application: health and metrics."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from litestar import Litestar, Response, get
from litestar.config.app import AppConfig
from litestar.openapi import OpenAPIConfig

import coordinator
from coordinator.telemetry import metrics

__all__ = ["Readiness", "create_app"]


class Readiness(msgspec.Struct, frozen=True):
    """Whether the daemon can serve, and why not."""

    ready: bool
    leads: bool
    reason: str | None = None


def create_app(readiness: Callable[[], Readiness]) -> Litestar:
    """Make the application; ``readiness`` is asked at each ``/readyz`` and must not wait."""

    @get("/livez", sync_to_thread=False)
    def livez() -> dict[str, str]:
        """Answer while the process can answer at all."""
        return {"status": "alive", "version": coordinator.__version__}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[Readiness]:
        """Answer 200 while the database is heard from and the daemon is not shutting down, else 503."""
        state = readiness()
        return Response(state, status_code=200 if state.ready else 503)

    @get("/metrics", sync_to_thread=False, media_type="text/plain; version=0.0.4; charset=utf-8")
    def render_metrics() -> bytes:
        """Answer with every metric in Prometheus' text format."""
        return metrics.render()

    return Litestar.from_config(
        AppConfig(
            route_handlers=[livez, readyz, render_metrics],
            openapi_config=OpenAPIConfig(title="coordinator", version=coordinator.__version__),
            debug=False,
        )
    )
