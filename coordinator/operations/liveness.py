"""The proof that this process lives: an advisory lock on a connection that comes back when it is lost.

The server frees the lock when the process dies; whoever depends on the process (the lead, its agents) is then given up
within 2 seconds. A connection that only broke comes back under the same process id.
"""

from __future__ import annotations

import os
import socket

import anyio

from coordinator.db.session import Session
from coordinator.errors import Conflict
from coordinator.operations.work import ProcessRegister

__all__ = ["Liveness"]

TAKE_AGAIN_S = 0.2


class Liveness:
    """Holds the lock for as long as the session is kept. ``kind``: daemon, sidecar or client.

    ``process`` is the id once the session was connected first; ``returned`` is set at each (re)connection.
    """

    def __init__(self, session: Session, kind: str) -> None:
        self.session = session
        self.process: int | None = None
        self.returned = anyio.Event()
        self._kind = kind
        session.on_connect = self._take

    async def _take(self, session: Session) -> None:
        """Take the lock on a new connection, under the same id as before."""
        name = f"{socket.gethostname()[:180]}:{os.getpid()}"
        while True:
            try:
                self.process = await session.run(ProcessRegister(kind=self._kind, name=name, id=self.process))
            except Conflict:
                # The server has not noticed yet that the old connection is gone. Another id would not help: what
                # depends on this process ends with this one.
                await anyio.sleep(TAKE_AGAIN_S)
            else:
                break
        self.returned.set()
