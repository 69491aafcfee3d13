"""The replica: a standby of the database, which serves lists, searches and statistics whose readers state a maximum age.

The leader renews its lead once a second, in a row with the time of the primary's clock. A standby that has replayed a
renewal has everything that was committed before it. So the lag of a standby is the time on the primary, minus the time
of the newest renewal on the standby. The clocks of the standby and of this process do not matter, and an idle primary
causes no lag.

A standby of another database, or of a history that a fail-over left behind, has another origin and is not used. Neither
is a standby that does not respond to a check within ``LOOK_TIMEOUT_S``: reads that wait for it are then cancelled,
however long calls may take. Whatever cannot be read here is read from the primary instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime
from typing import NamedTuple

import anyio
import structlog

from coordinator.backoff import Backoff
from coordinator.db.database import Database
from coordinator.errors import CoordinatorError, DatabaseUnavailable
from coordinator.model.work import Beat
from coordinator.operations.executor import Runner
from coordinator.operations.work import LeaderBeat
from coordinator.telemetry import metrics

__all__ = ["Replica"]

LOOK_S = 0.5  # interval of checks of the standby; the leader renews its lead once a second
LOOK_TIMEOUT_S = 4.0

log = structlog.get_logger()


class _Seen(NamedTuple):
    """The time on the primary, the monotonic time of this process before the query, and the newest renewal on the standby."""

    primary_now: datetime
    asked_at: float
    renewed_at: datetime


class Replica:
    """Tracks the lag of a standby while ``run_forever`` runs. ``primary`` must not queue behind calls."""

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[Database]], primary: Runner) -> None:
        self._open = open
        self._primary = primary
        self._database: Database | None = None
        self._seen: _Seen | None = None
        self._answers = False
        self._readers: set[anyio.CancelScope] = set()
        self._unused: str | None = None  # the reason, as logged
        metrics.REPLICA_LAG.set_function(self._lag)

    @property
    def lag_s(self) -> float | None:
        """The maximum lag of its data in seconds; None if that is unknown."""
        seen = self._seen
        if seen is None:
            return None
        lag_s = (seen.primary_now - seen.renewed_at).total_seconds() + time.monotonic() - seen.asked_at
        return lag_s if lag_s >= 0 else None  # negative: the primary's clock was set back, so the renewal shows nothing

    def within(self, max_lag_s: float) -> Database | None:
        """Return the standby if its lag is at most this long."""
        lag_s = self.lag_s
        return self._database if self._answers and lag_s is not None and lag_s <= max_lag_s else None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """End the context early, without an error, when the standby stops responding."""
        with anyio.CancelScope() as scope:
            self._readers.add(scope)
            try:
                yield
            finally:
                self._readers.discard(scope)

    async def run_forever(self) -> None:
        """Track the standby until cancelled; connect when it is available."""
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                async with self._open() as database, database.aside("replica_looks", 1, LOOK_TIMEOUT_S) as standby:
                    self._database = database
                    backoff.reset()
                    await self._follow(standby)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the standby, the primary serves
                self._failed(error)
            finally:
                self._silent()
                self._database = self._seen = None
            await backoff.wait()

    async def _follow(self, standby: Runner) -> None:
        while True:
            try:
                asked_at = time.monotonic()
                here = await self._look(standby)
                there = await self._primary.run(LeaderBeat())
                if here.origin != there.origin:
                    self._failed(CoordinatorError("it is of another database, or of another history of this one"))
                    self._seen = None
                elif here.renewed_at is not None:
                    self._seen = _Seen(there.now, asked_at, here.renewed_at)
                    if self._unused is not None:
                        self._unused = None
                        log.info("replica.used", lag_s=self.lag_s)
            except CoordinatorError as error:
                self._failed(error)  # so that the last known lag grows
            await anyio.sleep(LOOK_S)

    async def _look(self, standby: Runner) -> Beat:
        """Ask the standby for its newest renewal.

        Raises: ``CoordinatorError``.
        """
        try:
            with anyio.fail_after(LOOK_TIMEOUT_S):
                here = await standby.run(LeaderBeat())
        except TimeoutError:
            self._silent()
            raise DatabaseUnavailable(f"it did not answer within {LOOK_TIMEOUT_S:g} seconds") from None
        except CoordinatorError:
            self._silent()
            raise
        self._answers = True
        return here

    def _silent(self) -> None:
        """Stop reading from the standby, and cancel current reads, until it responds."""
        self._answers = False
        for reader in self._readers:
            reader.cancel()

    def _failed(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if reason != self._unused:
            self._unused = reason
            log.warning("replica.skipped", reason=reason)

    def _lag(self) -> float:
        lag_s = self.lag_s
        return float("nan") if lag_s is None else lag_s
