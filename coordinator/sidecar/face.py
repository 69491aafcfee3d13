"""What only a sidecar has on HTTP: its state, and a connection for the agent's process to keep open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from uuid import UUID

import anyio
import msgspec

from coordinator.api.access import Access
from coordinator.api.problems import MEDIA_TYPE, MethodNotAllowed, headers_of, problem_of
from coordinator.api.request import Answer
from coordinator.api.router import send_answer
from coordinator.errors import CoordinatorError
from coordinator.sidecar.agent_process import AgentProcess
from coordinator.sidecar.lock_book import LockReport

__all__ = ["AgentReport", "Face", "SidecarReport"]

PATH = "/v1/sidecar"
ATTACH_PATH = "/v1/sidecar/attach"
HEARTBEAT_S = 5.0


Scope = Any  # as ASGI has it; the framework's types are not for this floor
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class AgentReport(msgspec.Struct, frozen=True):
    """The sidecar's agent: ``state`` HELD (registered), UNKNOWN (no answer) or LOST (reaped, with all that it held)."""

    id: UUID
    project: str
    name: str
    role: str | None
    state: str


class SidecarReport(msgspec.Struct, frozen=True):
    """What the sidecar knows without asking; ``connected``: the database or the daemon answers."""

    agent: AgentReport
    connected: bool
    attached: int
    locks: list[LockReport]


class Face:
    """The application with the sidecar's own paths."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        report: Callable[[], SidecarReport],
        process: AgentProcess,
        stop: anyio.Event,
    ) -> None:
        self._app = app
        self._access = access
        self._report = report
        self._process = process
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path not in (PATH, ATTACH_PATH):
            await self._app(scope, receive, send)
            return
        try:
            if scope["method"] != "GET":
                raise MethodNotAllowed(f"{scope['method']} is not possible here", allow="GET", hint="Use GET.")
            await self._access.identify(scope)
        except CoordinatorError as error:
            body = msgspec.json.encode(problem_of(error))
            await send_answer(Answer(error.http_status, body, headers_of(error), MEDIA_TYPE.encode()), send)
            return
        if path == PATH:
            await send_answer(Answer(200, msgspec.json.encode(self._report()), []), send)
        else:
            await self._attach(receive, send)

    async def _attach(self, receive: Receive, send: Send) -> None:
        """Hold a connection until the process behind it lets go, or the sidecar ends."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await receive()  # the request, which has no body
        with self._process.attachment():
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            data = msgspec.json.encode(self._report().agent)
            await _write(send, b"event: attached\ndata: %b\n\n" % data)
            async with anyio.create_task_group() as tasks:

                async def let_go() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    tasks.cancel_scope.cancel()

                async def stopping() -> None:
                    await self._stop.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(let_go)
                tasks.start_soon(stopping)
                while True:
                    await anyio.sleep(HEARTBEAT_S)
                    await _write(send, b":\n\n")
            if self._stop.is_set():
                await _write(send, b'event: bye\ndata: {"reason":"shutdown"}\n\n', more=False)


async def _write(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})
