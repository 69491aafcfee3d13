"""Webhooks: URLs to which the leading daemon sends events."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Webhook", "WebhookDelivery", "WebhookSecret", "WebhookWork"]


class Webhook(msgspec.Struct, frozen=True):
    """A URL and the topics of its events. ``status`` is active, failing, paused or disabled.

    Until ``before_until``, its former secret signs as well.
    """

    project: str
    webhook: int
    url: str
    topics: list[str]
    status: str
    waiting_count: int
    dead_count: int
    delivered_at: datetime | None
    failing_since: datetime | None
    error: str | None
    before_until: datetime | None
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    actor: str
    created_at: datetime
    updated_at: datetime


class WebhookSecret(msgspec.Struct, frozen=True):
    """A webhook and the secret with which its requests are signed, which is shown only once."""

    webhook: int
    secret: str


class WebhookDelivery(msgspec.Struct, frozen=True):
    """An event for a webhook. ``status`` is waiting, delivered or dead; ``message`` is the header webhook-id of each attempt."""

    project: str
    webhook: int
    delivery: int
    message: str
    type: str
    key: str | None
    at: datetime
    status: str
    attempts: int
    due_at: datetime | None
    attempted_at: datetime | None
    response: int | None
    error: str | None
    seconds: float | None


class WebhookWork(msgspec.Struct, frozen=True):
    """A delivery to attempt under a claim: the request, the secrets that sign it, and how many slots the claim takes."""

    webhook: int
    project: str
    claim: int
    delivery: int
    message: str
    url: str
    secrets: list[str]
    body: str
    attempt: int
    slots: int
