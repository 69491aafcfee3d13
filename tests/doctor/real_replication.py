"""What the doctor finds on a server with standbys, slots, prepared transactions and an archive; and on a standby. `make operations` runs it."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from coordinator import embedded
from coordinator.config import Config
from coordinator.db import schema
from coordinator.db.call import call
from coordinator.doctor.examination import examine
from coordinator.model.doctor import Finding, worst
from coordinator.operations import doctor
from tests.daemon import opened
from tests.faults.forks import SETTINGS, standby
from tests.waiting import until, until_true

PRIMARY = {**SETTINGS, "archive_mode": "on", "archive_command": "false", "hot_standby_feedback": "on"}


async def examined(connection: asyncpg.Connection, check: str) -> list[Finding]:
    return await call(connection, doctor.Run(checks=[check]))


async def until_found(connection: asyncpg.Connection, check: str, severity: str, words: str) -> Finding:
    """Wait until a check finds this."""

    async def look() -> list[Finding]:
        return [
            one for one in await examined(connection, check) if (one.severity, words in one.message) == (severity, True)
        ]

    return (await until(look, f"{check} is {severity}"))[0]


async def thresholds(connection: asyncpg.Connection, **warnings: float) -> None:
    for check, warning in warnings.items():
        await connection.execute(
            "update coordinator.checks set warning = $2, critical = 1e18 where name = $1", check, warning
        )


async def the_lag_of_a_standby_is_hidden_from_a_plain_role(url: str) -> None:
    async with opened(url) as other:
        await other.execute("create role plain")
        await other.execute("grant usage on schema coordinator to plain")
        await other.execute("grant execute on all functions in schema coordinator to plain")
        await other.execute("set role plain")
        hidden = await other.fetchrow("select * from coordinator.doctor_standbys(1e9, 1e18)")
    assert hidden is not None
    assert hidden["severity"] == "unknown"
    assert hidden["message"].endswith("is connected. The owner of the schema cannot see its lag.")
    assert hidden["remedy"] == "As a superuser: grant pg_monitor to plain"


async def test_what_replication_and_recovery_leave_behind_is_found_on_both_sides(tmp_path: Path) -> None:
    async with embedded.run(tmp_path / "primary", settings=PRIMARY) as server, opened(server.dsn) as primary:
        await schema.apply(primary)
        assert [worst(await examined(primary, check)) for check in ("standbys", "slots", "prepared_transactions")] == [
            "ok"
        ] * 3

        await primary.execute("select pg_switch_wal()")
        assert (await until_found(primary, "archive", "critical", "failed since")).remedy

        async with opened(server.dsn) as other:
            await other.execute("begin")
            await other.execute("select coordinator.event_emit('default', 'custom.x')")
            await other.execute("prepare transaction 'left'")
        await primary.execute("select pg_create_physical_replication_slot('away', true)")
        await thresholds(primary, prepared_transactions=0, slots=0, snapshots=0)
        (left,) = await examined(primary, "prepared_transactions")
        assert (left.severity, 'Transaction "left"' in left.message) == ("warning", True)
        assert "rollback prepared 'left'" in (left.remedy or "")
        (slot,) = await examined(primary, "slots")
        assert (slot.severity, '"away" (physical, inactive)' in slot.message) == ("warning", True)
        assert await until_found(primary, "snapshots", "warning", 'Prepared transaction "left"')
        await primary.execute("rollback prepared 'left'")

        async with (
            standby(server, tmp_path / "standby", hot_standby_feedback="on", wal_receiver_status_interval="1s") as url,
            opened(url) as replica,
        ):
            await thresholds(primary, standbys=1e9)
            await until_found(primary, "standbys", "ok", "streaming")
            await the_lag_of_a_standby_is_hidden_from_a_plain_role(server.dsn)
            # It knows its lag from the first transaction on that it replays.
            await until_true(replica, "select critical = 1e18 from coordinator.checks where name = 'standbys'")
            await replica.execute("select pg_wal_replay_pause()")
            await until_true(replica, "select pg_get_wal_replay_pause_state() = 'paused'")
            await primary.execute("select coordinator.signal_set('default', 'k', '1')")
            paused = await until_found(replica, "standbys", "ok", "replay is paused")
            assert paused.remedy == "select pg_wal_replay_resume()"
            await replica.execute("select pg_wal_replay_resume()")

            await replica.execute("begin isolation level repeatable read")
            await replica.execute("select 1")
            await until_found(primary, "snapshots", "warning", "(hot_standby_feedback)")
            await replica.execute("rollback")

            found = {one.check: one async for one in examine(url, url, Config())}
            assert "standby" in found["listening"].message
            assert found["standbys"].message.startswith("This server is a standby")
            assert [one.check for one in found.values() if one.severity == "unknown"] == []

            await primary.execute("alter system set synchronous_standby_names = 'nobody'")
            await primary.execute("select pg_reload_conf()")
            absent = await until_found(primary, "standbys", "critical", "No synchronous standby (nobody)")
            assert "alter system set synchronous_standby_names" in (absent.remedy or "")
            await primary.execute("alter system reset synchronous_standby_names")
            await primary.execute("select pg_reload_conf()")


async def test_slots_that_retain_much_wal_or_have_lost_it_are_found(tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_slot_wal_keep_size": "32MB", "max_wal_size": "4GB", "checkpoint_timeout": "1h"}
    async with embedded.run(tmp_path / "primary", settings=settings) as server, opened(server.dsn) as primary:
        await schema.apply(primary)

        async def segment() -> None:
            await primary.execute("select pg_logical_emit_message(false, 'x', 'x')")
            await primary.execute("select pg_switch_wal()")

        await primary.execute("select pg_create_physical_replication_slot('idle', true)")
        await segment()
        retained = await until_found(primary, "slots", "ok", "Replication slots: 1")
        assert "retains" in retained.message
        for warning, critical, severity in ((1, 1e18, "warning"), (1, 2, "critical")):
            await primary.execute(
                "update coordinator.checks set warning = $1, critical = $2 where name = 'slots'", warning, critical
            )
            large = await until_found(primary, "slots", severity, '"idle" (physical, inactive) retains')
            assert "pg_drop_replication_slot('idle')" in (large.remedy or "")
        await thresholds(primary, slots=1e17)

        for _ in range(8):  # beyond what a slot may retain
            await segment()
        await until_found(primary, "slots", "warning", "the next checkpoint may remove")
        await primary.execute("checkpoint")
        lost = await until_found(primary, "slots", "critical", "has lost WAL")
        assert (lost.remedy or "").startswith("Drop the slot")
        await primary.execute("select pg_drop_replication_slot('idle')")
        await until_found(primary, "slots", "ok", "Replication slots: 0")
