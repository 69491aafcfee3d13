"""Delivers events to webhooks while this process leads.

The guarantees come from ``sql/functions/webhook/``: a delivery is a row before it is sent, a claim names the process
that sends it, and only the holder of the claim stores the result. This process may be killed, paused or run twice at
any point: a delivery whose result was not stored is attempted again when its claim ends, with the same webhook-id.

One loop makes the calls to the database: it stores the results of attempts, compares new events with topics, and claims
due deliveries. Separate tasks carry out the claims, each for the deliveries of one webhook in their order. So one call
serves all claims that ended during the previous call.

Memory use is limited by ``SLOTS``. Webhooks that are slow or fail get half of the slots; together with those to which
nothing was delivered yet, three quarters. So they never delay the others.

It does nothing until a heartbeat finds a webhook with work. After that, each step of the relay wakes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID, uuid4

import anyio
import msgspec
import structlog

from coordinator.backoff import Backoff
from coordinator.errors import DatabaseUnavailable
from coordinator.model.call_origin import CallOrigin, coming_from
from coordinator.model.catalogue import LIMITS
from coordinator.model.network import Networks
from coordinator.model.webhook import WebhookWork
from coordinator.operations import webhooks
from coordinator.operations.executor import Runner
from coordinator.telemetry import metrics
from coordinator.webhooks.sender import Sender, WebhookAttempt

__all__ = ["WebhookDeliveries"]

SLOTS = 64
TURN_S = 1.0  # after this, a claim begins no further attempt, so that it ends before its lease
AGAIN_S = 0.5  # pause before a result is stored again if another transaction has locked its webhook
GONE = 410

log = structlog.get_logger()


class WebhookDeliveries:
    """Fills, claims and delivers. ``database`` opens a separate connection, once there is a webhook."""

    def __init__(self, database: Callable[[], AbstractAsyncContextManager[Runner]], networks: Networks) -> None:
        self._database = database
        self._networks = networks
        self._woken = anyio.Event()
        self._listening = False

    def nudge(self) -> None:
        """Look for work: a heartbeat has found some."""
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
                with coming_from(CallOrigin(loop="webhook")):
                    async with self._database() as runner:
                        backoff.reset()
                        await self._run(_Claims(runner, self.nudge), Sender(self._networks))
            except Exception as error:  # noqa: BLE001 - it never stops at an error
                log.warning("webhook.failed", error=str(error) or type(error).__name__, retry_s=backoff.next_s)
            finally:
                self._listening = False
            await backoff.wait()

    async def _run(self, claims: _Claims, sender: Sender) -> None:
        backoff = Backoff()
        async with anyio.create_task_group() as tasks:
            while True:
                self._woken = anyio.Event()
                try:
                    await claims.store()
                    found = await claims.runner.run(webhooks.Fill())
                    claimed = await claims.claim()
                except Exception as error:  # noqa: BLE001 - attempts in progress continue
                    log.warning("webhook.failed", error=str(error) or type(error).__name__, retry_s=backoff.next_s)
                    await backoff.wait()
                    continue
                backoff.reset()
                self._listening = found is not None
                for works in claimed:
                    tasks.start_soon(claims.carry_out, sender, works)
                if not found:
                    with anyio.move_on_after(AGAIN_S if claims.ended else None):
                        await self._woken.wait()


class _Claims:
    """The webhooks that this process has claimed, from the claim until its results are stored."""

    def __init__(self, runner: Runner, on_end: Callable[[], None]) -> None:
        self.runner = runner
        self.ended: dict[int, dict[str, Any]] = {}
        self._slots: dict[int, int] = {}
        self._holder: UUID = uuid4()
        self._on_end = on_end

    async def claim(self) -> list[list[WebhookWork]]:
        """Claim as much as fits into the free slots; return the deliveries of each webhook."""
        free = SLOTS - sum(self._slots.values())
        if free <= 0:
            return []
        works = await self.runner.run(
            webhooks.ClaimDeliveries(
                limit=free, slow=SLOTS // 2, unproven=SLOTS - SLOTS // 4, holder=self._holder, held=list(self._slots)
            )
        )
        claimed = [list(group) for _, group in groupby(works, attrgetter("webhook"))]
        self._slots |= {works[0].webhook: works[0].slots for works in claimed}
        return claimed

    async def carry_out(self, sender: Sender, works: list[WebhookWork]) -> None:
        """Make the deliveries of a claim, until an attempt fails or the turn is over."""
        began = time.monotonic()
        attempts: list[dict[str, Any]] = []
        async with sender.connected() as line:
            for work in works:
                attempt = await line.send(work)
                _count(work, attempt)
                attempts.append({"delivery": work.delivery, **msgspec.structs.asdict(attempt)})
                if attempt.error is not None or time.monotonic() - began > TURN_S:
                    break
        self.ended[works[0].webhook] = {"webhook": works[0].webhook, "claim": works[0].claim, "attempts": attempts}
        self._on_end()

    async def store(self) -> None:
        """Store the results of claims. Results that cannot be stored now are kept for the next time.

        Raises: ``DatabaseUnavailable``.
        """
        ended = [*self.ended.values()]
        if not ended:
            return
        busy: list[int] = []
        try:
            busy = await self.runner.run(webhooks.Finish(claims=ended))
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - these claims end without it, and are attempted again
            log.warning("webhook.store_failed", webhooks=[one["webhook"] for one in ended], error=str(error))
        for webhook in {one["webhook"] for one in ended} - {*busy}:
            del self.ended[webhook], self._slots[webhook]


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
