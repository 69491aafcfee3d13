"""Runs the loops while this process leads. Errors never stop it.

One heartbeat a second takes or keeps the lead, and reports which loops have work, so an idle loop makes no calls. When
the leader dies, its liveness lock becomes free, and the next heartbeat of another daemon takes the lead. If the leader
is paused, its lead expires after 5 seconds. Two leaders at once do no harm, because each run of a loop is one
transaction.

The heartbeat also determines whether the database responds: ``obstacle``. After a failed heartbeat or a lost connection
(``hurry``), another one follows at once, and then four per second.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
import structlog

from coordinator.backoff import Backoff
from coordinator.errors import CoordinatorError, DatabaseUnavailable
from coordinator.loops.loop import Loop
from coordinator.model.call_origin import CallOrigin, coming_from
from coordinator.model.work import Lead
from coordinator.operations.events import Head
from coordinator.operations.executor import Runner
from coordinator.operations.work import LeaderRenew
from coordinator.progress import Progress
from coordinator.telemetry import metrics, tracing

__all__ = ["Keeper"]

HEARTBEAT_S = 1.0
RETRY_S = 0.25  # after a heartbeat that failed, and until this process has its liveness lock again
LEAD_S = 5.0
SILENT_S = 4.5  # without a response for this long, the database counts as unavailable, even if nothing has failed

log = structlog.get_logger()


class Keeper:
    """Holds the lead, and runs the loops and tasks of the leader.

    Heartbeats run on ``lead``, where no other call delays them; loops run on ``executor``. ``process`` returns the id
    of this process, or None while it does not hold its liveness lock. ``on_due`` is called with each due name that is
    not a loop (the relay, webhooks), and ``on_epoch`` with the epoch of the server.
    """

    def __init__(
        self,
        lead: Runner,
        executor: Runner,
        loops: Sequence[Loop],
        process: Callable[[], int | None],
        on_due: Callable[[str], None],
        *,
        on_epoch: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._lead = lead
        self._executor = executor
        self._loops = {loop.name: loop for loop in loops}
        self._due = {loop.name: anyio.Event() for loop in loops}
        self._process = process
        self._on_due = on_due
        self._on_epoch = on_epoch
        self._leads_until = 0.0
        self._led = False
        self._changed = anyio.Event()
        self._hurried = anyio.Event()
        self._heard_at = 0.0
        self._progress = Progress()
        self._refusal: str | None = None  # why the lead was not renewed although the database responded, as logged
        self._due_since: dict[str, float] = {}  # loops that have not run since they became due
        metrics.LEADER.set_function(lambda: self.leads)
        for name in self._loops:
            metrics.LOOP_LAG_SECONDS.labels(name).set_function(partial(self._lag_s, name))

    @property
    def leads(self) -> bool:
        """Whether this process leads, as far as it knows. It stops assuming so before the database's deadline."""
        return time.monotonic() < self._leads_until

    def obstacle(self) -> str | None:
        """Return why the database does not respond, or None if it does."""
        if reason := self._progress.obstacle(0):
            return reason
        silent = time.monotonic() - self._heard_at > SILENT_S
        return f"no answer from the database for {SILENT_S:g} seconds" if silent else None

    def hurry(self) -> None:
        """Send the next heartbeat now: a connection was lost or restored."""
        self._hurried.set()

    async def run_forever(self) -> None:
        """Send heartbeats until cancelled, and run every loop while leading."""
        async with anyio.create_task_group() as tasks:
            for loop in self._loops.values():
                tasks.start_soon(self._run_loop, loop)
            while True:
                began = time.monotonic()
                self._hurried = anyio.Event()
                await self._heartbeat(began)
                settled = self._progress.obstacle(0) is None and self._process() is not None
                pause_s = HEARTBEAT_S if settled else RETRY_S
                with anyio.move_on_after(max(0.0, pause_s - (time.monotonic() - began))):
                    await self._hurried.wait()

    async def while_leading(self, run_forever: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task while this process leads; cancel it when the lead ends."""
        while True:
            await self._until(leads=True)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run_forever)
                await self._until(leads=False)
                tasks.cancel_scope.cancel()

    async def _until(self, *, leads: bool) -> None:
        while self.leads != leads:
            with anyio.move_on_after(max(0.0, self._leads_until - time.monotonic()) if self.leads else None):
                await self._changed.wait()

    async def _heartbeat(self, began: float) -> None:
        led = self._led
        try:
            lead = await self._renew()
        except Exception as error:  # noqa: BLE001 - the heartbeat never stops at an error
            reason = str(error) or type(error).__name__
            if isinstance(error, DatabaseUnavailable | TimeoutError):
                news = self._progress.failed(error)
            else:
                news, self._refusal = reason != self._refusal, reason
            if news:
                log.warning("leader.renew_failed", error=reason)
        else:
            self._heard()
            self._refusal = None
            self._leads_until = began + LEAD_S if lead.leads else 0.0
            if lead.epoch is not None:
                self._on_epoch(lead.epoch)
            for name in lead.due:
                if name in self._due:
                    self._due_since.setdefault(name, time.monotonic())
                    self._due[name].set()
                else:
                    self._on_due(name)
        self._led = self.leads
        if self._led != led:
            log.info("leader.changed", leads=self._led)
        if not self._led:
            metrics.SAMPLES.clear()  # the next leader shows them; a sample may have ended after the lead
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _lag_s(self, name: str) -> float:
        since = self._due_since.get(name)
        return 0.0 if since is None or not self.leads else time.monotonic() - since

    async def _renew(self) -> Lead:
        process = self._process()
        with anyio.fail_after(LEAD_S):
            if process is not None:
                return await self._lead.run(LeaderRenew(process=process))
            await self._executor.run(Head())  # checks whether the database responds
        self._heard()
        raise CoordinatorError("the liveness lock is lost", hint="It is taken again automatically.")

    def _heard(self) -> None:
        self._heard_at = time.monotonic()
        if self._progress.made():
            log.info("leader.renew_resumed")

    async def _run_loop(self, loop: Loop) -> None:
        backoff = Backoff(0.5, 30.0)
        wait_s, failed = _first_wait_s(loop), False
        while True:
            if failed:
                await backoff.wait()  # even if the heartbeat reports work
                wait_s = 0.0
            with anyio.move_on_after(wait_s):
                await self._due[loop.name].wait()
            self._due[loop.name] = anyio.Event()
            if not self.leads:
                await self._until(leads=True)
                wait_s, failed = _first_wait_s(loop), False
                self._due_since.pop(loop.name, None)
                backoff.reset()
                continue
            self._due_since.setdefault(loop.name, time.monotonic())
            began = time.perf_counter()
            metrics.LOOP_RUNS.labels(loop.name).inc()
            try:
                with (
                    tracing.span(f"loop {loop.name}", attributes={"coordinator.loop": loop.name}) as span,
                    coming_from(CallOrigin(loop=loop.name)),
                ):
                    run = await loop.run(self._executor)
                    span.set("coordinator.loop.handled", run.handled)
            except Exception as error:  # noqa: BLE001 - a loop never stops at an error
                metrics.LOOP_ERRORS.labels(loop.name).inc()
                log.warning("loop.failed", loop=loop.name, error=str(error), retry_s=backoff.next_s)
                failed = True
                continue
            finally:
                metrics.LOOP_SECONDS.labels(loop.name).observe(time.perf_counter() - began)
            failed = False
            self._due_since.pop(loop.name, None)
            backoff.reset()
            if run.handled:
                metrics.LOOP_HANDLED.labels(loop.name).inc(run.handled)
                log.info("loop.ran", loop=loop.name, handled=run.handled)
            wait_s = loop.every_s if run.again_s is None else run.again_s


def _first_wait_s(loop: Loop) -> float:
    """Return how long after taking the lead a loop first runs: soon, but not all loops at once."""
    return random.uniform(0, min(loop.every_s, 5.0))  # noqa: S311
