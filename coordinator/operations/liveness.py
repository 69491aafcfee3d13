"""Proof that this process is alive: an advisory lock on a connection that reconnects automatically.

The server releases the lock when the process dies. Within 2 seconds, leadership is taken over and agents are reaped.
After a broken connection, the process takes the lock again under the same id.
"""

from __future__ import annotations

import os
import socket

import anyio

from coordinator.db.session import ServerSession
from coordinator.errors import Conflict
from coordinator.operations.work import ProcessRegister

__all__ = ["Liveness"]

TAKE_AGAIN_S = 0.05


class Liveness:
    """Holds the lock while the session lasts. ``kind`` is daemon, sidecar or client.

    ``process`` is the id, from the first connection on. ``returned`` is set at each connection.
    """

    def __init__(self, session: ServerSession, kind: str) -> None:
        self.session = session
        self.process: int | None = None
        self.returned = anyio.Event()
        self._kind = kind
        session.on_connect = self._take

    async def _take(self, session: ServerSession) -> None:
        """Take the lock on a new connection, under the same id as before."""
        name = f"{socket.gethostname()[:180]}:{os.getpid()}"
        while True:
            try:
                self.process = await session.run(ProcessRegister(kind=self._kind, name=name, id=self.process))
            except Conflict:
                # The old session has not ended in time, or only its own role may end it. Another id would not help:
                # everything that depends on this process ends with the old one.
                await session.end_former()
                await anyio.sleep(TAKE_AGAIN_S)
            else:
                break
        self.returned.set()
