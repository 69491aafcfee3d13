"""Webhooks: events that the leading daemon sends to URLs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.webhook import Webhook, WebhookDelivery, WebhookSecret
from coordinator.operations import webhooks

__all__ = ["Webhooks"]

OVERLAP_S = 86_400.0


class Webhooks(Verbs):
    """The webhooks of the client's project."""

    async def add(self, url: str, topics: Sequence[str], *, after: str | None = None) -> WebhookSecret:
        """Send events to a URL: events of ``topics`` (``lock.broken``, ``signal.*``, ``*``) from now on, or after the cursor ``after``.

        Returns the secret with which requests are signed. It is shown only this once.

        Raises: ``InvalidArgument``.
        """
        return await self._caller.run(
            webhooks.Add(url=url, topics=list(topics), after=after, **await self._caller.author())
        )

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Webhook]:
        """List the webhooks of the project in order of creation, without their secrets."""
        return Listing(self._caller, webhooks.List(project=self._caller.project, limit=limit), after)

    async def show(self, webhook: int) -> Webhook:
        """Return a webhook, without its secret.

        Raises: ``NotFound``.
        """
        return await self._caller.run(webhooks.Show(project=self._caller.project, webhook=webhook))

    async def remove(self, webhook: int) -> bool:
        """Remove a webhook, with its deliveries.

        Raises: ``NotFound``.
        """
        return await self._caller.run(webhooks.Remove(webhook=webhook, **await self._caller.author()))

    async def pause(self, webhook: int, *, reason: str | None = None) -> Webhook:
        """Pause a webhook: its events wait in the log. Pausing it again changes nothing.

        Raises: ``NotFound``.
        """
        return await self._caller.run(webhooks.Pause(webhook=webhook, reason=reason, **await self._caller.author()))

    async def resume(self, webhook: int) -> Webhook:
        """Resume a webhook that was paused or disabled: it continues where it was.

        Raises: ``NotFound``.
        """
        return await self._caller.run(webhooks.Resume(webhook=webhook, **await self._caller.author()))

    async def rotate(self, webhook: int, *, overlap: Duration = OVERLAP_S) -> WebhookSecret:
        """Give a webhook a new secret, which is shown only this once. For ``overlap``, the former one signs as well.

        Raises: ``NotFound``.
        """
        return await self._caller.run(
            webhooks.Rotate(webhook=webhook, overlap=as_duration(overlap), **await self._caller.author())
        )

    async def test(self, webhook: int) -> WebhookDelivery:
        """Deliver a message of type ``test`` once; ``delivery`` shows its outcome.

        Raises: ``NotFound``.
        """
        return await self._caller.run(webhooks.Test(webhook=webhook, **await self._caller.author()))

    def deliveries(
        self,
        webhook: int,
        *,
        status: Literal["waiting", "delivered", "dead"] | None = None,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[WebhookDelivery]:
        """List deliveries of a webhook, newest first."""
        operation = webhooks.Deliveries(project=self._caller.project, webhook=webhook, status=status, limit=limit)
        return Listing(self._caller, operation, after)

    async def delivery(self, delivery: int) -> WebhookDelivery:
        """Return a delivery.

        Raises: ``NotFound``.
        """
        return await self._caller.run(webhooks.Delivery(project=self._caller.project, delivery=delivery))

    async def redrive(
        self,
        webhook: int,
        *,
        delivery: int | None = None,
        topics: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """Deliver dead deliveries again, with the same webhook-id: one, those of some events, or all; return how many.

        Raises: ``NotFound``.
        """
        return await self._caller.run(
            webhooks.Redrive(
                webhook=webhook,
                delivery=delivery,
                topics=None if topics is None else list(topics),
                since=since,
                until=until,
                **await self._caller.author(),
            )
        )
