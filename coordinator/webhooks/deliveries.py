"""Delivers events to webhooks while this process leads.

The guarantees come from ``sql/functions/webhook.sql``: what has to be delivered is a row before it is sent, a claim names who sends it, and only who
has the claim stores what became of it. This process may be killed, paused or run twice at any point: a delivery whose outcome was
not stored is attempted again when its claim ends, with the same webhook-id.

At most ``SLOTS`` attempts are in progress, half of them of webhooks that are slow or fail, so those keep the others from nothing. After ``TURN``
deliveries in a row, a webhook gives its slot to whoever waits.

It does nothing until a heartbeat finds a webhook with work. Then each step of the relay wakes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import structlog
from anyio.abc import TaskGroup

from coordinator.backoff import Backoff
from coordinator.errors import DatabaseUnavailable
from coordinator.model.catalogue import LIMITS
from coordinator.model.network import Networks
from coordinator.model.webhook import WebhookWork
from coordinator.operations import webhooks
from coordinator.operations.executor import Runner
from coordinator.telemetry import metrics
from coordinator.webhooks.sender import Sender, WebhookAttempt

__all__ = ["WebhookDeliveries"]

SLOTS = 64
TURN = 20
STORE_S = 30.0  # half of a claim: for as long, storing an outcome is repeated
GONE = 410

log = structlog.get_logger()


class WebhookDeliveries:
    """Fills, claims and delivers. ``database`` opens connections of its own, once there is a webhook."""

    def __init__(self, database: Callable[[], AbstractAsyncContextManager[Runner]], networks: Networks) -> None:
        self._database = database
        self._networks = networks
        self._woken = anyio.Event()
        self._listening = False
        self._busy = 0

    def nudge(self) -> None:
        """Look for work: a heartbeat found some."""
        self._woken.set()

    def heard(self) -> None:
        """Look for work, if there are webhooks: events were numbered."""
        if self._listening:
            self._woken.set()

    async def run_forever(self) -> None:
        """Deliver until cancelled."""
        backoff = Backoff(0.5, 30.0)
        while True:
            await self._woken.wait()
            try:
                async with self._database() as runner, Sender.open(self._networks) as sender:
                    backoff.reset()
                    async with anyio.create_task_group() as tasks:
                        await self._run(runner, sender, tasks)
            except Exception as error:  # noqa: BLE001 - it never stops at an error
                log.warning("webhook.failed", error=str(error) or type(error).__name__, retry_s=backoff.next_s)
            finally:
                self._listening = False
                self._busy = 0
            await backoff.wait()

    async def _run(self, runner: Runner, sender: Sender, tasks: TaskGroup) -> None:
        backoff = Backoff(0.5, 30.0)
        while True:
            self._woken = anyio.Event()
            try:
                found = await runner.run(webhooks.Fill())
                free = SLOTS - self._busy
                claimed = await runner.run(webhooks.ClaimDeliveries(limit=free)) if free else []
            except Exception as error:  # noqa: BLE001 - attempts in progress continue
                log.warning("webhook.failed", error=str(error) or type(error).__name__, retry_s=backoff.next_s)
                await backoff.wait()
                continue
            backoff.reset()
            self._listening = found is not None
            for work in claimed:
                self._busy += 1
                tasks.start_soon(self._deliver, runner, sender, work)
            if not found:
                await self._woken.wait()

    async def _deliver(self, runner: Runner, sender: Sender, work: WebhookWork) -> None:
        try:
            for turn in range(1, TURN + 1):
                attempt = await sender.send(work)
                _count(work, attempt)
                further = await _store(runner, work, attempt, more=turn < TURN)
                if not further:
                    break
                (work,) = further
        except Exception as error:  # noqa: BLE001 - the claim ends, and it is attempted again
            log.warning("webhook.unstored", webhook=work.webhook, delivery=work.delivery, error=str(error))
        finally:
            self._busy -= 1
            self._woken.set()


async def _store(runner: Runner, work: WebhookWork, attempt: WebhookAttempt, *, more: bool) -> list[WebhookWork]:
    """Store how an attempt ended; return the next delivery of the webhook, if there is one.

    Raises: ``DatabaseUnavailable`` after ``STORE_S``.
    """
    operation = webhooks.Finish(
        webhook=work.webhook,
        claim=work.claim,
        delivery=work.delivery,
        seconds=attempt.seconds,
        response=attempt.response,
        error=attempt.error,
        retry=attempt.retry,
        more=more,
    )
    backoff = Backoff()
    until = time.monotonic() + STORE_S
    while True:
        try:
            return await runner.run(operation)
        except DatabaseUnavailable:
            if time.monotonic() > until:
                raise
        await backoff.wait()


def _count(work: WebhookWork, attempt: WebhookAttempt) -> None:
    metrics.WEBHOOK_SECONDS.observe(attempt.seconds)
    if attempt.error is None:
        metrics.WEBHOOK_ATTEMPTS.labels("delivered").inc()
        return
    dead = attempt.response == GONE or work.attempt >= LIMITS["webhook_attempts"]
    metrics.WEBHOOK_ATTEMPTS.labels("dead" if dead else "failed").inc()
    log.info(
        "webhook.attempt_failed",
        project=work.project,
        webhook=work.webhook,
        delivery=work.delivery,
        attempt=work.attempt,
        response=attempt.response,
        error=attempt.error,
    )
