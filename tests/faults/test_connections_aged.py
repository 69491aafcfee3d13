"""Connections that reach their age: a daemon replaces all of them under load, and nothing notices."""

from __future__ import annotations

import anyio
import msgspec

from coordinator.config import Config
from coordinator.db.database import Database
from tests.daemon import Daemon, drained, log_of, opened
from tests.http_client import http_client
from tests.relay.load import Load, Reader
from tests.waiting import until

# Those of the daemon and of the follower; writers of the load, and this one, have no age.
BACKENDS = """
select pid, backend_start from pg_stat_activity
where datname = current_database() and application_name = 'coordinator' and pid <> pg_backend_pid() and backend_start < $1
"""


async def test_a_daemon_and_a_follower_replace_their_connections_under_load_and_nothing_notices(
    database_url: str, config: Config
) -> None:
    load, reader = Load(database_url), Reader()
    with Daemon(database_url, max_connection_age_s=1) as daemon:
        await (await daemon.ready()).lead()
        aged = msgspec.structs.replace(config, max_connection_age_s=1.0)
        async with (
            opened(database_url) as connection,
            Database.open(database_url, aged) as database,
            http_client() as client,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(reader.follow, database)
            before = await connection.fetch("select id from coordinator.processes")
            start = await connection.fetchval("select clock_timestamp()")
            assert await connection.fetch(BACKENDS, start)

            async def replaced() -> bool:
                answer = await client.get(f"{daemon.url}/v1/signals", params={"project": "default"})
                assert answer.status_code == 200, answer.text
                await load.run(1, 0.0)
                return not await connection.fetch(BACKENDS, start)

            await until(replaced, "all its connections are newer")
            log = await drained(database_url, len(load.committed))
            await until(
                lambda: reader.keys[-len(log) :] == [event["key"] for event in log],
                "the reader has everything, in order",
            )
            assert await connection.fetch("select id from coordinator.processes") == before
            tasks.cancel_scope.cancel()
        unwanted = {"session.lost", "session.renew_failed", "relay.failed", "loop.failed", "leader.renew_failed"}
        assert not unwanted & set(daemon.events())
        assert len(daemon.lines("leader.changed")) == 1
    load.judge(await log_of(database_url))
