"""Webhooks: events that the leading daemon sends to URLs, signed, in order and at least once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from coordinator.model.network import Networks
from coordinator.model.operation import Batch, InProject, Json, Operation
from coordinator.model.webhook import Webhook, WebhookDelivery, WebhookSecret, WebhookWork

__all__ = [
    "Add",
    "ClaimDeliveries",
    "Deliveries",
    "Delivery",
    "Fill",
    "Finish",
    "List",
    "Pause",
    "Prune",
    "Redrive",
    "Remove",
    "Resume",
    "Rotate",
    "Show",
    "Test",
]


class Add(InProject[WebhookSecret], frozen=True, kw_only=True):
    """Send events of a project to a URL: events of ``topics`` from now on, or after the cursor ``after``.

    Returns the secret with which requests are signed. It is shown only this once. Private addresses are refused, unless
    the setting ``webhook_networks`` allows them.

    Raises: ``InvalidArgument``.
    """

    function = "webhook_add"
    speakers = ("actor",)
    examples = {"url": "https://example.com/hook", "topics": ["lock.broken"]}

    url: str
    topics: list[str]
    after: str | None = None
    actor: str | None = None

    def check_settings(self, config: Any) -> None:
        """Refuse a URL at an address that the settings do not allow."""
        Networks(config.webhook_networks).check_url(self.url)


class List(InProject[list[Webhook]], frozen=True, kw_only=True):
    """List the webhooks of a project in order of creation, without their secrets."""

    function = "webhook_list"
    reads = True
    page_by = ("webhook",)

    after: list[str] | None = None
    limit: int = 1000


class Show(InProject[Webhook], frozen=True, kw_only=True):
    """Show a webhook, without its secret.

    Raises: ``NotFound``.
    """

    function = "webhook_show"
    reads = True

    webhook: int


class Remove(InProject[bool], frozen=True, kw_only=True):
    """Remove a webhook, with its deliveries.

    Raises: ``NotFound``.
    """

    function = "webhook_remove"
    speakers = ("actor",)

    webhook: int
    actor: str | None = None


class Pause(InProject[Webhook], frozen=True, kw_only=True):
    """Pause a webhook: its events wait in the log. Pausing it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "webhook_pause"
    speakers = ("actor",)

    webhook: int
    reason: str | None = None
    actor: str | None = None


class Resume(InProject[Webhook], frozen=True, kw_only=True):
    """Resume a paused or disabled webhook: it continues where it stopped. Resuming it again changes nothing.

    Raises: ``NotFound``.
    """

    function = "webhook_resume"
    speakers = ("actor",)

    webhook: int
    actor: str | None = None


class Rotate(InProject[WebhookSecret], frozen=True, kw_only=True):
    """Give a webhook a new secret, which is shown only this once. For ``overlap``, requests are also signed with the former secret.

    Raises: ``NotFound``.
    """

    function = "webhook_rotate"
    speakers = ("actor",)

    webhook: int
    overlap: timedelta = timedelta(days=1)
    actor: str | None = None


class Test(InProject[WebhookDelivery], frozen=True, kw_only=True):
    """Deliver a message of type ``test`` once, before waiting deliveries, even if the webhook is paused.

    Returns its delivery; ``Delivery`` shows the outcome.

    Raises: ``NotFound``.
    """

    function = "webhook_test"
    speakers = ("actor",)

    webhook: int
    actor: str | None = None


class Deliveries(InProject[list[WebhookDelivery]], frozen=True, kw_only=True):
    """List deliveries of a webhook, newest first. ``status`` is waiting, delivered or dead."""

    function = "webhook_deliveries"
    reads = True
    page_by = ("delivery",)

    webhook: int
    status: str | None = None
    after: list[str] | None = None
    limit: int = 1000


class Delivery(InProject[WebhookDelivery], frozen=True, kw_only=True):
    """Show a delivery. A wait for it ends when it is delivered or dead.

    Raises: ``NotFound``.
    """

    function = "webhook_delivery"
    reads = True
    woken_by = ("webhook.tested", "webhook.dead")

    delivery: int

    def answered(self, result: WebhookDelivery) -> bool:
        """Return whether it has ended."""
        return result.status != "waiting"


class Redrive(InProject[int], frozen=True, kw_only=True):
    """Deliver dead deliveries of a webhook again, before waiting ones, with the same webhook-id; returns how many.

    ``delivery`` names one. Without it, all are delivered again: those of events of ``topics``, from ``since`` until
    ``until``.

    Raises: ``NotFound``.
    """

    function = "webhook_redrive"
    speakers = ("actor",)

    webhook: int
    delivery: int | None = None
    topics: list[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None


class Fill(Operation[int | None], frozen=True, kw_only=True):
    """Compare chunks of the log with the topics of webhooks; returns how much it did, None if there are no webhooks."""

    function = "webhook_fill"
    internal = True

    limit: int = 20


class ClaimDeliveries(Operation[list[WebhookWork]], frozen=True, kw_only=True):
    """Claim webhooks with due deliveries, while fewer than ``limit`` slots are taken, and fewer than ``slow`` by slow or failing ones.

    Those and webhooks to which nothing was delivered yet take at most ``unproven`` slots together.

    ``holder`` identifies the claimer; ``held`` lists the webhooks that it has claimed and not finished. Its other
    claims end.
    """

    function = "webhook_claim"
    internal = True

    limit: int = 64
    slow: int = 32
    lease: timedelta = timedelta(minutes=1)
    holder: UUID | None = None
    held: list[int] = msgspec.field(default_factory=list)
    unproven: int = 48


class Finish(Operation[list[int]], frozen=True, kw_only=True):
    """Store the results of attempts, and end their claims; returns the webhooks that another transaction has locked, to be repeated.

    ``claims`` are objects of webhook, claim and attempts, which are objects of delivery, seconds, response, error and
    retry_s. They have no effect on a webhook that another daemon has claimed since.
    """

    function = "webhook_finish"
    internal = True

    claims: Json


class Prune(Batch, frozen=True, kw_only=True):
    """Delete ended deliveries, except the newest of each webhook; returns how many."""

    function = "webhook_prune"
