"""Loops never stop at an error."""

from __future__ import annotations

from datetime import timedelta

import anyio

from coordinator.db import schema
from coordinator.db.database import Database
from coordinator.operations import directives, signals
from tests.daemon import Daemon, log_of, opened
from tests.waiting import until

BROKEN = """
create or replace function coordinator.signal_expire(p_limit integer default 1000) returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$ begin raise exception 'broken by a test'; end $$
"""
MENDED = next(file.text for file in schema.files() if file.name == "signal.sql")


async def test_a_loop_that_fails_goes_on_with_back_off_beside_the_others_and_recovers(
    db: Database, database_url: str
) -> None:
    async with opened(database_url) as connection:
        await connection.execute(BROKEN)
        with Daemon(database_url) as daemon:
            await (await daemon.ready()).lead()
            await db.run(signals.Set(project="default", key="due", value=1, ttl=timedelta(seconds=1)))

            async def failed() -> bool:
                return await daemon.metric('coordinator_loop_errors_total{loop="signal_expire"}') >= 2

            await until(failed, "the loop has failed twice", every_s=0.1)
            pauses = [line["retry_s"] for line in daemon.lines("loop.failed")]
            assert pauses[:2] == [0.5, 1.0], "the pause between two tries does not grow"
            assert {line["loop"] for line in daemon.lines("loop.failed")} == {"signal_expire"}
            assert "broken by a test" in daemon.lines("loop.failed")[0]["error"]

            await db.run(directives.Send(project="default", body="due", everyone=True, ttl=timedelta(seconds=1)))

            async def others_go_on() -> bool:
                return "directive.expired" in [event["type"] for event in await log_of(database_url)]

            await until(others_go_on, "the other loops go on")

            await connection.execute(MENDED)

            async def recovered() -> bool:
                return "signal.expired" in [event["type"] for event in await log_of(database_url)]

            await until(recovered, "the loop works again")
            assert await daemon.metric('coordinator_loop_handled_total{loop="signal_expire"}') == 1
            assert (await daemon.get("/readyz")).status_code == 200


async def test_a_relay_and_a_heartbeat_that_fail_go_on_and_recover(db: Database, database_url: str) -> None:
    functions = {
        "relay_step": "alter function coordinator.relay_step(integer, boolean) rename to",
        "leader_renew": "alter function coordinator.leader_renew(integer, interval) rename to",
    }
    async with opened(database_url) as connection:
        with Daemon(database_url) as daemon:
            await (await daemon.ready()).lead()
            for name, rename in functions.items():
                await connection.execute(f"{rename} {name}_away")
                line = "relay.failed" if name == "relay_step" else "leader.renew_failed"
                await db.run(signals.Set(project="default", key=name, value=1))
                await daemon.logged(line)
                await anyio.sleep(0.5)
                assert daemon.process.poll() is None
                await connection.execute(f"{rename.replace(name, f'{name}_away', 1)} {name}")

                async def recovered(name: str = name) -> bool:
                    return name in [event["key"] for event in await log_of(database_url)]

                await until(recovered, f"{name} works again")
            await daemon.ready()
            await daemon.lead()
