"""The relay: numbers the events of the log while there are any, and sleeps behind a doorbell while there are none.

The guarantees come from ``coordinator.relay_step`` (sql/functions/relay.sql): one transaction numbers a chunk and
notifies. This process may be killed, paused or run twice at any point; no event is lost, repeated or reordered. The
pace comes from ``coordinator.relay_run``, which steps while there are events: a single event is numbered immediately,
and under load a chunk holds hundreds. Then this module arms the doorbell. When every transaction that may have read the
doorbell before it was armed has ended, it steps once more and blocks. A lost doorbell delays an event until the
leader's next heartbeat, at most one second.

On failure, the relay logs the error, drops the connection, backs off and starts again; ``obstacle`` returns why.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import structlog

from coordinator.backoff import Backoff
from coordinator.db.database import Database
from coordinator.db.session import ServerSession, SessionWake
from coordinator.operations.work import RelayArm, RelayRecover, RelayRun
from coordinator.progress import Progress
from coordinator.telemetry import metrics, tracing

__all__ = ["BELL_CHANNEL", "Relay"]

BELL_CHANNEL = "coordinator.bell"

REARM_S = 10.0  # the bell is armed for 15 s
STEP_TIMEOUT_S = 30.0  # for large events on a slow disk; a connection that does not respond for longer is replaced
WATCH_FIRST_S = 0.001  # first pause while a transaction is open that may have read the doorbell before it was armed
WATCH_MAX_S = 0.05

_BATCH = {
    "messaging.system": "coordinator",
    "messaging.operation.name": "relay",
    "db.system.name": "postgresql",
    "db.stored_procedure.name": f"coordinator.{RelayRun.function}",
}

log = structlog.get_logger()


class Relay:
    """Numbers events while this process leads. ``on_numbered`` is called after each batch."""

    def __init__(self, database: Database, on_numbered: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._on_numbered = on_numbered
        self._bell: SessionWake | None = None
        self._nudged = False
        self._progress = Progress()

    async def run_forever(self) -> None:
        """Relay until cancelled."""
        backoff = Backoff(0.1)
        while True:
            try:
                async with self._database.session(BELL_CHANNEL, call_timeout_s=STEP_TIMEOUT_S).kept() as session:
                    if await session.run(RelayRecover()):
                        log.info("relay.recovered", reason="another run of the server, or another copy of the database")
                    backoff.reset()
                    await self._relay(session)
            except Exception as error:  # noqa: BLE001 - the relay never stops at an error
                self._progress.failed(error)
                log.warning("relay.failed", error=str(error) or type(error).__name__, retry_s=backoff.next_s)
            except BaseException:  # the process no longer leads
                self._progress.made()
                raise
            finally:
                self._bell = None
            await backoff.wait()

    def obstacle(self, tolerated_s: float) -> str | None:
        """Return why events have not been numbered for longer than ``tolerated_s`` seconds."""
        reason = self._progress.obstacle(tolerated_s)
        return f"events are not numbered: {reason}" if reason else None

    def nudge(self) -> None:
        """Wake the relay; the leader's heartbeat found events without a number."""
        self._nudged = True
        if self._bell is not None:
            self._bell.set()

    async def _relay(self, session: ServerSession) -> None:
        self._bell = session.wake(BELL_CHANNEL)
        watch_s = WATCH_FIRST_S
        await self._drain(session)
        while True:
            # Arm first, then step once more: a writer that this step misses has read the bell armed, and rings.
            safe = await session.run(RelayArm())
            if await self._drain(session):
                watch_s = WATCH_FIRST_S
            elif not safe:
                await anyio.sleep(watch_s)
                watch_s = min(watch_s * 2, WATCH_MAX_S)
            else:
                watch_s = WATCH_FIRST_S
                self._nudged = False
                with metrics.RELAY_SLEEPING.track_inprogress():
                    rung = await self._bell.wait(REARM_S)
                if rung:
                    metrics.RELAY_DOORBELLS.labels("missed" if self._nudged else "rung").inc()
                    await self._drain(session)

    async def _drain(self, session: ServerSession) -> bool:
        """Run steps until no event is left; return whether there were any."""
        found = False
        while True:
            began_ns = time.time_ns()
            chunks = await session.run(RelayRun())
            self._progress.made()
            if moved := sum(chunks):
                tracing.record("relay batch", began_ns, {**_BATCH, "messaging.batch.message_count": moved})
            for moved in filter(None, chunks):
                found = True
                metrics.EVENT_NUMBERED.inc(moved)
                metrics.RELAY_BATCH_EVENTS.observe(moved)
            if found:
                self._on_numbered()
            if chunks[-1:] == [0]:
                return found
