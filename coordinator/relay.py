"""The relay: moves events from the outbox to the log in batches, and sleeps behind a doorbell while there are none.

The guarantees come from ``coordinator.relay_step`` (sql/functions/relay.sql): one transaction numbers a batch and
notifies. This process may be killed, paused or run twice at any point; no event is lost, repeated or reordered.
This module only sets the pace. It steps while there are events, then arms the doorbell. When every transaction that may
have read the doorbell before it was armed has ended, it steps once more and blocks. A lost doorbell delays an event
until the leader's next heartbeat, at most one second.

On failure the relay logs the error, drops the connection, backs off and starts again; ``progress`` knows since when.
"""

from __future__ import annotations

import time

import anyio
import structlog

from coordinator.backoff import Backoff
from coordinator.db.database import Database
from coordinator.db.session import Session, SessionWake
from coordinator.operations.work import OutboxPrune, RelayArm, RelayRecover, RelayStep
from coordinator.progress import Progress
from coordinator.telemetry import metrics

__all__ = ["BELL_CHANNEL", "Relay"]

BELL_CHANNEL = "coordinator.bell"

BATCH = 1000  # events
REARM_S = 10.0  # the bell is armed for 15 s
PRUNE_S = 1.0
LINGER_S = 0.001  # between batches, so that a batch holds more than one event
WATCH_FIRST_S = 0.001  # while a transaction is open that may have read the doorbell before it was armed
WATCH_MAX_S = 0.05

log = structlog.get_logger()


class Relay:
    """Moves events while this process leads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pruned_at = 0.0
        self._prune_start = 0
        self._unpruned = 0
        self._bell: SessionWake | None = None
        self.progress = Progress()

    async def run_forever(self) -> None:
        """Relay until cancelled."""
        backoff = Backoff(0.1)
        while True:
            try:
                async with self._database.session(BELL_CHANNEL).kept() as session:
                    if await session.run(RelayRecover()):
                        log.warning("relay.recovered", reason="the database was restored; cursors begin a new epoch")
                    backoff.reset()
                    await self._relay(session)
            except Exception as error:  # noqa: BLE001 - the relay never stops at an error
                self.progress.failed(error)
                log.warning("relay.failed", error=str(error) or type(error).__name__, retry_s=backoff.next_s)
            except BaseException:  # it leads no longer
                self.progress.made()
                raise
            finally:
                self._bell = None
            await backoff.wait()

    def nudge(self) -> None:
        """Wake the relay; the leader's heartbeat found events in the outbox."""
        if self._bell is not None:
            self._bell.set()

    async def _relay(self, session: Session) -> None:
        self._bell = session.wake(BELL_CHANNEL)
        watch_s = WATCH_FIRST_S
        await self._drain(session)
        while True:
            # Arm first, then step once more: a writer that this step misses has read the bell armed, and rings.
            safe = await session.run(RelayArm())
            if await self._step(session):
                watch_s = WATCH_FIRST_S
                await self._drain(session)
            elif not safe:
                await anyio.sleep(watch_s)
                watch_s = min(watch_s * 2, WATCH_MAX_S)
            else:
                watch_s = WATCH_FIRST_S
                with metrics.RELAY_SLEEPING.track_inprogress():
                    rung = await self._bell.wait(REARM_S)
                if rung:
                    await self._drain(session)

    async def _drain(self, session: Session) -> None:
        """Step until the outbox is empty."""
        while await self._step(session):  # noqa: ASYNC110 - a step is a call, not a poll of a flag
            await anyio.sleep(LINGER_S)

    async def _step(self, session: Session) -> bool:
        """Run batches until one is not full; return whether the last one moved events."""
        while True:
            step = await session.run(RelayStep(limit=BATCH))
            self.progress.made()
            if step.moved:
                self._unpruned += step.moved
                metrics.EVENT_NUMBERED.inc(step.moved)
                metrics.RELAY_BATCH_EVENTS.observe(step.moved)
            if self._unpruned and time.monotonic() - self._pruned_at > PRUNE_S:
                self._prune_start = await session.run(OutboxPrune(start=self._prune_start))
                self._pruned_at = time.monotonic()
                self._unpruned = 0
            if not step.again:
                return step.moved > 0
