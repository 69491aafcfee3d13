from __future__ import annotations

from datetime import UTC, datetime

import pytest

import coordinator
from coordinator.errors import InvalidArgument, NotFound


async def test_a_cron_is_set_read_listed_run_paused_resumed_and_deleted(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="boss") as client:
        made = await client.crons.set("nightly", "0 2 * * *", {"type": "report"}, zone="Europe/Berlin")
        assert (made.schedule, made.zone, made.missed, made.actor) == ("0 2 * * *", "Europe/Berlin", "once", "boss")
        assert await client.crons.get("nightly") == made
        changed = await client.crons.set("nightly", missed="all")
        assert (changed.schedule, changed.missed) == ("0 2 * * *", "all")
        receipt = await client.crons.run("nightly")
        assert (await client.jobs.show(receipt.id)).type == "report"
        paused = await client.crons.pause("nightly", reason="Down")
        assert [cron async for cron in client.crons.list()] == [paused]
        assert (await client.crons.resume("nightly")).paused_at is None
        assert await client.crons.delete("nightly") is True
        with pytest.raises(NotFound):
            await client.crons.get("nightly")


async def test_a_schedule_is_previewed(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        since = datetime(2026, 11, 27, 12, tzinfo=UTC)
        (first, second) = await client.crons.preview("30 8 * * mon-fri", zone="Asia/Tokyo", since=since, limit=2)
        assert (first.at, first.local) == (datetime(2026, 11, 29, 23, 30, tzinfo=UTC), "Mon 2026-11-30 08:30")
        assert second.local == "Tue 2026-12-01 08:30"
        with pytest.raises(InvalidArgument):
            await client.crons.preview("soon")
