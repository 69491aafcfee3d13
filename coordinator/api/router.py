"""Everything below ``/v1``: finds the endpoint, asks who it is, runs it, and turns every error into a problem.

Its own dispatch rather than routes of the framework, because a signal's key may be anything: it may hold slashes, be empty
between two, or be spelled like a verb. The path is taken as it was sent, and what a parameter takes is decoded once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast
from urllib.parse import unquote

import msgspec
from litestar.types import HTTPScope, Receive, Scope, Send

from coordinator.api.access import Access
from coordinator.api.calls import Calls
from coordinator.api.endpoint import endpoints
from coordinator.api.gateway import Gateway
from coordinator.api.problems import (
    MEDIA_TYPE,
    MalformedRequest,
    MethodNotAllowed,
    NoRoute,
    headers_of,
    problem_of,
)
from coordinator.api.request import Answer, Request
from coordinator.api.subscriptions import Subscriptions
from coordinator.db.database import Database
from coordinator.model.route import STREAM_PATH
from coordinator.operations.events import Since
from coordinator.telemetry import metrics

__all__ = ["Router", "send_answer"]

_Handler = Callable[[Request], Awaitable[Answer | None]]


class Router:
    """The application below ``/v1``."""

    def __init__(self, database: Database, gateway: Gateway, access: Access) -> None:
        self._access = access
        self._exact: dict[str, dict[str, tuple[str, _Handler]]] = {}
        self._beneath: dict[str, dict[str, tuple[str, _Handler]]] = {}
        calls = Calls(database, gateway)
        subscriptions = Subscriptions(calls, gateway, database)
        for endpoint in endpoints():
            handler: _Handler = partial(calls.read if endpoint.operation.reads else calls.write, endpoint)
            if endpoint.operation is Since:
                handler = subscriptions.read
            prefix, _, parameter = endpoint.path.partition("{")
            routes = self._beneath if parameter else self._exact
            routes.setdefault(prefix, {})[endpoint.method] = (endpoint.operation.function, handler)
        self._exact[STREAM_PATH] = {"GET": ("event_stream", cast("_Handler", subscriptions.stream))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = time.perf_counter()
        name = "unknown"
        started = False

        async def sending(message: msgspec.Raw) -> None:
            nonlocal started
            started = True
            await send(message)  # type: ignore[arg-type]

        try:
            name, handler, argument = self._find(cast("HTTPScope", scope))
            caller = await self._access.identify(scope)
            answer = await handler(Request(scope, receive, cast("Send", sending), argument, caller))
        except Exception as error:
            if started:
                raise
            problem = problem_of(error)
            answer = Answer(problem.status, msgspec.json.encode(problem), headers_of(error), MEDIA_TYPE.encode())
        if answer is not None:
            metrics.REQUEST_SECONDS.labels(name, answer.status).observe(time.perf_counter() - began)
            await send_answer(answer, send)

    def _find(self, scope: HTTPScope) -> tuple[str, _Handler, str | None]:
        raw = scope["raw_path"]
        method = scope["method"]
        try:
            path = unquote(raw.decode("ascii"), errors="strict")
        except UnicodeDecodeError:
            raise MalformedRequest("the path is not UTF-8", hint="Write such characters as %XX.") from None
        exact = self._exact.get(path)
        if exact is not None and method in exact:
            return *exact[method], None
        # /v1/<noun>/<rest>: the rest is the parameter, whatever is in it.
        prefix = "/".join(path.split("/", 3)[:3]) + "/"
        beneath = self._beneath.get(prefix) if path.startswith(prefix) else None
        if beneath is not None and method in beneath:
            return *beneath[method], path[len(prefix) :]
        known = (exact or {}) | (beneath or {})
        if known:
            allow = ", ".join(sorted(known))
            raise MethodNotAllowed(f"{method} is not possible here", allow=allow, hint=f"Use {allow}.")
        raise NoRoute(f"there is nothing at {path[:200]}", hint="See /schema for what there is.")


async def send_answer(answer: Answer, send: Send) -> None:
    """Send an answer."""
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
