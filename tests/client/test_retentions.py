from __future__ import annotations

from datetime import timedelta

import coordinator


async def test_a_policy_is_set_shown_and_reset(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="boss") as client:
        made = await client.retentions.set("log", "observation", max_age=60.0, max_count=5)
        assert (made.project, made.max_age, made.max_count, made.actor) == ("default", timedelta(minutes=1), 5, "boss")
        assert made in [policy async for policy in client.retentions.show()]
        assert (await client.retentions.set("session", everywhere=True)).project is None
        assert (await client.retentions.reset("log", "observation")).max_count == 10_000
        assert (await client.retentions.reset("session", everywhere=True)).max_age == timedelta(days=90)
