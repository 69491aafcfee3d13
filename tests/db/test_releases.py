"""Programs of different releases on one database: who applies what, who is served, who is refused and how."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import asyncpg
import pytest

from coordinator.db import schema
from coordinator.db.connection import connect
from coordinator.db.schema import SqlFile
from coordinator.errors import DatabaseBusy, SchemaMismatch
from tests.conftest import admin, cloned, with_database
from tests.daemon import Daemon
from tests.db.next_release import newest, next_release
from tests.db.test_schema import first, pretend, process, psql
from tests.http_client import http_client
from tests.waiting import DEADLINE_S, until, until_true

NOTES = "select 'p_note' = any (proargnames) from pg_proc where oid = 'coordinator.signal_set'::regproc"


@pytest.fixture(scope="module")
def next_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[SqlFile, ...]:
    return next_release(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def next_template(server_url: str, pristine: str, next_files: tuple[SqlFile, ...]) -> str:
    """Name of a database with the schema of the next release, applied to that of this one."""
    name = f"next_{uuid4().hex[:8]}"

    async def make() -> None:
        await admin(server_url, f"create database {name} template {pristine}")
        connection = await connect(with_database(server_url, name))
        try:
            assert await apply_as(connection, next_files)
        finally:
            await connection.close()

    asyncio.run(make())
    return name


@pytest.fixture
async def url(server_url: str, pristine: str) -> AsyncIterator[str]:
    """A database with the schema of this release."""
    async with cloned(server_url, pristine) as url:
        yield url


@pytest.fixture
async def connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def ahead(server_url: str, next_template: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with the schema of the next release."""
    async with cloned(server_url, next_template) as url:
        connection = await connect(url)
        yield connection
        await connection.close()


async def apply_as(connection: asyncpg.Connection, files: tuple[SqlFile, ...], version: str = "999.0") -> list[str]:
    """Apply the schema as another program would."""
    with pytest.MonkeyPatch.context() as patched:
        pretend(patched, *files)
        patched.setattr(schema, "version", lambda: version)
        return await schema.apply(connection)


