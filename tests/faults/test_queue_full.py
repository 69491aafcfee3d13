"""A listener that stays in a transaction fills the notification queue: nothing fails, and readers read the log."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from coordinator import embedded
from coordinator.db.call import call
from coordinator.model.token import new_secret
from coordinator.operations import events, signals, tokens
from coordinator.operations.work import RelayArm, RelayRecover, RelayStep
from tests.daemon import Daemon, opened
from tests.http_client import http_client
from tests.waiting import until

SETTINGS = {"max_notify_queue_pages": "64", "fsync": "off"}  # 512 kB; a setting since PostgreSQL 17


async def fill(connection: asyncpg.Connection) -> None:
    """Notify until PostgreSQL refuses."""
    with suppress(asyncpg.ProgramLimitExceededError):
        for n in count():
            await connection.execute("select pg_notify('stuck', $1)", f"{n}{'x' * 7900}")


async def test_a_full_notification_queue_fails_no_function_and_no_start(data_dir: Path) -> None:
    async with (
        embedded.run(data_dir, settings=SETTINGS) as server,
        opened(server.dsn) as stuck,
        opened(server.dsn) as connection,
    ):
        await stuck.execute("listen stuck")
        await stuck.execute("begin")
        # Half a batch of 8 kB each would do it: the relay leaves out what exceeds half of the queue.
        await call(connection, RelayRecover())
        await connection.execute(
            "select count(coordinator.event_emit('default', 'custom.x', n::text, jsonb_build_object('v', repeat('y', 7000))))"
            " from generate_series(1, 300) n"
        )
        assert (await call(connection, RelayStep())).moved == 300
        assert await connection.fetchval("select pg_notification_queue_usage()") < 0.5
        await fill(connection)
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute("select pg_notify('stuck', repeat('x', 7900))")
        secret = new_secret()
        token = await call(connection, tokens.Create(name="t", role="reader", hash=secret.hash, prefix=secret.prefix))
        assert await call(connection, tokens.Revoke(token=token.id))
        await call(connection, RelayArm())
        await call(connection, signals.Set(project="default", key="k", value=1))  # would ring
        assert (await call(connection, RelayStep())).moved == 3
        with Daemon(server.dsn) as daemon:
            await daemon.ready()
            async with http_client(daemon.url) as http:
                await call(connection, events.Emit(project="default", type="custom.late"))

                async def read() -> bool:
                    page = (
                        await http.get(
                            "/v1/events", params={"project": "default", "topic": "custom.late", "after": "start"}
                        )
                    ).json()
                    return bool(page["items"])

                await until(read, "the event is in the log")
