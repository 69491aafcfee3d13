"""What can go wrong with a backup, forced: part of ``make operations``, since it takes minutes, and a full disk needs root."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import asyncpg
import pytest

from coordinator import embedded
from coordinator.db import schema
from coordinator.embedded import binaries
from coordinator.embedded.releases import number
from coordinator.errors import CoordinatorError
from tests.backup.conftest import Backups, Paused
from tests.backup.test_backup import LAST, SCRATCH
from tests.concurrency.pooler import pooled
from tests.conftest import admin
from tests.daemon import opened
from tests.populated import populate
from tests.waiting import until

IN_THE_WAY = "lock table coordinator.signals in access exclusive mode"
FILL = "select coordinator.log_append('default', 'note', 'k' || n % 9, '[{\"data\": 1}, {\"data\": 2}]') from generate_series(1, 500) n"


async def filled(url: str) -> None:
    async with opened(url) as connection:
        await connection.execute(FILL)


def entries(backups: Backups) -> list[str]:
    folder = backups.folder_of_backups
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def ended(process: subprocess.Popen[str]) -> int:
    await until(lambda: _polled(process), "the program has ended")
    return int(process.returncode)


async def _polled(process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None


async def test_a_backup_that_is_killed_is_none_and_the_next_one_removes_it(
    backups: Backups, paused: Paused, database_url: str
) -> None:
    await filled(database_url)
    paused.stop_at("pg_dump", "--snapshot")
    process = backups.begin("backup", "create")
    left = await paused.stopped()
    process.kill()
    await ended(process)
    (unfinished,) = entries(backups)
    assert unfinished.endswith(".unfinished")
    assert backups.backup("list") == []
    made = backups.backup("create")
    assert entries(backups) == sorted([unfinished, made["backup"]]), "its pg_dump still runs"
    os.killpg(left, signal.SIGKILL)
    newer = backups.backup("create", "--keep", "30d")
    assert entries(backups) == sorted([made["backup"], newer["backup"]])
    backups.backup("verify", made["backup"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_backup_that_is_cancelled_leaves_nothing(
    backups: Backups, paused: Paused, number: signal.Signals
) -> None:
    paused.stop_at("pg_dump", "--snapshot")
    process = backups.begin("backup", "create")
    left = await paused.stopped()
    process.send_signal(number)
    assert await ended(process) == 130
    assert entries(backups) == []
    with pytest.raises(ProcessLookupError):
        os.kill(left, 0)


async def test_a_backup_whose_connection_is_lost_fails_and_is_recorded(
    backups: Backups, paused: Paused, database_url: str
) -> None:
    paused.stop_at("pg_dump", "--snapshot")
    process = backups.begin("backup", "create")
    await paused.stopped()
    async with opened(database_url) as connection:
        await connection.execute(
            "select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory' and l.mode = 'ShareLock'"
            " and l.database = (select oid from pg_database where datname = current_database())"
        )
        paused.go()
        assert await ended(process) == 7
        assert entries(backups) == []
        last = await connection.fetchrow(LAST)
        assert last is not None
        assert (last["backup"], last["error"] is None) == (None, False)


async def test_the_schema_and_its_partitions_stay_while_a_backup_runs_and_writers_continue(
    backups: Backups, paused: Paused, database_url: str
) -> None:
    """An apply that waits changes nothing before the end of the backup, and loses nothing."""
    await filled(database_url)
    written = 0

    async def write() -> None:
        nonlocal written
        async with opened(database_url) as connection:
            while True:
                await connection.execute(
                    "select coordinator.signal_set('default', 'k' || $1::bigint % 50, '1')", written
                )
                await connection.execute(FILL.replace("500", "5"))
                written += 1

    async with anyio.create_task_group() as tasks, opened(database_url) as connection:
        tasks.start_soon(write)
        paused.stop_at("pg_dump", "--snapshot")
        process = backups.begin("backup", "create")
        await paused.stopped()
        await connection.execute("update coordinator.schema_files set checksum = 'x' where name = 'signal.sql'")
        applying = backups.begin("schema", "apply")
        before = written
        await until(lambda: _more(lambda: written > before + 100), "writers go on")
        assert applying.poll() is None
        assert await connection.fetchval("select coordinator.event_extend(99)") == 0
        paused.go()
        assert await ended(process) == 0
        assert await ended(applying) == 0
        assert await connection.fetchval("select coordinator.event_extend(99)") > 0
        tasks.cancel_scope.cancel()
    backups.backup("verify")


async def _more(condition: object) -> bool:
    return bool(condition()) if callable(condition) else False


async def test_a_table_that_another_session_changes_is_named_as_the_reason(backups: Backups, database_url: str) -> None:
    async with opened(database_url) as other:
        await other.execute("begin")
        await other.execute(IN_THE_WAY)
        assert backups.refused(7, "create")["name"] == "database-busy"
        await other.execute("rollback")
    assert entries(backups) == []
    backups.backup("create")


async def test_a_verification_that_is_killed_leaves_a_database_that_the_next_one_drops(
    backups: Backups, paused: Paused, database_url: str
) -> None:
    backups.backup("create")
    paused.stop_at("pg_restore", "--section=data")
    process = backups.begin("backup", "verify")
    left = await paused.stopped()
    process.kill()
    await ended(process)
    os.killpg(left, signal.SIGKILL)
    async with opened(database_url) as connection:
        assert len(await connection.fetch(SCRATCH)) == 1
        backups.backup("verify")
        assert await connection.fetch(SCRATCH) == []


async def test_a_verification_that_is_cancelled_drops_its_database(
    backups: Backups, paused: Paused, database_url: str
) -> None:
    backups.backup("create")
    paused.stop_at("pg_restore", "--section=data")
    process = backups.begin("backup", "verify")
    await paused.stopped()
    async with opened(database_url) as connection:
        (own,) = await connection.fetch(SCRATCH)
        backups.backup("verify")  # another one leaves it alone
        assert await connection.fetch(SCRATCH) == [own]
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 130
        assert await connection.fetch(SCRATCH) == []


@pytest.mark.parametrize("section", ["--section=pre-data", "--section=data", "--section=post-data", "--use-list"])
async def test_what_a_killed_restore_leaves_is_used_by_nobody(
    backups: Backups, paused: Paused, database_url: str, fresh: str, section: str
) -> None:
    await filled(database_url)
    backups.backup("create")
    paused.stop_at("pg_restore", section if section != "--use-list" else "--single-transaction --section=data")
    process = backups.begin("backup", "restore", "--url", fresh)
    left = await paused.stopped()
    process.kill()
    await ended(process)
    os.killpg(left, signal.SIGKILL)
    done = backups.run("schema", "verify", "--url", fresh)
    assert done.returncode == 6, done.stderr
    if section != "--section=pre-data":
        error = backups.refused(4, "restore", "--url", fresh)
        assert "interrupted" in error["message"]
        await admin(fresh, "set client_min_messages = warning", "drop schema coordinator cascade")
    backups.backup("restore", url=fresh)
    assert backups.run("schema", "verify", "--url", fresh).returncode == 0


async def test_a_pooler_is_refused(backups: Backups, database_url: str, tmp_path: Path) -> None:
    """It would hand on a session with its locks."""
    async with pooled(database_url, tmp_path / "pooler") as url:
        assert "DIRECT_URL" in (await anyio.to_thread.run_sync(backups.refused, 78, "create", "--url", url))["hint"]
        backups.environment |= {"COORDINATOR_DATABASE_URL": url, "COORDINATOR_DIRECT_URL": database_url}
        backups.backup("create")


async def test_two_restores_at_once_are_refused(backups: Backups, paused: Paused, fresh: str) -> None:
    backups.backup("create")
    paused.stop_at("pg_restore", "--section=pre-data")
    process = backups.begin("backup", "restore", "--url", fresh)
    await paused.stopped()
    assert backups.refused(7, "restore", "--url", fresh)["name"] == "database-busy"
    paused.go()
    assert await ended(process) == 0


async def test_rows_that_are_missing_from_a_dump_are_noticed(backups: Backups, database_url: str, fresh: str) -> None:
    """The file is complete and has the size in the manifest: only counts and checksums reveal the fault."""
    await filled(database_url)
    good, made = backups.backup("create"), backups.backup("create")
    path = Path(made["path"])
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    rows = manifest["tables"]["entries"]["rows"]
    for file in sorted((path / "dump").glob("*.dat.gz")):
        lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
        if len(lines) == rows + 3:  # the end of COPY, and two empty lines
            file.write_bytes(gzip.compress(b"".join(lines[1:])))
            manifest["files"][file.name] = file.stat().st_size
            break
    else:
        pytest.fail("no file has the entries")
    (path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    error = backups.refused(9, "verify", made["backup"])
    assert f"table entries has {rows - 1} rows instead of {rows}" in error["message"]
    statuses = {row["backup"]: row["status"] for row in backups.backup("list")}
    assert statuses == {made["backup"]: "differs", good["backup"]: "good"}
    async with opened(database_url) as connection:
        last = await connection.fetchrow(LAST)
        assert last is not None
        assert (last["backup"], last["failed_backup"]) == (good["backup"], made["backup"])
    assert "differs" in backups.refused(9, "restore", made["backup"], "--url", fresh)["message"]
    assert backups.run("schema", "verify", "--url", fresh).returncode == 6
    assert backups.backup("verify")["backup"] == good["backup"], "the newest good one"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"a small disk cannot be mounted (run as root): {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_fails_the_backup_and_leaves_no_files(
    backups: Backups, full_disk: Path, database_url: str
) -> None:
    error = backups.refused(9, "create", "--dir", str(full_disk))
    assert "space" in error["message"]
    assert list(full_disk.iterdir()) == []
    async with opened(database_url) as connection:
        assert "space" in await connection.fetchval("select error from coordinator.backup_last()")


async def test_an_older_schema_is_backed_up_and_brought_up_to_date_by_the_restore(
    backups: Backups, database_url: str, fresh: str
) -> None:
    files = {file.name: file.text for file in schema.files()}
    functions = re.findall(r"^create or replace function coordinator\.(\w+)", files["backup.sql"], re.MULTILINE)
    (migration,) = (name for name in files if name.endswith("_backups.sql"))
    async with opened(database_url) as connection:
        await connection.execute("".join(f"drop function coordinator.{name} cascade;" for name in functions))
        await connection.execute("drop table coordinator.backups")
        await connection.execute(
            "delete from coordinator.schema_files where name = any ($1::text[])", [migration, "backup.sql"]
        )
    made = backups.backup("create")
    assert "no record" in made["notes"][0]
    restored = backups.backup("restore", url=fresh)
    assert {migration, "backup.sql"} <= {*restored["applied"]}
    async with opened(fresh) as connection:
        assert await connection.fetchval("select restored_at is not null from coordinator.backups")


async def test_a_verification_on_an_embedded_server_needs_no_other(backups: Backups) -> None:
    made = backups.backup("create")
    backups.environment["COORDINATOR_DATABASE_URL"] = "postgresql://coordinator@127.0.0.1:1/coordinator"
    found = backups.backup("verify", "--embedded")
    assert (found["backup"], len(found["notes"])) == (made["backup"], 1)
    (row,) = backups.backup("list")
    assert row["verified_at"] is not None


async def test_a_password_reaches_the_programs_and_a_wrong_one_is_refused(backups: Backups, tmp_path: Path) -> None:
    async with embedded.run(tmp_path / "server") as server:
        async with opened(server.dsn) as connection:
            await schema.apply(connection)
            await connection.execute("alter role coordinator password 'a b/c%25&'")
            (tmp_path / "server" / "postgres" / "pg_hba.conf").write_text("local all all scram-sha-256\n", "ascii")
            await connection.execute("select pg_reload_conf()")
        right = server.dsn.replace("coordinator@", "coordinator:a%20b%2Fc%2525%26@")
        wrong = server.dsn.replace("coordinator@", "coordinator:wrong@")
        await until(lambda: _refused(wrong), "the server asks for a password")
        error = backups.refused(7, "create", "--url", wrong)
        assert "password" in error["message"]
        assert entries(backups) == []
        backups.backup("create", url=right)
        backups.backup("verify", url=right)


async def test_a_server_of_another_version_is_backed_up_with_its_own_programs(
    backups: Backups, bin_dir: Path, tmp_path: Path, server_url: str
) -> None:
    """And a backup of a newer server, or by newer programs, is refused by the older one before anything is restored."""
    settings = {"fsync": "off"}
    async with embedded.run(tmp_path / "older", bin_dir=bin_dir, settings=settings) as older:
        async with opened(older.dsn) as connection:
            await schema.apply(connection)
            await connection.execute("create database same")
            lz4 = await connection.fetchval("select count(*) from pg_attribute where attcompression = 'l'")
        await filled(older.dsn)
        made = backups.backup("create", url=older.dsn)
        manifest = json.loads(Path(made["path"], "manifest.json").read_text("utf-8"))
        assert number(manifest["pg_dump"])[0] == number(older.version)[0] == manifest["restores_into"]
        assert len(manifest["compressed"]) > 0, "the server of the distribution has lz4, the embedded one has not"
        backups.backup("verify", made["backup"], url=older.dsn)
        found = backups.backup("verify", made["backup"], "--on", server_url, url=older.dsn)
        assert found["notes"] == []
        newer = binaries.folders("pg_dump", "pg_restore")
        other = backups.backup("create", "--pg-bin-dir", str(next(newer)), url=older.dsn)
        assert any("postgresql-client-" in note for note in other["notes"])
        error = backups.refused(78, "verify", other["backup"], "--url", older.dsn)
        assert "or newer" in error["message"]
        assert {row["status"] for row in backups.backup("list")} == {"good"}
        same = older.dsn.replace("/coordinator?", "/same?")
        backups.backup("restore", made["backup"], url=same)
        async with opened(same) as connection:
            assert await connection.fetch(SCRATCH) == []
            assert lz4 == await connection.fetchval("select count(*) from pg_attribute where attcompression = 'l'") > 0


async def test_numbers_without_gaps_are_distinguished_by_their_epoch(
    backups: Backups, database_url: str, fresh: str
) -> None:
    """The restored log gives the same number again, to other content, and a document the same version."""
    append = "select last_seq, epoch from coordinator.log_append('default', 'note', 'k', $1::text::json)"
    put = "select version, epoch from coordinator.document_put('default', 'plan', 'k', $1::text::json)"
    async with opened(database_url) as source, opened(fresh) as target:
        await source.fetchrow(append, '[{"data": 1}]')
        await source.fetchrow(put, "{}")
        backups.backup("create")
        lost = [await source.fetchrow(append, '[{"data": "lost"}]'), await source.fetchrow(put, '{"n": "lost"}')]
        backups.backup("restore", url=fresh)
        found = [await target.fetchrow(append, '[{"data": "found"}]'), await target.fetchrow(put, '{"n": "found"}')]
        for one, other in zip(lost, found, strict=True):
            assert one is not None
            assert other is not None
            assert one[0] == other[0] == 2
            assert one["epoch"] != other["epoch"]
        with pytest.raises(asyncpg.PostgresError, match="restored") as raised:
            await target.execute(
                "select coordinator.log_read('default', 'note', 'k', p_after => array[$1, '2'])", lost[0]["epoch"]
            )
        assert raised.value.sqlstate == "ZC218"
        with pytest.raises(asyncpg.PostgresError) as refused:
            await target.execute(
                "select coordinator.document_put('default', 'plan', 'k', '{}', p_expect => 2, p_epoch => $1)",
                lost[1]["epoch"],
            )
        assert refused.value.sqlstate == "ZC301"


async def _refused(url: str) -> bool:
    with suppress(CoordinatorError, asyncpg.PostgresError):
        async with opened(url):
            return False
    return True


async def test_repeated_restores_issue_nothing_twice(backups: Backups, server_url: str, database_url: str) -> None:
    """Each copy of one backup, in service at the same time, is an epoch of its own."""
    backups.backup("create")
    issued: list[int] = []
    for name in ("first", "second"):
        url = re.sub(r"/[a-z0-9_]+\?", f"/again_{name}?", server_url)
        await admin(server_url, f"create database again_{name}")
        try:
            backups.backup("restore", url=url)
            async with opened(url) as connection, opened(database_url) as source:
                for each in (connection, source):
                    issued += [await each.fetchval("select version from coordinator.signal_set('default', 'k', '1')")]
        finally:
            await admin(server_url, f"drop database again_{name} with (force)")
    assert issued[0] != issued[2] > 10**12


async def test_roles_have_their_grants_after_a_restore_and_missing_ones_are_named(
    backups: Backups, server_url: str, database_url: str, fresh: str
) -> None:
    await admin(server_url, "create role backup_app login", "create role backup_gone login")
    try:
        async with opened(database_url) as source:
            await source.execute("select coordinator.schema_grant(r) from unnest('{backup_app,backup_gone}'::text[]) r")
            await source.execute("revoke all on all routines in schema coordinator from backup_gone")
            await source.execute("revoke all on all tables in schema coordinator from backup_gone")
            await source.execute("revoke all on schema coordinator from backup_gone")
        await admin(server_url, "drop role backup_gone")
        backups.backup("create")
        restored = backups.backup("restore", url=fresh)
        assert restored["notes"] == [
            'there is no role "backup_gone": create it, then run "coordinator schema grant backup_gone"'
        ]
        signal_set = "(select oid from pg_proc where proname = 'signal_set')"
        async with opened(fresh) as target:
            for role, may in (("backup_app", True), ("coordinator_reader", False), ("coordinator_agent", True)):
                asked = f"select has_function_privilege($1, {signal_set}, 'execute')"
                assert await target.fetchval(asked, role) is may, role
            assert await target.fetchval(
                "select has_table_privilege('coordinator_reader', 'coordinator.signals_live', 'select')"
            )
            assert not await target.fetchval(f"select has_function_privilege('public', {signal_set}, 'execute')")
            assert await target.fetch("select * from coordinator.access_missing()") == []
    finally:
        for url in (database_url, fresh):
            await admin(url, "drop owned by backup_app")
        await admin(server_url, "drop role backup_app")


async def test_contents_in_an_object_store_are_counted_and_named(backups: Backups, database_url: str) -> None:
    async with opened(database_url) as connection:
        await populate(connection)
        bytes_ = await connection.fetchval(
            "with one as (insert into coordinator.artifact_objects (blob_id, store, key, created_at, stored_at, due_at)"
            " select id, 's3://bucket/prefix', 'k', now(), now(), now() from coordinator.artifact_blobs limit 1 returning blob_id)"
            " select bytes from coordinator.artifact_blobs join one on id = blob_id"
        )
    made = backups.backup("create")
    assert ["s3://bucket/prefix" in note for note in made["notes"]] == [True]
    manifest = json.loads(Path(made["path"], "manifest.json").read_text("utf-8"))
    assert manifest["objects"] == {"s3://bucket/prefix": {"count": 1, "bytes": bytes_}}
