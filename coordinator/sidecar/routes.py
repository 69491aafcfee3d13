"""The HTTP paths that only a sidecar has: its state, and a connection for the agent's process to keep open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from uuid import UUID

import anyio
import msgspec

from coordinator.api.request import Request
from coordinator.api.response import FrameStream, Response
from coordinator.api.routes import Handler
from coordinator.sidecar.agent_process import AgentProcess
from coordinator.sidecar.job_book import JobReport
from coordinator.sidecar.lock_book import LockReport

__all__ = ["AgentReport", "SidecarReport", "routes"]

HEARTBEAT_S = 5.0


class AgentReport(msgspec.Struct, frozen=True):
    """The sidecar's agent: ``state`` is HELD (registered), UNKNOWN (no response) or LOST (reaped, with everything that it held)."""

    id: UUID
    project: str
    name: str
    role: str | None
    state: str


class SidecarReport(msgspec.Struct, frozen=True):
    """The state that the sidecar knows without a call; ``connected``: the database or the daemon responds."""

    agent: AgentReport
    connected: bool
    attached: int
    locks: list[LockReport]
    jobs: list[JobReport]


def routes(
    report: Callable[[], SidecarReport], process: AgentProcess, stop: anyio.Event
) -> Mapping[str, Mapping[str, Handler]]:
    """Return the sidecar's own paths."""

    async def attachment() -> AsyncIterator[bytes]:
        """Keep a connection open until the process behind it closes it, or the sidecar stops."""
        with process.attachment():
            yield b"event: attached\ndata: %b\n\n" % msgspec.json.encode(report().agent)
            while not stop.is_set():
                with anyio.move_on_after(HEARTBEAT_S) as waiting:
                    await stop.wait()
                if waiting.cancelled_caught:
                    yield b":\n\n"
            yield b'event: bye\ndata: {"reason":"shutdown"}\n\n'

    async def show(_request: Request) -> Response:
        return Response(200, msgspec.json.encode(report()))

    async def attach(_request: Request) -> FrameStream:
        return FrameStream(attachment())

    return {"/v1/sidecar": {"GET": show}, "/v1/sidecar/attach": {"POST": attach}}
