"""The protocol over HTTP, at ``/mcp`` of a daemon or sidecar. Requests are independent, so any replica can serve any of them.

The token of a request determines the caller. ``?project=`` determines the project; a token for one project is only for
that one. No session is kept, so there is no separate stream (GET), and nothing to end (DELETE).

The implementation is loaded at the first request: it takes 25 MB and half a second, and few daemons need it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

import anyio
import structlog
from anyio import to_thread

from coordinator.api.access import IDENTIFIED, Access
from coordinator.api.app import Application
from coordinator.api.gateway import Gateway
from coordinator.api.problems import MethodNotAllowed, NoRoute, TooLarge, problem_response
from coordinator.api.request import DISCARD_FACTOR

__all__ = ["Mount"]

BODY_BYTES = 4 << 20  # the SDK's limit, which also applies to bodies of unknown length

log = structlog.get_logger()


class Mount:
    """``/mcp`` of one process. ``agent`` returns the agent of the calls, if the process knows it; at most ``listeners`` requests listen to the ``gateway``."""

    def __init__(
        self, access: Access, gateway: Gateway, listeners: int, agent: Callable[[], str | None] = lambda: None
    ) -> None:
        self._access = access
        self._gateway = gateway
        self._listeners = listeners
        self._agent = agent
        self._wanted = anyio.Event()
        self._ready = anyio.Event()
        self._app: Application | None = None
        self._inner: Application | None = None

    def over(self, inner: Application) -> Application:
        """Return the application that serves the path; calls of its tools go to ``inner``."""
        self._inner = inner
        return self._serve

    async def run_forever(self) -> None:
        """Serve after the first request, until cancelled."""
        await self._wanted.wait()
        module: Any = None
        try:
            module = await to_thread.run_sync(import_module, "coordinator.mcp.http")
        except ImportError as error:  # the SDK is missing, or its version does not fit: nothing else depends on it
            log.warning("mcp.import_failed", error=str(error))
        if module is not None:
            assert self._inner is not None  # noqa: S101 - requests come through the application
            async with module.serving(self._inner, self._access, self._gateway, self._agent, self._listeners) as app:
                self._app = app
                self._ready.set()
                await anyio.sleep_forever()
        self._ready.set()

    async def _serve(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        try:
            _check_length(scope)
            principal = await self._access.identify(scope)
            _check_method(scope["method"])
        except Exception as error:  # noqa: BLE001 - a bug is logged there
            if isinstance(error, TooLarge):
                await _discard_body(receive)
            await problem_response(error)(scope, receive, send)
            return
        self._wanted.set()
        await self._ready.wait()
        await (self._app or _absent)({**scope, IDENTIFIED: principal}, receive, send)


def _check_method(method: str) -> None:
    if method != "POST":
        raise MethodNotAllowed(method, ["POST"])


def _check_length(scope: Any) -> None:
    length = dict(scope["headers"]).get(b"content-length", b"")
    if length.isdigit() and int(length) > BODY_BYTES:
        raise TooLarge(
            f"the body has {int(length)} bytes; at most {BODY_BYTES} are allowed",
            hint="Call the tool with less; store large data as an artifact, and share its name.",
        )


async def _discard_body(receive: Callable[[], Awaitable[Any]]) -> None:
    """Read the rest of a body, up to a limit: many clients send all of it before they read a response."""
    size = 0
    while size < BODY_BYTES * DISCARD_FACTOR:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def _absent(scope: Any, receive: Any, send: Any) -> None:
    error = NoRoute("/mcp", hint='Install the extra: pip install "coordinatord[mcp]"')
    await problem_response(error)(scope, receive, send)
