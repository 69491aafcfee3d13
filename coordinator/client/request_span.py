"""The span of a request that a client sends, and the headers that propagate it to the server."""

from __future__ import annotations

from functools import cache
from urllib.parse import urlsplit

from coordinator.client.wire import Message
from coordinator.telemetry import cause, tracing

__all__ = ["outgoing", "request_span", "status_of"]

FAILED = 400


def request_span(message: Message, address: str, *, again: bool) -> tracing.Span:
    """Return the span of one attempt; ``again``: an earlier attempt failed. Its URL has no query, since values may be secret."""
    if not tracing.on():
        return tracing.OFF
    attributes = {
        **_of_server(address),
        "http.request.method": message.method,
        "url.full": f"{_base(address)}{message.path.partition('?')[0]}",
    }
    if again:
        attributes["http.request.resend_count"] = 1
    return tracing.span(message.method, "client", attributes)


def outgoing() -> dict[str, str]:
    """Return the headers that propagate context: the current span, and the id of the request that is being served here."""
    headers = tracing.headers()
    if (request_id := cause.request_id()) is not None:
        headers["x-request-id"] = request_id
    return headers


def status_of(span: tracing.Span, status: int) -> None:
    """Record the status of the response; for a client, 4xx and 5xx are failures."""
    span.set("http.response.status_code", status)
    if status >= FAILED:
        span.fail(str(status))


@cache
def _of_server(address: str) -> dict[str, str | int]:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return {"server.address": parts.path, "network.transport": "unix"}
    return {
        "server.address": parts.hostname or "localhost",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }


@cache
def _base(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return "http://localhost"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
