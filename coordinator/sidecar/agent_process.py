"""Watches whether the agent's process is alive, by its process id or by a connection that it keeps open.

The process sends ``POST /v1/sidecar/attach`` and reads the response for as long as it lives, as ``curl -N -X POST``
does. However the process ends, the kernel closes the connection. When the last such connection closes, or the process
of ``--pid`` ends, the agent is gone at once. On one machine, nothing else closes a connection. A process that starts
again a moment later, as when Kubernetes restarts a container, does not know the locks of the first one. Without either,
the agent lives as long as the sidecar.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from coordinator.embedded import processes
from coordinator.errors import ConfigurationError

__all__ = ["AgentProcess"]


class AgentProcess:
    """The process that the sidecar watches. Without ``pid``, it attaches, or is not watched."""

    def __init__(self, pid: int | None) -> None:
        self.attached = 0
        self._detached = anyio.Event()
        self._pid = pid
        if pid is not None and not processes.alive(pid):
            raise ConfigurationError(f"there is no process {pid}", hint="Pass the process id of the agent as --pid.")

    @contextmanager
    def attachment(self) -> Iterator[None]:
        """Count a connection while the context lasts."""
        self.attached += 1
        try:
            yield
        finally:
            self.attached -= 1
            if not self.attached:
                self._detached.set()

    async def gone(self) -> str:
        """Wait until the agent is gone; return how this was noticed."""
        how = ""
        async with anyio.create_task_group() as tasks:

            async def ended() -> None:
                nonlocal how
                if self._pid is not None:
                    await processes.exited(self._pid, math.inf)
                    how = f"process {self._pid} has ended"
                    tasks.cancel_scope.cancel()

            async def detached() -> None:
                nonlocal how
                await self._detached.wait()
                how = "the last attached process disconnected"
                tasks.cancel_scope.cancel()

            tasks.start_soon(ended)
            tasks.start_soon(detached)
        return how
