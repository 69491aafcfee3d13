"""Applying the schema: concurrently, interrupted, edited, without rights, by hand, on every PostgreSQL found."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import msgspec
import pytest

import coordinator
from coordinator import embedded
from coordinator.db import schema
from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.embedded import binaries
from coordinator.errors import PermissionDenied, SchemaMismatch
from coordinator.operations import events, signals
from coordinator.operations.work import LeaderRenew, ProcessRegister, RelayRecover, RelayStep, SampleMetrics
from coordinator.telemetry import metrics
from coordinator.version import version
from tests.catalogue.test_events import DRIVERS
from tests.conftest import FAKE_CLOCK, Transaction, cloned
from tests.forked import Forked
from tests.generate.schema import dump
from tests.server import SETTINGS
from tests.waiting import until_blocked, until_true


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database without the schema."""
    connection = await connect(empty_url)
    yield connection
    await connection.close()


@pytest.fixture
async def applied_url(server_url: str, pristine: str) -> AsyncIterator[str]:
    """A database with the schema."""
    async with cloned(server_url, pristine) as url:
        yield url


@pytest.fixture
async def connection(applied_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(applied_url)
    yield connection
    await connection.close()


@pytest.fixture
async def reference(server_url: str, pristine: str) -> str:
    """Return a dump of the applied schema."""
    async with cloned(server_url, pristine) as url:
        connection = await connect(url)
        try:
            return await dump(connection)
        finally:
            await connection.close()


def pretend(monkeypatch: pytest.MonkeyPatch, *files: schema.SqlFile) -> None:
    """Replace the program's SQL files."""
    monkeypatch.setattr(schema, "files", lambda: files)


def edited(file: schema.SqlFile, text: str) -> schema.SqlFile:
    return msgspec.structs.replace(file, text=text, checksum=f"edited {len(text)}")


def first(kind: str) -> schema.SqlFile:
    return next(file for file in schema.files() if file.kind == kind)


def process(url: str, *arguments: str) -> Forked:
    return Forked(
        "tests.db.apply_process", url, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


async def tables(connection: asyncpg.Connection) -> int:
    return await connection.fetchval(
        "select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = 'coordinator'"
    )


# ------------------------------------------------------------------------------------------------------------ applying


async def test_twenty_processes_at_once_apply_it_once(empty_url: str, empty: asyncpg.Connection) -> None:
    started = [process(empty_url) for _ in range(20)]
    outputs = [(await asyncio.to_thread(each.communicate))[0].strip() for each in started]
    failed = [output for each, output in zip(started, outputs, strict=True) if each.returncode != 0]
    assert not failed, failed[0]
    expected = len([file for file in schema.files() if file.kind != "bootstrap"])
    assert sorted(map(int, outputs)) == [0] * 19 + [expected]
    await schema.verify(empty)


async def test_who_waited_for_the_lock_sees_what_was_applied_meanwhile(
    empty_url: str, empty: asyncpg.Connection
) -> None:
    """The waiter's caches can be those from before its wait: the server does not refresh them after few changes."""
    bootstrap, migration = first("bootstrap"), first("migration")
    other = await connect(empty_url)
    try:
        assert {file.state for file in await schema.status(other)} == {"pending"}
        async with empty.transaction():
            await empty.execute("select pg_advisory_xact_lock(1)")
            await other.execute("begin")
            waits = asyncio.create_task(other.execute("select pg_advisory_xact_lock(1)"))
            await until_blocked(empty, other)
            await empty.execute(bootstrap.text)
            record = "insert into coordinator.schema_files (kind, name, checksum, program) values ($1, $2, $3, '0')"
            await empty.execute(record, "migration", migration.name, migration.checksum)
        await waits
        assert "applied" in {file.state for file in await schema.status(other)}
    finally:
        await other.close()


async def test_killed_half_way_it_leaves_nothing_and_can_be_repeated(empty_url: str, empty: asyncpg.Connection) -> None:
    started = process(empty_url, "stuck")
    await until_true(
        empty,
        "select exists (select from pg_stat_activity where query = 'select pg_sleep(1000)' and datname = current_database())",
    )
    started.kill()
    await asyncio.to_thread(started.communicate)
    assert await tables(empty) == 0
    await empty.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(1000)' and datname = current_database()"
    )
    assert await schema.apply(empty)
    await schema.verify(empty)


async def test_a_file_that_fails_undoes_all_and_says_which(
    empty: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = schema.files()
    pretend(monkeypatch, *sound, schema.SqlFile("functions", "zz_bad.sql", "select no_such_thing()", "0"))
    with pytest.raises(SchemaMismatch) as raised:
        await schema.apply(empty)
    assert "zz_bad.sql" in raised.value.message
    assert raised.value.hint
    assert await tables(empty) == 0


def test_migrations_are_numbered_without_gaps_or_repetitions() -> None:
    numbers = [int(file.name[:4]) for file in schema.files() if file.kind == "migration"]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_applying_again_does_nothing(connection: asyncpg.Connection) -> None:
    before = await connection.fetch("select * from coordinator.schema_files order by kind, name")
    assert await schema.apply(connection) == []
    assert await connection.fetch("select * from coordinator.schema_files order by kind, name") == before


async def test_status_lists_each_file(empty: asyncpg.Connection, connection: asyncpg.Connection) -> None:
    assert {file.state for file in await schema.status(empty)} == {"pending"}
    found = await schema.status(connection)
    assert {file.state for file in found} == {"applied"}
    assert all(file.applied_at for file in found)


async def test_verify_refuses_an_empty_database_with_the_way_out(empty: asyncpg.Connection) -> None:
    with pytest.raises(SchemaMismatch) as raised:
        await schema.verify(empty)
    assert raised.value.exit_code == 6
    assert "schema apply" in str(raised.value.hint)
    assert await tables(empty) == 0


@pytest.mark.parametrize(
    ("listed", "wrong"),
    [("a.sql", "noun/b.sql"), ("a.sql noun/b.sql c.sql", "c.sql"), ("a.sql a.sql noun/b.sql", "a.sql")],
)
def test_a_function_file_that_is_not_in_the_order_once_is_an_error(tmp_path: Path, listed: str, wrong: str) -> None:
    (tmp_path / "noun").mkdir()
    for name in ("a.sql", "noun/b.sql"):
        (tmp_path / name).touch()
    order = tmp_path / "order.txt"
    order.write_text("noun/b.sql\na.sql\n")
    assert schema.function_order(tmp_path) == ["noun/b.sql", "a.sql"]
    order.write_text(listed)
    with pytest.raises(ValueError, match=rf": {re.escape(wrong)}$"):
        schema.function_order(tmp_path)


# ---------------------------------------------------------------------------------------------------- other files


async def test_an_edited_migration_is_refused_before_anything_is_done(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await dump(connection)
    sound = schema.files()
    migration, functions = first("migration"), first("functions")
    changes = {migration: edited(migration, migration.text + "\n"), functions: edited(functions, functions.text + "\n")}
    pretend(monkeypatch, *(changes.get(file, file) for file in sound))
    for attempt in (schema.apply, schema.verify):
        with pytest.raises(SchemaMismatch) as raised:
            await attempt(connection)
        assert migration.name in raised.value.message
        assert raised.value.hint
        assert (raised.value.exit_code, raised.value.code[:3]) == (6, "ZC6")
    assert await dump(connection) == before


async def test_changed_functions_are_applied_again_and_only_they_are_new_on_record(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = schema.files()
    clock = next(file for file in ours if file.name == "clock.sql")
    text = clock.text + "comment on function coordinator.now_utc() is 'A clock.';\n"
    pretend(monkeypatch, *(edited(file, text) if file == clock else file for file in ours))
    before = await connection.fetch("select name from coordinator.schema_files where name <> 'clock.sql' order by 1")
    assert await schema.apply(connection) == ["clock.sql"]
    comment = await connection.fetchval("select obj_description('coordinator.now_utc()'::regprocedure)")
    assert comment == "A clock."
    assert await schema.apply(connection) == []
    assert before == await connection.fetch(
        "select name from coordinator.schema_files where name <> 'clock.sql' order by 1"
    )


async def test_a_function_file_that_is_gone_is_forgotten(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = schema.files()
    pretend(monkeypatch, *ours, schema.SqlFile("functions", "zz_old.sql", "select 1", "0"))
    await schema.apply(connection)
    pretend(monkeypatch, *ours)
    assert await schema.apply(connection) == ["zz_old.sql"]
    await schema.verify(connection)


async def test_readers_never_see_the_catalogue_empty(connection: asyncpg.Connection, applied_url: str) -> None:
    count = """select (select count(*) from coordinator.event_types), (select count(*) from coordinator.rights),
                      (select count(*) from coordinator.limits)"""
    before = await connection.fetchrow(count)
    assert before
    assert all(before)
    reader = await connect(applied_url)
    try:
        async with connection.transaction():
            for file in schema.files():
                if file.kind == "functions":
                    await connection.execute(file.text)
                    assert await reader.fetchrow(count) == before
        assert await reader.fetchrow(count) == before
    finally:
        await reader.close()


# ------------------------------------------------------------------------------------------------------------ rights


@pytest.fixture
async def role(connection: asyncpg.Connection) -> AsyncIterator[str]:
    """A role without any privileges."""
    name = f"clerk_{connection.get_server_pid()}"
    await connection.execute(f"create role {name} login")
    yield name
    await connection.execute("reset session authorization")
    await connection.execute(f"drop owned by {name}; drop role {name}")


async def test_a_role_without_ddl_rights_can_run_everything_after_a_grant(
    connection: asyncpg.Connection, role: str
) -> None:
    await schema.grant(connection, role)
    await connection.execute(f"set session authorization {role}")
    await schema.verify(connection)
    assert await schema.apply(connection) == []
    process = await call(connection, ProcessRegister(kind="daemon", name="x"))
    await call(connection, LeaderRenew(process=process))
    await call(connection, RelayRecover())
    made = await call(connection, signals.Set(project="default", key="k", value=1))
    assert made.actor == role
    assert (await call(connection, RelayStep())).moved == 1
    assert [event.type for event in await call(connection, events.Since())] == ["signal.set"]
    await call(connection, SampleMetrics(samplers=metrics.SAMPLES.samplers))
    for refused in (
        "delete from coordinator.signals",
        "insert into coordinator.projects (name, created_at) values ('x', now())",
        "create table coordinator.mine (a integer)",
        "select coordinator.schema_forget('migration', '{}')",
        f"select coordinator.schema_grant('{role}')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(refused)


async def test_a_role_that_was_granted_keeps_it_over_an_apply(
    connection: asyncpg.Connection, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schema.grant(connection, role)
    ours = schema.files()
    extra = "create function coordinator.zz_new() returns integer language sql stable return 7"
    pretend(monkeypatch, *ours, schema.SqlFile("functions", "zz_new.sql", extra, "0"))
    await schema.apply(connection)
    await connection.execute(f"set session authorization {role}")
    assert await connection.fetchval("select coordinator.zz_new()") == 7


async def test_without_ddl_rights_something_to_do_is_a_mismatch_with_the_way_out(
    connection: asyncpg.Connection, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schema.grant(connection, role)
    functions = first("functions")
    pretend(monkeypatch, *(edited(file, file.text + "\n") if file == functions else file for file in schema.files()))
    await connection.execute(f"set session authorization {role}")
    with pytest.raises(SchemaMismatch) as raised:
        await schema.apply(connection)
    assert "schema apply" in str(raised.value.hint)


async def test_without_any_right_an_empty_database_is_a_mismatch(empty: asyncpg.Connection, role: str) -> None:
    await empty.execute(f"set session authorization {role}")
    with pytest.raises(SchemaMismatch):
        await schema.apply(empty)


async def test_a_role_without_a_grant_is_refused(connection: asyncpg.Connection, role: str) -> None:
    await connection.execute(f"set session authorization {role}")
    with pytest.raises(PermissionDenied):
        await call(connection, signals.Set(project="default", key="k", value=1))


async def test_a_role_that_does_not_exist_cannot_be_granted(connection: asyncpg.Connection) -> None:
    with pytest.raises(coordinator.errors.NotFound) as raised:
        await schema.grant(connection, 'no"body')
    assert raised.value.code == "ZC206"


# ------------------------------------------------------------------------------------------------------------ by hand


def psql() -> Path:
    return next(folder / "psql" for folder in binaries.folders() if (folder / "psql").exists())


async def test_the_printed_script_makes_the_same_schema_through_psql(
    empty_url: str, empty: asyncpg.Connection, reference: str
) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [psql(), "-X", empty_url],
        input=schema.script(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"the schema of coordinator {version()} is applied\n"
    await schema.verify(empty)
    assert await dump(empty) == reference


async def test_the_printed_script_changes_nothing_when_it_fails(empty_url: str, empty: asyncpg.Connection) -> None:
    script = schema.script().replace("commit;", "select no_such_thing(); commit;")
    done = await asyncio.to_thread(
        subprocess.run, [psql(), "-X", "-q", empty_url], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert await tables(empty) == 0


# --------------------------------------------------------------------------------------------- every PostgreSQL that is here


async def majors() -> dict[int, Path]:
    """Return the folder of each major version of PostgreSQL on this machine."""
    found: dict[int, Path] = {}
    for folder in binaries.folders():
        version = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        found.setdefault(int(re.search(r"\) (\d+)", version)[1]), folder)  # type: ignore[index]
    return found


MAJORS = asyncio.run(majors())


@pytest.mark.parametrize("major", sorted(MAJORS))
async def test_every_noun_works_on_every_postgresql(
    major: int, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = schema.SETTINGS.replace("check_function_bodies = off", "check_function_bodies = on")
    assert checked != schema.SETTINGS
    monkeypatch.setattr(schema, "SETTINGS", checked)
    settings = {**SETTINGS, "max_prepared_transactions": "5"}
    async with embedded.run(tmp_path / "data", bin_dir=MAJORS[major], settings=settings) as server:
        connection = await connect(server.dsn)
        try:
            assert connection.get_server_version().major == major
            await schema.apply(connection)
            assert await dump(connection) == reference
            await connection.execute(FAKE_CLOCK)
            await call(connection, RelayRecover())
            for drive in DRIVERS.values():
                async with connection.transaction():
                    await drive(Transaction(connection))
            async with connection.transaction():
                await connection.execute("set local coordinator.doorbell = off")
                await call(connection, signals.Set(project="default", key="prepared", value=1))
                await connection.execute("prepare transaction 'late'")
                # asyncpg's commit of the block then has nothing to commit
            emitted = await connection.fetchval("select count(*) from coordinator.events")
            assert (await call(connection, RelayStep())).moved == emitted
            await connection.execute("commit prepared 'late'")
            assert (await call(connection, RelayStep())).moved == 1
            page = await call(connection, events.Since(limit=10000))
            assert len(page) == emitted + 1
            assert page[-1].key == "prepared"
            await call(connection, SampleMetrics(samplers=metrics.SAMPLES.samplers))
        finally:
            await connection.close()
