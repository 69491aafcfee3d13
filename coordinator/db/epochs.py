"""The newest epoch of a database that this process knows: a connection to a server that is behind it must not be used.

A primary that stood still while another one succeeded it goes on, and takes itself for the primary until somebody tells it. An address that names several
servers leads to it again. So each new connection is asked whether the server's epoch is earlier than the newest; so is one that was idle or busy for
long, before its next call. Until a process knows an epoch, it asks nothing.

The log says once that a server is passed over, until a connection leads to one that is not behind.

What it deliberately does not do: prevent what such a server does to a call that it has already. It acknowledges no write if replication is synchronous.
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
    """What a process knows about the epochs of its database."""

    def __init__(self) -> None:
        self._newest: str | None = None
        self._passed_over = False

    def saw(self, epoch: str) -> None:
        """Keep the later one of the epoch and the newest."""
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
        """Return whether the server of a connection is not behind; false if it does not answer."""
        try:
            await self.check(connection)
        except (*LOST, ServerBehind):
            return False
        return True
