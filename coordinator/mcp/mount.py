"""The protocol over HTTP, at ``/mcp`` of a daemon or sidecar: each request stands alone, so any replica serves any of them.

A request is made by whoever its token names. ``?project=`` says in which project; a token for one project is for that one. No session
is kept, so there is no stream beside the requests (GET), and nothing to end (DELETE).

What serves it is loaded at the first request: it takes 25 MB and half a second, and few daemons need it.
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

BODY_BYTES = 4 << 20  # the SDK's own limit, which holds for bodies of unknown length

log = structlog.get_logger()


class Mount:
    """``/mcp`` of one process. ``agent`` returns whose calls these are, where the process knows; at most ``listeners`` listen to the ``gateway``."""

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
        """Return what serves the path; the calls of its tools go to ``inner``."""
        self._inner = inner
        return self._serve

    async def run_forever(self) -> None:
        """Serve from the first request on, until cancelled."""
        await self._wanted.wait()
        module: Any = None
        try:
            module = await to_thread.run_sync(import_module, "coordinator.mcp.http")
        except ImportError as error:  # absent, or of a version that does not fit: nothing else depends on it
            log.warning("mcp.import_failed", error=str(error))
        if module is not None:
            assert self._inner is not None  # noqa: S101 - whoever asks has come through the application
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
    """Read on, up to a bound: many clients send all before they read a response."""
    size = 0
    while size < BODY_BYTES * DISCARD_FACTOR:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def _absent(scope: Any, receive: Any, send: Any) -> None:
    error = NoRoute("/mcp", hint='Install the extra: pip install "coordinatord[mcp]"')
    await problem_response(error)(scope, receive, send)
