"""The checks of the database: each fault is made, and found, with what to do about it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from coordinator.db import schema
from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.errors import InvalidArgument, PermissionDenied
from coordinator.model.catalogue import CHECKS
from coordinator.model.doctor import Finding, worst
from coordinator.operations import doctor, events, webhooks
from coordinator.operations.work import LeaderRenew, ProcessRegister, RelayStep
from tests.conftest import Transaction
from tests.sql.test_access import Logins
from tests.waiting import until, until_blocked

SEVERAL_SUBJECTS = {"backup", "partitions", "readers", "standbys"}  # one may be well and another not


async def examined(connection: asyncpg.Connection, check: str) -> list[Finding]:
    found = await call(connection, doctor.Run(checks=[check]))
    assert found, "silence is not health"
    assert {finding.check for finding in found} == {check}
    assert all(finding.remedy for finding in found if finding.severity in ("warning", "critical"))
    if check not in SEVERAL_SUBJECTS:
        assert len(found) == 1 or "ok" not in {finding.severity for finding in found}
    return found


async def one(connection: asyncpg.Connection, check: str) -> Finding:
    (finding,) = await examined(connection, check)
    return finding


async def at(connection: asyncpg.Connection, check: str, warning: float, critical: float = 1e18) -> None:
    """Set the thresholds of a check, so that what a test can make within a moment is late or large."""
    await connection.execute(
        "update coordinator.checks set warning = $2, critical = $3 where name = $1", check, warning, critical
    )


@asynccontextmanager
async def session(url: str, *statements: str, name: str = "guilty") -> AsyncIterator[asyncpg.Connection]:
    """Open another session, which has run these statements."""
    connection = await connect(url)
    try:
        await connection.execute(f"set application_name = {name}")
        for statement in statements:
            await connection.execute(statement)
        yield connection
    finally:
        await connection.close()


async def test_every_check_is_examined_in_its_order_and_says_something(tx: Transaction) -> None:
    found = await tx.run(doctor.Run())
    assert list(dict.fromkeys(finding.check for finding in found)) == [*CHECKS]
    assert [finding for finding in found if finding.severity == "unknown"] == []
    assert all(finding.message.endswith(".") for finding in found if ": " not in finding.message)


async def test_a_check_that_fails_is_a_finding_and_stops_no_other(tx: Transaction) -> None:
    await tx.connection.execute(
        "create or replace function coordinator.doctor_size(p_warning double precision, p_critical double precision)"
        " returns table (severity text, message text, remedy text) language plpgsql stable set search_path = pg_catalog, pg_temp"
        " as $$ begin raise exception 'the disk is gone' using hint = 'Buy one.'; end $$"
    )
    found = await tx.run(doctor.Run(checks=["size", "indexes"]))
    assert found[0] == Finding("size", "unknown", "The check failed: the disk is gone.", "Buy one.")
    assert found[1] == Finding("indexes", "ok", "All indexes are valid, and none is bloated.", None)


async def test_a_check_of_a_locked_table_is_skipped_and_nobody_waits(database_url: str) -> None:
    async with (
        session(database_url, "begin", "lock table coordinator.webhooks in access exclusive mode"),
        session(database_url) as connection,
    ):
        finding = await one(connection, "webhooks")
        assert finding.severity == "unknown"
        assert "lock timeout" in finding.message


async def test_an_unknown_check_is_refused(tx: Transaction) -> None:
    for operation in (doctor.Run(checks=["size", "nonsense"]), doctor.Fix(check="size")):
        with pytest.raises(InvalidArgument) as raised:
            await tx.run(operation)
        assert raised.value.hint


async def test_a_reader_sees_findings_and_who_is_bound_to_a_project_does_not(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        logins = Logins(database_url, stack)
        reader, bound = await logins.make("reader"), await logins.make("reader", "default")
        assert len(await call(reader, doctor.Run())) >= len(CHECKS)
        with pytest.raises(PermissionDenied):
            await call(bound, doctor.Run())
        with pytest.raises(PermissionDenied):
            await call(reader, doctor.Fix(check="grants"))


async def test_what_is_hidden_from_the_owner_of_the_schema_is_said_to_be(tx: Transaction) -> None:
    assert (await one(tx.connection, "visibility")).severity == "ok"
    for statement in (
        "create role lowly",
        "grant usage, create on schema coordinator to lowly",
        "grant execute on all routines in schema coordinator to lowly",
        "grant select on all tables in schema coordinator to lowly",
        "alter function coordinator.doctor_run(text[]) owner to lowly",
    ):
        await tx.connection.execute(statement)
    finding = await one(tx.connection, "visibility")
    assert (finding.severity, finding.remedy) == ("unknown", "As a superuser: grant pg_monitor to lowly")
    assert len(await tx.run(doctor.Run())) >= len(CHECKS)


async def test_a_setting_that_endangers_data_is_found(tx: Transaction) -> None:
    assert not [one for one in await examined(tx.connection, "settings") if "zero_damaged_pages" in one.message]
    await tx.connection.execute("set local zero_damaged_pages = on")
    (finding,) = [one for one in await examined(tx.connection, "settings") if "zero_damaged_pages" in one.message]
    assert finding.severity == "critical"
    assert "alter system set zero_damaged_pages = off" in (finding.remedy or "")


async def test_a_clock_that_a_test_has_put_in_its_place_is_found(tx: Transaction) -> None:
    await tx.connection.execute("set local coordinator.fake_now = '2001-01-01'")
    finding = await one(tx.connection, "clock")
    assert finding.severity == "critical"
    (clock,) = [file.text for file in schema.files() if file.name == "clock.sql"]
    await tx.connection.execute("delete from coordinator.rights where function = 'now_utc'")
    await tx.connection.execute(clock)
    assert (await one(tx.connection, "clock")).severity == "ok"


async def test_a_damaged_block_is_found(database_url: str) -> None:
    async with session(database_url) as connection:
        if await connection.fetchval("show data_checksums") == "off" or "COORDINATOR_TEST_DATABASE_URL" in os.environ:
            assert "checksums are off" in (await one(connection, "corruption")).message
            return
        assert (await one(connection, "corruption")).severity == "ok"
        await connection.execute("create table damaged as select generate_series(1, 1000) as n")
        await connection.execute("create index damaged_idx on damaged (n)")  # which is written around the cache
        path = await connection.fetchval(
            "select current_setting('data_directory') || '/' || pg_relation_filepath('damaged_idx')"
        )
        with Path(path).open("r+b") as file:
            file.seek(8192 + 4000)  # in the first leaf
            file.write(b"\xff" * 100)
        await connection.execute("set enable_seqscan = off; set enable_bitmapscan = off")
        with pytest.raises(asyncpg.DataCorruptedError):
            await connection.fetch("select n from damaged where n = 1")

        async def counted() -> bool:
            return (await one(connection, "corruption")).severity == "critical"

        await until(counted, "the statistics have it")


async def test_connections_are_counted_by_role_and_application(tx: Transaction, shared_url: str) -> None:
    async with session(shared_url):
        await at(tx.connection, "connections", 0)
        finding = await one(tx.connection, "connections")
    assert finding.severity == "warning"
    assert "(guilty)" in finding.message


async def test_an_open_transaction_is_named_with_its_statement_without_its_literals(
    tx: Transaction, shared_url: str
) -> None:
    statements = ("begin", "select 'secret', $q$secret$q$, E'it''s secret', 4711")
    async with session(shared_url, *statements) as guilty:
        await at(tx.connection, "transactions", 0)
        found = await examined(tx.connection, "transactions")
        (finding,) = [one for one in found if str(guilty.get_server_pid()) in one.message]
    assert finding.severity == "warning"
    assert "idle in transaction" in finding.message
    assert "4711" in finding.message
    assert "secret" not in finding.message
    assert f"pg_terminate_backend({guilty.get_server_pid()})" in (finding.remedy or "")


async def test_statements_are_shown_to_whom_postgresql_shows_them(database_url: str) -> None:
    async with (
        AsyncExitStack() as stack,
        session(database_url, "begin", "select 4711") as guilty,
        session(database_url) as owner,
    ):
        await at(owner, "transactions", 0)
        pid, reader = str(guilty.get_server_pid()), await Logins(database_url, stack).make("reader")
        for connection, shown in ((owner, True), (reader, False)):
            (finding,) = [one for one in await examined(connection, "transactions") if pid in one.message]
            assert ("4711" in finding.message) == shown


async def test_an_old_snapshot_is_named_with_its_holder(tx: Transaction, shared_url: str) -> None:
    async with session(shared_url, "begin isolation level repeatable read", "select 1") as guilty:
        await at(tx.connection, "snapshots", 0)
        found = await examined(tx.connection, "snapshots")
    assert [one.severity for one in found if f"Session {guilty.get_server_pid()} " in one.message] == ["warning"]


async def test_a_session_that_waits_is_named_with_the_one_in_its_way(tx: Transaction, shared_url: str) -> None:
    async with (
        session(shared_url, "begin", "lock table coordinator.schema_roles") as holder,
        session(shared_url) as late,
    ):
        await late.execute("begin")
        blocked = holder.get_server_pid()
        waiting = asyncio.ensure_future(late.execute("lock table coordinator.schema_roles"))
        async with session(shared_url) as watcher:
            await until_blocked(watcher, late)
        await at(tx.connection, "waits", 0)
        finding = await one(tx.connection, "waits")
        await holder.execute("rollback")
        await waiting
    assert finding.severity == "warning"
    assert f"Session {late.get_server_pid()} " in finding.message
    assert (
        finding.remedy == f"Commit the blocking transaction, or end its session: select pg_terminate_backend({blocked})"
    )


async def test_who_holds_an_advisory_key_of_the_schema_is_named_with_what_it_is_for(
    tx: Transaction, shared_url: str
) -> None:
    async with (
        session(shared_url, "select pg_advisory_lock(hashtextextended('coordinator.schema', 0))") as apply,
        session(shared_url, "select pg_advisory_lock(1129267026, 2147483647)") as stranger,
    ):
        await at(tx.connection, "advisory_keys", 0, 0)
        found = {
            pid: finding
            for finding in await examined(tx.connection, "advisory_keys")
            for pid in (apply.get_server_pid(), stranger.get_server_pid())
            if f"Session {pid} " in finding.message
        }
    assert {finding.severity for finding in found.values()} == {"critical"}
    assert '"coordinator schema apply"' in found[apply.get_server_pid()].message
    assert "process 2147483647, which is not registered" in found[stranger.get_server_pid()].message


async def test_processes_that_hold_their_keys_are_not_a_fault(tx: Transaction) -> None:
    await tx.run(ProcessRegister(kind="daemon", name="host:1"))
    try:
        assert (await one(tx.connection, "advisory_keys")).severity == "ok"
    finally:
        await tx.connection.execute("select pg_advisory_unlock_all()")


async def test_a_listener_that_does_not_read_is_found(database_url: str) -> None:
    async with (
        session(database_url, "listen stuck", "begin", "select 1") as stuck,
        session(database_url) as connection,
    ):
        await connection.execute("select pg_notify('stuck', n || repeat('x', 7000)) from generate_series(1, 3) n")
        await at(connection, "notifications", 1e-12)
        finding = await one(connection, "notifications")
    assert finding.severity == "warning"
    assert f"session {stuck.get_server_pid()} may listen" in finding.message


async def test_a_database_without_a_leader_is_found(tx: Transaction) -> None:
    assert (await one(tx.connection, "leader")).severity == "critical"
    process = await tx.run(ProcessRegister(kind="daemon", name="host:1"))
    try:
        await tx.run(LeaderRenew(process=process))
        finding = await one(tx.connection, "leader")
    finally:
        await tx.connection.execute("select pg_advisory_unlock_all()")
    assert (finding.severity, finding.message) == ("ok", "host:1 leads; running daemons: 1.")


async def test_events_that_wait_for_their_numbers_and_readers_that_are_behind_are_found(database_url: str) -> None:
    async with session(database_url) as connection:
        assert (await one(connection, "relay")).severity == "ok"
        await call(connection, webhooks.Add(project="default", url="https://example.com/", topics=["custom.*"]))
        while await call(connection, webhooks.Fill()):  # it is at the end of the log
            pass
        await call(connection, events.Emit(project="default", type="custom.x"))
        await at(connection, "relay", 0)
        finding = await one(connection, "relay")
        assert finding.severity == "warning"
        assert finding.message.startswith("2 committed events have no number")
        while (await call(connection, RelayStep())).again:
            pass
        await at(connection, "relay", 1e-9)
        assert (await one(connection, "relay")).severity == "ok"
        await at(connection, "readers", 1)
        found = {finding.message.split(" is ")[0]: finding for finding in await examined(connection, "readers")}
        readers = {
            "The log reader for jobs that wait for events": None,
            "The log reader for webhooks": "webhook",
            "The log reader for audit trails": "audit_copy",
        }
        assert found.keys() == readers.keys()
        for reader, loop in readers.items():
            assert found[reader].severity == ("warning" if loop else "ok")
            assert loop is None or f"loop.failed ({loop})" in (found[reader].remedy or "")


async def test_a_gap_between_the_partitions_of_the_log_is_found_and_closed(tx: Transaction) -> None:
    """Events that reach it are refused, however many partitions follow it."""
    await tx.set_clock(timedelta(0))  # the day does not end meanwhile
    last = await tx.connection.fetchval("select last_value from coordinator.event_ids")
    gap = f"coordinator.events_{last // 1_000_000 + 1:06}"
    await tx.connection.execute(f"drop table {gap}")
    assert (await examined(tx.connection, "partitions"))[0].severity == "critical"
    room = await tx.connection.fetchval("select coordinator.event_headroom()")
    assert room == (last // 1_000_000 + 1) * 1_000_000 - last
    assert "event_extend" in await tx.connection.fetchval("select coordinator.work_due()")
    await tx.run(doctor.Fix(check="partitions"))
    assert await tx.connection.fetchval("select to_regclass($1)", gap) is not None
    assert worst(await examined(tx.connection, "partitions")) == "ok"
    assert "event_extend" not in await tx.connection.fetchval("select coordinator.work_due()")


async def test_partitions_that_are_missing_are_found_and_made(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))  # the day does not end meanwhile
    assert worst(await examined(tx.connection, "partitions")) == "ok"
    names = await tx.connection.fetch(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'coordinator.events'::regclass order by 1 offset 2"
    )
    today = await tx.connection.fetchval("select to_char(coordinator.now_utc() at time zone 'UTC', '_YYYYMMDD')")
    for name in (*(row[0] for row in names), f"coordinator.jobs_completed{today}"):
        await tx.connection.execute(f"drop table {name}")
    log, jobs = await examined(tx.connection, "partitions")
    assert (log.severity, jobs.severity) == ("critical", "warning")
    assert f"jobs_completed{today}" in jobs.message
    (done,) = await tx.run(doctor.Fix(check="partitions"))
    assert done.startswith("created ")
    assert worst(await examined(tx.connection, "partitions")) == "ok"


async def test_a_disabled_webhook_is_found(tx: Transaction) -> None:
    assert (await one(tx.connection, "webhooks")).severity == "ok"
    await tx.run(webhooks.Add(project="default", url="https://example.com/", topics=["*"]))
    await tx.connection.execute("update coordinator.webhooks set disabled = true, paused_at = coordinator.now_utc()")
    finding = await one(tx.connection, "webhooks")
    assert (finding.severity, finding.message) == ("warning", "Disabled webhooks: 1, in the projects default.")


async def test_contents_and_objects_that_wait_for_an_object_store_are_found(tx: Transaction) -> None:
    assert (await one(tx.connection, "objects")).severity == "ok"
    await tx.connection.execute("select coordinator.artifact_put('default', 'waits', 'x')")
    waits = await tx.connection.fetchval(
        "insert into coordinator.artifact_objects (blob_id, store, key, created_at, due_at)"
        " select b.id, 's3://full', 'k1', coordinator.now_utc() - interval '30 seconds', coordinator.now_utc()"
        " from coordinator.artifact_blobs b order by b.id desc limit 1 returning id"
    )
    assert (await one(tx.connection, "objects")).severity == "ok", "it is about to be moved"
    for age, severity in (("10 minutes", "warning"), ("2 hours", "critical")):
        await tx.connection.execute(
            "update coordinator.artifact_objects set created_at = coordinator.now_utc() - $2::text::interval where id = $1",
            waits,
            age,
        )
        finding = await one(tx.connection, "objects")
        assert (finding.severity, "s3://full" in finding.message) == (severity, True)
        assert "loop.failed" in (finding.remedy or "")
    await tx.connection.execute(
        "insert into coordinator.artifact_objects (store, key, created_at, due_at)"
        " select 's3://gone', 'k2', t, t from (select coordinator.now_utc() - interval '3 hours') u (t)"
    )
    found = {one.message.split()[0]: one for one in await examined(tx.connection, "objects")}
    assert {one.severity for one in found.values()} == {"critical", "warning"}
    assert found["1"].message == "1 objects in s3://gone wait for deletion."
    assert "artifact_store" in (found["1"].remedy or "")


async def test_grants_that_are_missing_are_found_and_made(tx: Transaction) -> None:
    assert (await one(tx.connection, "grants")).severity == "ok"
    before = await tx.connection.fetch(
        "select p.oid, p.proacl::text from pg_proc p where p.proname ~ '^signal_' order by 1"
    )
    await tx.connection.execute("revoke all on all routines in schema coordinator from coordinator_reader")
    await tx.connection.execute("revoke select on coordinator.signals_live from coordinator_agent")
    await tx.connection.execute("revoke usage on schema coordinator from coordinator_manager")
    found = await examined(tx.connection, "grants")
    assert {finding.severity for finding in found} == {"critical"}
    for role, kind in (("reader", "execute"), ("agent", "select"), ("manager", "usage")):
        assert any(f"coordinator_{role} lacks {kind}" in finding.message for finding in found)
    assert any(
        "grant usage on schema coordinator to coordinator_manager" in (finding.remedy or "") for finding in found
    )
    assert len(await tx.run(doctor.Fix(check="grants"))) == 3
    assert (await one(tx.connection, "grants")).severity == "ok"
    after = await tx.connection.fetch(
        "select p.oid, p.proacl::text from pg_proc p where p.proname ~ '^signal_' order by 1"
    )
    assert [(oid, {*acl.strip("{}").split(",")}) for oid, acl in after] == [
        (oid, {*acl.strip("{}").split(",")}) for oid, acl in before
    ]


async def test_a_restore_without_privileges_is_found(tx: Transaction) -> None:
    await tx.connection.execute("grant execute on function coordinator.signal_set(text, text, jsonb, interval, boolean, bigint, uuid, boolean, text) to public")  # fmt: skip
    finding = await one(tx.connection, "grants")
    assert (finding.severity, finding.remedy) == (
        "critical",
        "revoke all on all routines in schema coordinator from public",
    )
    assert "signal_set" in finding.message


async def test_a_role_that_is_missing_is_found(tx: Transaction) -> None:
    await tx.connection.execute("alter role coordinator_agent rename to somebody")
    finding = await one(tx.connection, "grants")
    assert finding.severity == "warning"
    assert "create role coordinator_agent nologin;" in (finding.remedy or "")


async def test_the_size_names_the_largest_tables(tx: Transaction) -> None:
    async def agreed() -> bool:
        """Autovacuum may shorten a table between the two looks."""
        largest = await tx.connection.fetchval("""
          select c.relname from pg_class c left join lateral pg_partition_tree(c.oid) t on true
          where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          group by c.relname order by sum(pg_total_relation_size(coalesce(t.relid, c.oid))) desc, c.relname limit 1""")
        finding = await one(tx.connection, "size")
        assert finding.severity == "ok"
        return f"the largest tables are {largest} (" in finding.message

    await until(agreed, "both name one table")


@pytest.mark.usefixtures("untended")
async def test_dead_rows_free_space_and_missing_statistics_are_found(database_url: str) -> None:
    table, rows = "coordinator.schema_roles", 5000
    async with session(database_url) as connection, session(database_url) as other:
        await at(connection, "dead_rows", 1000)
        await at(connection, "bloat", 8192)

        async def shows(check: str, severity: str) -> Finding:
            # Another session's figures are its own when it is idle.
            await other.execute("select pg_stat_force_next_flush()")

            async def look() -> list[Finding]:
                found = await examined(connection, check)
                return [one for one in found if one.severity == severity and (severity == "ok" or table in one.message)]

            return (await until(look, f"{check} is {severity}"))[0]

        assert (await one(connection, "bloat")).severity == "ok"
        await other.execute(f"insert into {table} select repeat('x', 50) || n from generate_series(1, {rows}) n")
        finding = await shows("statistics", "warning")
        assert f"{rows} rows" in finding.message
        assert await call(connection, doctor.Fix(check="statistics")) == [f"analyzed {table}"]
        await shows("statistics", "ok")
        await other.execute(f"delete from {table} where role <> (select max(role) from {table} where ctid > '(10,0)')")
        assert "vacuum (verbose, analyze)" in ((await shows("dead_rows", "warning")).remedy or "")
        await other.execute(f"vacuum analyze {table}")
        await shows("dead_rows", "ok")
        await shows("bloat", "warning")


async def test_an_invalid_index_is_found(tx: Transaction) -> None:
    name = "agents_expires_at_idx"
    await tx.connection.execute(
        "update pg_index set indisvalid = false where indexrelid = $1::text::regclass", f"coordinator.{name}"
    )
    finding = await one(tx.connection, "indexes")
    assert (finding.severity, finding.remedy) == ("warning", f"reindex index concurrently coordinator.{name}")


async def test_rows_that_are_not_frozen_are_found(tx: Transaction) -> None:
    await at(tx.connection, "freezing", 0, 0)
    finding = await one(tx.connection, "freezing")
    assert finding.severity == "critical"
    assert "vacuum (freeze, verbose)" in (finding.remedy or "")


async def test_limits_and_budgets_that_are_close_to_full_are_found(tx: Transaction) -> None:
    await tx.run(webhooks.Add(project="default", url="https://example.com/", topics=["*"]))
    assert (await one(tx.connection, "limits")).message == "The highest use of a project limit is 3 %."
    await tx.connection.execute("update coordinator.limits set value = 1 where name = 'webhooks'")
    await tx.connection.execute(
        "select coordinator.limit_set('default', 'cost', p_budget => 100, p_reserve => 95, p_queue => 'default')"
    )
    worker = await tx.connection.fetchval(
        "select id from coordinator.agent_register('default', 'w', p_job_types => '{t}')"
    )
    await tx.connection.execute("select coordinator.job_enqueue('default', 't', '1')")
    await tx.connection.execute("select coordinator.job_claim('default', $1)", worker)
    webhook, budget = await examined(tx.connection, "limits")
    assert (webhook.severity, webhook.message) == ("critical", 'Project "default" uses 1 of 1 webhooks (webhooks).')
    assert (budget.severity, budget.message) == ("warning", 'Project "default" uses 95 % of budget "cost" (budget).')


async def test_a_backup_that_is_missing_old_or_failed_is_found(tx: Transaction) -> None:
    assert (await one(tx.connection, "backup")).message == "There is no good backup."
    record = "select coordinator.backup_record($1, p_started_at => coordinator.now_utc() - $2::interval, p_error => $3)"
    await tx.connection.execute(record, "old", timedelta(days=2), None)
    old = await one(tx.connection, "backup")
    assert (old.severity, '"old", is 2d old; no backup was ever verified' in old.message) == ("warning", True)
    await tx.connection.execute(record, "young", timedelta(hours=3), None)
    assert (await one(tx.connection, "backup")).severity == "ok"
    await tx.connection.execute(record, "torn", timedelta(hours=1), "the disk is full")
    good, failed = await examined(tx.connection, "backup")
    assert (good.severity, failed.severity) == ("ok", "critical")
    assert failed.message == 'Backup "torn" failed: the disk is full'
    await tx.connection.execute("update coordinator.schema_files set applied_at = applied_at - interval '9 days'")
    assert 'Run "coordinator backup verify" every week.' in [
        one.remedy for one in await examined(tx.connection, "backup")
    ]
