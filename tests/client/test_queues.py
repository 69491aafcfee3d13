from __future__ import annotations

from datetime import timedelta

import pytest

import coordinator
from coordinator.errors import Conflict, NotFound


async def test_a_queue_is_set_read_listed_paused_and_resumed(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="boss") as client:
        made = await client.queues.set("mail", fair_by="key", ageing=60, weights={"acme": 3}, max_waiting=5)
        assert (made.ageing, made.weights, made.actor) == (timedelta(minutes=1), {"acme": 3}, "boss")
        assert await client.queues.get("mail") == made
        changed = await client.queues.set("mail", ageing=0, max_waiting_per_key=2, events="job")
        assert (changed.ageing, changed.fair_by, changed.max_waiting) == (None, "key", 5)
        paused = await client.queues.pause("mail", reason="Down")
        assert (paused.paused_by, paused.pause_reason) == ("boss", "Down")
        assert [queue async for queue in client.queues.list()] == [paused]
        assert (await client.queues.resume("mail")).paused_at is None
        with pytest.raises(NotFound):
            await client.queues.get("males")


async def test_a_queue_without_open_jobs_is_deleted(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="boss") as client:
        job = await client.jobs.enqueue("send", queue="mail")
        with pytest.raises(Conflict, match="1 queued") as refused:
            await client.queues.delete("mail")
        assert refused.value.code == "ZC326"
        await client.jobs.cancel(job.id)
        assert await client.queues.delete("mail") is True
        with pytest.raises(NotFound):
            await client.queues.delete("mail")
