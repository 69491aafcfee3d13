"""``/mcp`` of two replicas: a client of one of them continues at the other, and has missed nothing."""

from __future__ import annotations

import json

import anyio
import pytest
from mcp import Client

from coordinator.db.database import Database
from coordinator.operations import signals
from tests.api.test_mcp import called, connected
from tests.daemon import Daemon
from tests.waiting import DEADLINE_S

SIGNAL = "coordinator://default/signals/done"


async def test_a_listener_whose_replica_is_killed_finds_at_another_what_changed_meanwhile(
    db: Database, database_url: str
) -> None:
    with Daemon(database_url) as one, Daemon(database_url) as two:
        await one.ready()
        await two.ready()
        async with connected(f"{one.url}/mcp") as client:
            with pytest.raises(Exception):  # noqa: B017 - the SDK says in its own way that the stream was cut off
                await watched_until_killed(client, one, db)
        await db.run(signals.Set(project="default", key="done", value=2))
        async with (
            connected(f"{two.url}/mcp") as client,
            client.listen(resource_subscriptions=[SIGNAL]) as changes,
        ):
            read = json.loads((await client.read_resource(SIGNAL)).contents[0].text)
            assert read["value"] == 2
            await called(client, "signal_set", key="done", value=3)
            with anyio.fail_after(DEADLINE_S):
                assert (await anext(aiter(changes))).uri == SIGNAL


async def watched_until_killed(client: Client, daemon: Daemon, db: Database) -> None:
    async with client.listen(resource_subscriptions=[SIGNAL]) as changes:
        await db.run(signals.Set(project="default", key="done", value=1))
        with anyio.fail_after(DEADLINE_S):
            assert (await anext(aiter(changes))).uri == SIGNAL
            daemon.kill()
            async for _ in changes:
                pass
    raise ConnectionError("the stream has ended")
