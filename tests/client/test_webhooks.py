from __future__ import annotations

import pytest

import coordinator
from coordinator.errors import NotFound


async def test_a_webhook_is_added_listed_tested_rotated_paused_resumed_and_removed(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="boss") as client:
        made = await client.webhooks.add("https://example.com/hook", ["lock.broken", "job.*"])
        shown = await client.webhooks.show(made.webhook)
        assert (shown.url, shown.topics, shown.status, shown.actor) == (
            "https://example.com/hook",
            ["lock.broken", "job.*"],
            "active",
            "boss",
        )
        assert await client.webhooks.list() == [shown]
        assert (await client.webhooks.rotate(made.webhook, overlap=60)).secret != made.secret
        sent = await client.webhooks.test(made.webhook)
        assert await client.webhooks.delivery(sent.delivery) == sent
        assert await client.webhooks.deliveries(made.webhook) == [sent]
        assert await client.webhooks.deliveries(made.webhook, status="dead") == []
        assert await client.webhooks.redrive(made.webhook, topics=["job.*"]) == 0
        assert (await client.webhooks.pause(made.webhook, reason="why")).pause_reason == "why"
        assert (await client.webhooks.resume(made.webhook)).paused_at is None
        assert await client.webhooks.remove(made.webhook) is True
        with pytest.raises(NotFound):
            await client.webhooks.show(made.webhook)
