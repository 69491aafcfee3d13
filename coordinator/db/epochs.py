"""The newest epoch of a database that this process knows. Connections to a server that is behind it must not be used.

A primary that was paused while another server replaced it continues, and considers itself the primary until it is told
otherwise. An address with several servers leads to it again. So on each new connection, and before the next call on a
connection that was idle or busy for long, the process checks whether the server's epoch is earlier than the newest one.
Until a process knows an epoch, it does not check.

The log reports a skipped server once, until a connection leads to a server that is not behind.

What it deliberately does not do: prevent what such a server does with a call that it has already received. With
synchronous replication, it acknowledges no write.
"""

from __future__ import annotations

import asyncpg
import structlog

from coordinator.db.connection import CHECK_S, LOST
from coordinator.errors import ServerBehind
from coordinator.model.event import epoch_order

__all__ = ["Epochs"]

log = structlog.get_logger()

_LATER = "select coordinator.epoch_later($1)"


class Epochs:
    """The epochs of a database that a process knows."""

    def __init__(self) -> None:
        self._newest: str | None = None
        self._passed_over = False

    def saw(self, epoch: str) -> None:
        """Store the epoch if it is later than the newest."""
        if self._newest is None or epoch_order(epoch) > epoch_order(self._newest):
            self._newest = epoch

    async def check(self, connection: asyncpg.Connection) -> None:
        """Check that the server of a connection is not behind.

        Raises: ``ServerBehind``; what the driver raises.
        """
        if self._newest is None:
            return
        behind = await connection.fetchval(_LATER, self._newest, timeout=CHECK_S)
        if behind and not self._passed_over:
            log.warning("server.behind", reason="another one has succeeded it", newest=self._newest)
        self._passed_over = behind
        if behind:
            raise ServerBehind(
                "the server is behind: another one has succeeded it",
                hint="Try again. If it persists, stop the server that still believes it is the primary; see docs/failover.md.",
            )

    async def holds(self, connection: asyncpg.Connection) -> bool:
        """Return whether the server of a connection is not behind; false if it does not respond."""
        try:
            await self.check(connection)
        except (*LOST, ServerBehind):
            return False
        return True
