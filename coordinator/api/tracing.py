"""Gives each request an id, and a span that continues its client's trace.

``X-Request-ID`` comes from the client or from a proxy, if it is valid; otherwise it is generated here. It is in the
response and in every log line of the request. The address in the span has no query, since values may be secret. Health
checks and requests for metrics have no span.
"""

from __future__ import annotations

import random
import re
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.telemetry import tracing
from coordinator.telemetry.cause import Cause

__all__ = ["Traced", "routed"]

SPAN = "coordinator.span"  # in the scope
UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
FAILED = 500

_READ = frozenset({b"x-request-id", b"traceparent", b"tracestate"})
_SANE = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class Traced:
    """The outermost middleware, so that a refused request also has an id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = [header for header in scope["headers"] if header[0] in _READ]
        request_id = context = None
        if given:
            request_id, context = _id_of(given), _context_of(given)
        if request_id is None:
            request_id = b"%016x" % random.getrandbits(64)
        span = tracing.OFF
        if (context is not None or tracing.on()) and scope["path"] not in UNTRACED:
            attributes = _attributes(scope) if tracing.on() else {}
            span = scope[SPAN] = tracing.received(scope["method"], "server", attributes, context)

        async def respond(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
                if span is not tracing.OFF:
                    _answered(span, message["status"])
            await send(message)

        client = scope.get("client")
        with span, Cause(request_id, None if client is None else client[0]):
            await self._app(scope, receive, respond)


def _answered(span: tracing.Span, status: int) -> None:
    span.set("http.response.status_code", status)
    if status >= FAILED:
        span.fail(str(status))


def routed(scope: Scope, route: str) -> None:
    """Name the request's span after its route."""
    span: tracing.Span | None = scope.get(SPAN)
    if span is not None:
        span.rename(f"{scope['method']} {route}")
        span.set("http.route", route)


def _id_of(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    found = [value for name, value in headers if name == b"x-request-id"]
    return found[0] if len(found) == 1 and _SANE.fullmatch(found[0]) else None


def _context_of(headers: list[tuple[bytes, bytes]]) -> tracing.TraceContext | None:
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1:
        return None
    states = [value for name, value in headers if name == b"tracestate"]
    state = b",".join(states).decode("latin-1") if states else None
    return tracing.parsed(parents[0].decode("latin-1"), state)


def _attributes(scope: Scope) -> dict[str, str | int]:
    headers = dict(scope["headers"])
    attributes: dict[str, str | int] = {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if (server := scope.get("server")) is not None:
        attributes["server.address"] = str(server[0])
        if server[1] is not None:
            attributes["server.port"] = server[1]
    if (client := scope.get("client")) is not None:
        attributes["client.address"] = str(client[0])
    if agent := headers.get(b"user-agent"):
        attributes["user_agent.original"] = agent.decode("latin-1")[:256]
    return attributes
