"""Backups of a real database by the program: what is in them, who may make them, and what a restore brings back."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.operations import events
from coordinator.operations.work import SampleMetrics
from tests.backup.conftest import Backups
from tests.conftest import admin, with_database
from tests.daemon import opened
from tests.faults.forks import check_fork, issue
from tests.populated import populate

LAST = "select * from coordinator.backup_last()"
SCRATCH = "select datname from pg_database where datname like 'coordinator\\_verify%'"


async def claimed(connection: asyncpg.Connection) -> int:
    """Return the fence of a job that was claimed."""
    worker = await connection.fetchval(
        "select id from coordinator.agent_register('default', 'w', p_job_types => '{t}')"
    )
    await connection.execute("select coordinator.job_enqueue('default', 't')")
    fence = await connection.fetchval("select fence from coordinator.job_claim('default', $1)", worker)
    await connection.execute("select coordinator.agent_deregister($1)", worker)
    return int(fence)


async def ages(connection: asyncpg.Connection) -> dict[str, float]:
    samples = await call(connection, SampleMetrics(samplers=["backup_sample"]))
    return {
        sample.name.removeprefix("coordinator_backup_"): sample.value for sample in samples if "backup_" in sample.name
    }


async def test_a_backup_is_verified_and_restored_and_nothing_is_issued_twice(
    backups: Backups, database_url: str, fresh: str
) -> None:
    async with opened(database_url) as source, opened(fresh) as target:
        await populate(source)
        shared, fence = await issue(source, "shared"), await claimed(source)
        assert (await ages(source))["failed"] == 0
        made = backups.backup("create", "--keep", "30d")
        lost, lost_fence = await issue(source, "lost", times=3), await claimed(source)
        assert await claimed(source) > fence
        (row,) = backups.backup("list")
        assert (row["backup"], row["status"], row["verified_at"]) == (made["backup"], "good", None)
        assert [path.name for path in backups.folder_of_backups.iterdir()] == [made["backup"]]

        backups.backup("verify", "--dir", backups.folder_of_backups.name)
        assert await source.fetch(SCRATCH) == []
        (row,) = backups.backup("list")
        assert row["verified_at"] is not None
        last = await source.fetchrow(LAST)
        assert last is not None
        assert (last["backup"], last["verified_backup"], last["error"]) == (made["backup"], made["backup"], None)
        assert (await ages(source))["failed"] == 0

        manifest = Path(made["path"], "manifest.json")
        content = manifest.read_text("utf-8")
        manifest.write_text(content.replace('"migrations": [', '"migrations": ["9999_future.sql",'), "utf-8")
        assert "9999_future.sql" in backups.refused(6, "restore", "--url", fresh)["message"]
        assert not await target.fetchval("select exists (select from pg_namespace where nspname = 'coordinator')")
        manifest.write_text(content, "utf-8")

        restored = backups.backup("restore", made["backup"], "--dir", backups.folder_of_backups.name, url=fresh)
        assert restored["rows"] == made["rows"]
        await check_fork(target, shared, lost)
        assert await claimed(target) > lost_fence
        assert restored["epoch"] == (await call(target, events.Head())).split(".")[0] != lost.cursor.split(".")[0]
        kinds = await target.fetch("select type from coordinator.events where type like 'backup.%' order by id")
        assert [each[0] for each in kinds] == ["backup.created", "backup.restored"]
        error = backups.refused(4, "restore", "--url", fresh)
        assert "create database" in error["hint"]


async def test_without_a_backup_its_age_is_that_of_the_schema(database_url: str) -> None:
    async with opened(database_url) as connection:
        born = await connection.fetchval(
            "select extract(epoch from coordinator.now_utc() - min(applied_at)) from coordinator.schema_files"
        )
        found = await ages(connection)
        assert found["age_seconds"] >= born
        assert found["verified_age_seconds"] >= born
        await connection.execute("select coordinator.backup_record('b', p_tool => 'pgbackrest')")
        assert (await ages(connection))["age_seconds"] < found["age_seconds"]
        await connection.execute("select coordinator.backup_record('c', p_error => 'no space left')")
        assert (await ages(connection))["failed"] == 1
        await connection.execute("select coordinator.backup_record('d')")
        assert (await ages(connection))["failed"] == 0
        await connection.execute("select coordinator.backup_verified('d', 'table x has 1 rows instead of 2')")
        last = await connection.fetchrow(LAST)
        assert last is not None
        assert (last["backup"], last["failed_backup"]) == ("b", "d")


async def test_the_newest_thousand_backups_are_remembered(database_url: str) -> None:
    async with opened(database_url) as connection:
        await connection.execute("select coordinator.backup_record('b' || n) from generate_series(1, 1003) n")
        assert await connection.fetchval("select count(*) from coordinator.backups") == 1000
        names = [row[0] for row in await connection.fetch("select backup from coordinator.backup_list()")]
        assert names[0] == "b1003"
        assert "b3" not in names


async def test_while_a_backup_runs_no_partition_is_added_or_dropped(database_url: str) -> None:
    async with opened(database_url) as backup, opened(database_url) as leader:
        await leader.execute("select setval('coordinator.event_ids', 9000000)")
        await backup.execute("select pg_advisory_lock(hashtextextended('coordinator.partitions', 0))")
        assert await leader.fetchval("select coordinator.event_extend()") == 0
        assert await leader.fetchval("select coordinator.job_extend(30)") == 0
        await backup.execute("select pg_advisory_unlock_all()")
        assert await leader.fetchval("select coordinator.event_extend()") > 0
        assert await leader.fetchval("select coordinator.job_extend(30)") > 0


async def test_two_backups_at_once_are_refused_with_the_blocking_session(backups: Backups, database_url: str) -> None:
    async with opened(database_url) as other:
        await other.execute("select pg_advisory_lock(hashtextextended('coordinator.backup', 0))")
        error = backups.refused(4, "create")
        assert str(other.get_server_pid()) in error["message"]


async def test_a_role_that_may_not_read_everything_is_refused(
    backups: Backups, server_url: str, database_url: str
) -> None:
    name = "backup_reader"
    await admin(
        server_url,
        f"drop role if exists {name}",
        f"create role {name} login password 'read' in role coordinator_reader",
    )
    try:
        parts = urlsplit(database_url)
        url = parts._replace(netloc=f"{name}:read@{parts.netloc.rpartition('@')[2]}").geturl()
        error = backups.refused(5, "create", "--url", url)
        assert (error["name"], "owner" in error["hint"]) == ("permission-denied", True)
    finally:
        await admin(server_url, f"drop role {name}")
    assert backups.backup("list") == []


async def test_what_cannot_be_backed_up_or_restored_says_why(backups: Backups, fresh: str, tmp_path: Path) -> None:
    assert "no schema" in backups.refused(3, "create", "--url", fresh)["message"]
    assert "daemon" not in backups.refused(7, "create", "--url", with_database(fresh, "absent"))["message"]
    assert backups.refused(78, "create", "--url", "https://daemon.example")["hint"] == "Give --url postgresql://…"
    (tmp_path / "empty").mkdir()
    old = backups.refused(78, "create", "--pg-bin-dir", str(tmp_path / "empty"))
    assert "postgresql-client-" in old["hint"]
    file = tmp_path / "file"
    file.touch()
    assert str(file) in backups.refused(78, "create", "--dir", str(file / "x"))["message"]
    for verb in ("verify", "restore"):
        assert backups.refused(3, verb)["name"] == "not-found"
        assert backups.refused(3, verb, "../elsewhere")["name"] == "not-found"


@pytest.mark.parametrize("verb", ["create", "list", "verify", "restore"])
def test_the_directory_of_backups_is_below_that_of_data_by_default(backups: Backups, verb: str) -> None:
    del backups.environment["COORDINATOR_BACKUP_DIR"]
    done = backups.run("backup", verb, "--help")
    assert "--dir" in done.stdout
