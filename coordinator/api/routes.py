"""The routes of the operations: everything below ``/v1``.

The table is separate from Starlette, which searches a list of routes from its top. That takes 31 µs for 40 operations,
a tenth of a read, and grows with each noun; a lookup here takes 2 µs. A signal's key may also contain anything:
slashes, empty segments, the name of a verb. So the path is taken as it was sent, and the parameter is decoded once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from urllib.parse import unquote

import anyio
from starlette import responses
from starlette.types import Receive, Scope, Send

from coordinator.api.access import Access
from coordinator.api.calls import Calls
from coordinator.api.endpoint import endpoints
from coordinator.api.gateway import Gateway
from coordinator.api.memory import SMALL_BYTES, Memory
from coordinator.api.problems import MalformedRequest, MethodNotAllowed, NoRoute, problem_response
from coordinator.api.request import Request
from coordinator.api.response import TRANSPORT, Response
from coordinator.api.subscriptions import Subscriptions
from coordinator.api.tracing import routed
from coordinator.api.transfers import PATH, Transfers
from coordinator.model.call_origin import coming_from
from coordinator.model.route import STREAM_PATH
from coordinator.operations.executor import Source
from coordinator.replica import Replica
from coordinator.suggestion import nearest
from coordinator.telemetry import metrics

__all__ = ["Handler", "OperationRoutes"]

Handler = Callable[[Request], Awaitable[responses.Response]]
_Target = tuple[str, str, Handler]  # the name of the operation, its route, and what serves it


class OperationRoutes:
    """All operations as one application, which finds the handler by path and method."""

    def __init__(
        self,
        database: Source,
        gateway: Gateway,
        access: Access,
        further: Mapping[str, Mapping[str, Handler]],
        replica: Replica | None = None,
    ) -> None:
        self._access = access
        self._memory = Memory(gateway.config.http_memory_bytes, gateway.config.http_queue_s)
        self._deadline_s = gateway.config.http_write_deadline_s
        self._exact: dict[str, dict[str, _Target]] = {}
        self._beneath: dict[str, dict[str, _Target]] = {}
        calls = Calls(database, gateway, replica)
        subscriptions = Subscriptions(calls, gateway, database)
        for endpoint in endpoints():
            handler: Handler = partial(calls.read if endpoint.operation.reads else calls.write, endpoint)
            if endpoint.operation.reads_log:
                handler = subscriptions.read
            prefix, _, parameter = endpoint.path.partition("{")
            table = self._beneath if parameter else self._exact
            table.setdefault(prefix, {})[endpoint.method] = (endpoint.operation.function, endpoint.path, handler)
        transfers = Transfers(calls, gateway.config)
        self._beneath[PATH.partition("{")[0]] = {
            "PUT": ("artifact_upload", PATH, transfers.put),
            "GET": ("artifact_download", PATH, transfers.get),
            "HEAD": ("artifact_head", PATH, transfers.get),
        }
        self._exact[STREAM_PATH] = {"GET": ("event_stream", STREAM_PATH, subscriptions.stream)}
        for path, handlers in further.items():
            name = path.rpartition("/")[2]
            self._exact[path] = {method: (name, path, handler) for method, handler in handlers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = time.perf_counter()
        name = "unknown"
        response: responses.Response
        response = Response(499, b"")  # the client has disconnected
        with self._memory.hold() as hold:
            # Cancelled when the client disconnects, including the call in the database.
            with anyio.CancelScope() as running:
                transport = scope.get("extensions", {}).get(TRANSPORT)
                connection = None if transport is None else transport.get_protocol()
                if connection is not None:
                    connection.on_lost = running.cancel
                try:
                    (name, route, handler), argument = self._find(scope["method"], scope["raw_path"])
                    routed(scope, route)
                    principal = await self._access.identify(scope)
                    with coming_from(principal.origin(_address(scope))):
                        response = await handler(Request(scope, receive, send, argument, principal, hold))
                    size = len(response.body) if isinstance(response, Response) else 0
                    hold.keep(size)
                    if size > max(SMALL_BYTES, hold.size):
                        await hold.reserve(size - hold.size)
                except Exception as error:  # noqa: BLE001 - a bug is logged there
                    response = problem_response(error)
                finally:
                    if connection is not None:
                        connection.on_lost = None
            if isinstance(response, Response):  # complete: streams are not measured
                observe, count = _meters(name, response.status_code)
                observe(time.perf_counter() - began)
                count()
                response.deadline_s = self._deadline_s
            try:
                await response(scope, receive, send)
            except Exception as error:  # noqa: BLE001 - a stream that could not begin, or a bug
                await problem_response(error)(scope, receive, send)

    def _find(self, method: str, raw_path: bytes) -> tuple[_Target, str | None]:
        try:
            path = unquote(raw_path.decode("ascii"), errors="strict")
        except UnicodeDecodeError:
            raise MalformedRequest("the path is not UTF-8", hint="Write other characters as %XX.") from None
        exact = self._exact.get(path, {})
        if method in exact:
            return exact[method], None
        # /v1/<noun>/<rest>: the rest is the parameter, whatever it contains.
        prefix = "/".join(path.split("/", 3)[:3]) + "/"
        beneath = self._beneath.get(prefix, {}) if path.startswith(prefix) else {}
        if method in beneath:
            return beneath[method], path[len(prefix) :]
        if allowed := exact | beneath:
            raise MethodNotAllowed(method, allowed)
        raise NoRoute(path, self._near(path))

    def _near(self, path: str) -> str:
        """Return a hint with the routes of the noun that a path names or probably means."""
        routes: dict[str, list[str]] = {}
        for methods in (*self._exact.values(), *self._beneath.values()):
            for verb, (_, route, _) in methods.items():
                routes.setdefault(route.split("/")[2], []).append(f"{verb} {route}")
        noun = "".join(path.split("/")[2:3])
        meant = noun if noun in routes else nearest(noun, routes)
        if meant is None or not path.startswith("/v1/"):
            return "The API is below /v1; see /schema."
        return f"Below /v1/{meant}: {', '.join(sorted(routes[meant]))}. See /schema."


@cache
def _meters(name: str, status: int) -> tuple[Callable[[float], None], Callable[[], None]]:
    """Return what observes the seconds of a request and what counts it: looking up labels takes longer than either."""
    return metrics.REQUEST_SECONDS.labels(name).observe, metrics.REQUESTS.labels(name, status).inc


def _address(scope: Scope) -> str | None:
    """Return the address of the client; None on a unix socket."""
    client = scope.get("client")
    return None if client is None else str(client[0])