async def recorded(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch("select * from coordinator.schema_files order by kind, name")


async def record_change(connection: asyncpg.Connection, version: str) -> str:
    """Record that a program of a version has applied other functions, and return the name of their file."""
    name = first("functions").name
    change = "update coordinator.schema_files set checksum = 'another', program = $2 where name = $1"
    await connection.execute(change, name, version)
    return name


# ------------------------------------------------------------------------------------------------- an older program


@pytest.mark.parametrize("version", ["999.0", schema.version()])  # of a release; of a later commit in development
async def test_an_older_program_is_served_by_the_next_schema_and_leaves_it_as_it_is(
    ahead: asyncpg.Connection, version: str
) -> None:
    await ahead.execute("update coordinator.schema_files set program = $1 where program = '999.0'", version)
    before = await recorded(ahead)
    assert await schema.verify(ahead) == version
    assert await schema.apply(ahead) == []
    assert await schema.pending(ahead) == ""
    states = {file.name: file.state for file in await schema.status(ahead)}
    newer = {f"{newest(schema.files()) + 1:04}_notes.sql", "signal.sql", "process.sql"}
    assert {name for name, state in states.items() if state == "newer"} == newer
    assert {state for name, state in states.items() if name not in newer} == {"applied"}
    assert await recorded(ahead) == before
    assert await ahead.fetchval(NOTES)


async def test_functions_of_a_later_version_are_not_taken_back(connection: asyncpg.Connection) -> None:
    await record_change(connection, "999.0")
    before = await recorded(connection)
    assert await schema.verify(connection) == "999.0"
    assert await schema.apply(connection) == []
    assert await recorded(connection) == before


async def test_in_development_changed_functions_are_applied_by_whoever_starts(connection: asyncpg.Connection) -> None:
    """Two states of one version, without a migration between them: neither is newer."""
    name = await record_change(connection, schema.version())
    with pytest.raises(SchemaMismatch):
        await schema.verify(connection)
    assert await schema.apply(connection) == [name]
    assert await schema.verify(connection) is None


async def test_a_function_file_that_the_next_release_renamed_is_not_missed(ahead: asyncpg.Connection) -> None:
    await ahead.execute("update coordinator.schema_files set name = 'zz_signal.sql' where name = 'signal.sql'")
    assert await schema.verify(ahead) == "999.0"
    newer = {file.name for file in await schema.status(ahead) if file.state == "newer"}
    assert newer > {"zz_signal.sql", "signal.sql"}


async def test_a_schema_that_no_longer_serves_a_program_refuses_it_and_names_the_release(
    ahead: asyncpg.Connection,
) -> None:
    number = newest(schema.files())
    await ahead.execute("update coordinator.schema_compatibility set oldest = $1", number)
    assert await schema.verify(ahead) == "999.0"
    await ahead.execute("update coordinator.schema_compatibility set oldest = $1", number + 1)
    before = await recorded(ahead)
    for attempt in (schema.verify, schema.apply, schema.pending):
        with pytest.raises(SchemaMismatch) as raised:
            await attempt(ahead)
        assert f"serves programs that know migration {number + 1:04}" in raised.value.message
        assert f"coordinator {schema.version()} ends with {number:04}" in raised.value.message
        assert "Update this program to 999.0" in str(raised.value.hint)
    assert await recorded(ahead) == before


async def test_another_line_of_development_is_refused(
    ahead: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two branches has a migration of its own, with the same number."""
    ours = f"{newest(schema.files()) + 1:04}_ours.sql"
    pretend(monkeypatch, *schema.files(), SqlFile("migration", ours, "select 1", "0"))
    for attempt in (schema.verify, schema.apply):
        with pytest.raises(SchemaMismatch) as raised:
            await attempt(ahead)
        assert ours in raised.value.message
        assert "_notes.sql" in raised.value.message
        assert "another database" in str(raised.value.hint)


async def test_an_older_program_that_waited_for_its_turn_does_not_overwrite_what_was_applied_meanwhile(
    url: str, connection: asyncpg.Connection, next_files: tuple[SqlFile, ...]
) -> None:
    """Both start on an older schema; the older program sees that something is to be applied, and then the newer one is first."""
    watcher = await connect(url)
    try:
        await record_change(connection, "0.0.1")
        async with connection.transaction():
            await connection.execute(schema._LOCK)
            older = process(url)
            asked = """select exists (select from pg_stat_activity where query = $1 and state = 'idle in transaction'
                                      and datname = current_database() and pid <> pg_backend_pid())"""
            await until_true(watcher, asked, schema._TRY_LOCK)
            await apply_as(connection, next_files)
            before = await recorded(connection)
        output, _ = await asyncio.to_thread(older.communicate)
        assert (older.returncode, output.strip()) == (0, "0")
        assert await recorded(connection) == before
        assert await connection.fetchval(NOTES)
    finally:
        await watcher.close()


# ------------------------------------------------------------------------------------------------------ while it runs


async def test_a_daemon_runs_while_the_next_release_is_applied_and_restarts_on_it(
    url: str, connection: asyncpg.Connection, next_files: tuple[SqlFile, ...]
) -> None:
    """Its prepared statements, listening session, loops and relay meet functions with other signatures."""
    with Daemon(url, schema="apply") as daemon:
        await (await daemon.ready()).lead()
        await written(daemon, "before")
        await apply_as(connection, next_files)
        await written(daemon, "after")
        # A loop may have failed to get a lock while it was applied.
        assert not re.findall(r'"error": "[^"]*(?:not exist|result type|cache lookup)', daemon.output())
        since = await daemon.heartbeats()

        async def another() -> bool:
            return await daemon.heartbeats() > since + 1  # with a loop that it does not know among what is due

        await until(another, "it sends heartbeats")
        await daemon.lead()
    with Daemon(url, schema="apply") as daemon:
        await daemon.ready()
        assert (await daemon.logged("schema.newer"))["program"] == "999.0"
        assert not daemon.lines("schema.applied")
        await written(daemon, "restarted")
    assert await connection.fetchval(NOTES)


async def written(daemon: Daemon, key: str) -> None:
    """Write through a daemon, and wait until its relay and its gateway have seen it."""
    async with http_client() as client:
        for number in range(20):  # more than it takes until statements are prepared and planned
            signal = {"project": "default", "key": key, "value": number}
            answer = await client.post(f"{daemon.url}/v1/signals/set", json=signal)
            assert answer.status_code == 200, answer.text

        async def numbered() -> bool:
            page = await client.get(f"{daemon.url}/v1/events", params={"key": key, "limit": 100})
            assert page.status_code == 200, page.text
            return len(page.json()["items"]) == 20

        await until(numbered, "its events are numbered")


# -------------------------------------------------------------------------------------------------- locks, and by hand


async def test_a_change_waits_for_a_lock_less_than_calls_do_and_begins_again(
    url: str, connection: asyncpg.Connection, next_files: tuple[SqlFile, ...]
) -> None:
    holder, caller = await connect(url), await connect(url)
    try:
        await holder.execute("begin; lock table coordinator.signals in row exclusive mode")
        applying = asyncio.create_task(apply_as(connection, next_files))
        waits = "select exists (select from pg_stat_activity where pid = $1 and wait_event_type = 'Lock')"
        for _ in range(2):  # in between, it has let the caller through
            await until_true(caller, waits, connection.get_server_pid())
            await caller.execute("select count(*) from coordinator.signals", timeout=60)
        await holder.execute("rollback")
        assert await applying
    finally:
        holder.terminate()
        caller.terminate()


async def test_a_change_gets_its_locks_although_calls_hold_one_and_wait_for_another(
    url: str,
    connection: asyncpg.Connection,
    next_files: tuple[SqlFile, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They give way, as they wait for a second; the change first gives way to them, and then no longer."""
    monkeypatch.setattr(schema, "DDL_WAIT_S", 0.05)  # too little, for as long as the caller does not end
    monkeypatch.setattr(schema, "DDL_FIRM_S", DEADLINE_S)
    monkeypatch.setattr(schema, "OLD_S", DEADLINE_S)
    caller = await connect(url)
    has_signals = """
        select exists (select from pg_locks where relation = 'coordinator.signals'::regclass and mode = 'AccessExclusiveLock'
                                              and granted and pid = $1)"""
    try:
        await caller.execute("begin; select from coordinator.sessions_live limit 0")
        applying = asyncio.create_task(apply_as(connection, next_files))

        async def conflict() -> bool:
            return applying.done() or await caller.fetchval(has_signals, connection.get_server_pid())

        while not applying.done():
            await until(conflict, "the change has the table")
            with suppress(asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                await caller.execute("set local lock_timeout = '1s'; select count(*) from coordinator.signals")
            await caller.execute("rollback; begin; select from coordinator.sessions_live limit 0")
        assert await applying
    finally:
        caller.terminate()


async def test_a_change_that_gets_no_lock_names_the_blocking_session(
    url: str, connection: asyncpg.Connection, next_files: tuple[SqlFile, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "DDL_WAIT_S", 0.02)
    monkeypatch.setattr(schema, "DDL_LIMIT_S", 0.0)
    holder = await connect(url)
    try:
        await holder.execute("begin; lock table coordinator.signals in row exclusive mode")
        with pytest.raises(DatabaseBusy) as raised:
            await apply_as(connection, next_files)
        assert f"session {holder.get_server_pid()} " in str(raised.value.hint)
    finally:
        holder.terminate()
    assert await schema.verify(connection) is None


def through_psql(url: str, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([psql(), "-X", url], input=script, capture_output=True, text=True, check=False)


async def test_the_pending_sql_goes_through_psql_once(
    url: str, connection: asyncpg.Connection, next_files: tuple[SqlFile, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "version", lambda: "999.0")
    pretend(monkeypatch, *next_files)
    script = await schema.pending(connection)
    assert [line for line in script.splitlines() if line.startswith("-- migration ")] == [
        f"-- migration {newest(schema.files()):04}_notes.sql"
    ]
    for file in schema.files():
        if file.kind == "functions":
            assert f"\n-- functions {file.name}\nset local lock_timeout = '2500ms';\n" in script
    done = await asyncio.to_thread(through_psql, url, script + "\\echo :QUIET\nselect 'shown';\n")
    assert (done.returncode, done.stderr) == (0, "")
    said, after = done.stdout.split("\noff\n")
    assert said == "the schema of coordinator 999.0 is applied"
    assert "shown" in after
    assert await schema.verify(connection) is None
    assert await schema.pending(connection) == ""
    again = await asyncio.to_thread(through_psql, url, script)
    assert again.returncode == 3
    assert "make it again" in again.stderr


async def test_the_pending_sql_of_an_empty_database_is_the_whole_script(empty_url: str) -> None:
    connection = await connect(empty_url)
    try:
        assert await schema.pending(connection) == schema.script()
    finally:
        await connection.close()


async def test_the_printed_script_refuses_a_database_with_a_schema(url: str) -> None:
    done = await asyncio.to_thread(through_psql, url, schema.script())
    assert done.returncode == 3
    assert "schema apply --dry-run" in done.stderr
