"""Make a backup: pg_dump in a snapshot and, in the same snapshot, the counts and checksums for the manifest.

A transaction takes the snapshot and exports it. pg_dump reads in this snapshot with several sessions, while the
transaction computes counts and checksums. The locks that prevent changes of the schema are taken before the snapshot
and held by the session, so they end with it.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import msgspec

from coordinator.backoff import Backoff
from coordinator.backup import contents, place, programs
from coordinator.backup.contents import UNBOUNDED_S
from coordinator.backup.progress import Advance, OnProgress
from coordinator.config import Config
from coordinator.db.connection import mapped_errors
from coordinator.db.single import Connection, connected
from coordinator.embedded.releases import number
from coordinator.errors import (
    Conflict,
    CoordinatorError,
    DatabaseBusy,
    DatabaseUnavailable,
    NotFound,
    PermissionDenied,
)
from coordinator.model.backup import FORMAT, PRODUCT, Manifest, StoredObjects, TableSum
from coordinator.version import version

__all__ = ["Made", "create", "record"]

TURN_S = 60.0  # for a change of the schema or of partitions to end
COMPRESSION = 1  # zlib level: 5 times as fast as the default, and a tenth larger

_ABOUT = """
select current_setting('server_version') as server, current_database() as database, pg_is_in_recovery() as standby,
       (select system_identifier from pg_control_system()) || '/' || d.oid as origin, pg_encoding_to_char(d.encoding) as encoding,
       to_regclass('coordinator.schema_files') is not null as ours, clock_timestamp() as now
from pg_database d where d.datname = current_database()
"""
_UNREADABLE = """
select string_agg(c.relname, ', ' order by c.relname), count(*) from pg_class c
where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p', 'S')
  and (not has_table_privilege(c.oid, 'select') or row_security_active(c.oid))
"""
_TURN = "select pg_try_advisory_lock(hashtextextended('coordinator.backup', 0))"
_HOLDER = """
select format('session %s of role "%s"', a.pid, a.usename) from pg_locks l join pg_stat_activity a on a.pid = l.pid, hashtextextended($1, 0) key
where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and l.database = (select oid from pg_database where datname = current_database())
  and l.classid = (key >> 32 & 4294967295)::oid and l.objid = (key & 4294967295)::oid
"""
_SCHEMA = "select pg_try_advisory_lock_shared(hashtextextended('coordinator.schema', 0))"
_PARTITIONS = "select pg_try_advisory_lock(hashtextextended('coordinator.partitions', 0))"
_MIGRATIONS = "select name from coordinator.schema_files where kind = 'migration' order by name"
_COMPRESSED = """
select c.relname, a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p') and a.attcompression = 'l' and not a.attisdropped order by 1, 2
"""
_OBJECTS = """
select o.store, count(*), coalesce(sum(b.bytes), 0)::bigint from coordinator.artifact_objects o join coordinator.artifact_blobs b on b.id = o.blob_id
where o.stored_at is not null group by o.store
"""
_RECORD = "select coordinator.backup_record($1, 'dump', $2, $3, $4)"


class _About(msgspec.Struct, frozen=True):
    """The server and the database."""

    server: str
    database: str
    standby: bool
    origin: str
    encoding: str
    ours: bool
    now: datetime

    @property
    def version(self) -> str:
        """The server's version, without the suffix of its package."""
        return self.server.split(" ")[0]


class Made(msgspec.Struct, frozen=True):
    """A finished backup. ``deleted`` are the backups that retention has deleted, ``notes`` are notices for the caller."""

    backup: str
    path: str
    bytes: int
    rows: int
    seconds: float
    deleted: list[str]
    notes: list[str]


async def create(
    dsn: str, config: Config, *, folder: Path, jobs: int, keep: timedelta | None, report: OnProgress
) -> Made:
    """Back up the schema of a database into a directory, with this many sessions of pg_dump; then delete backups older than ``keep``.

    ``dsn`` leads to the server itself, past any pooler.

    Raises: ``PermissionDenied`` if the role may not read everything; ``Conflict`` if another backup runs; ``DatabaseBusy``; ``DatabaseUnavailable``;
        ``ConfigurationError`` without a fitting pg_dump or directory; ``BackupFailed``.
    """
    began = time.monotonic()
    async with connected(dsn, config) as connection:
        await contents.settle(connection)
        about = await _checked(connection)
        tools = await programs.choose(config.pg_bin_dir, number(about.server)[0], what="the server")
        await _take_turn(connection)
        place.make(folder)
        notes = [
            f"{path} has files that are not of a backup; it was not deleted" for path in place.remove_remains(folder)
        ]
        with place.begin(folder, about.now) as unfinished:
            try:
                manifest = await _dump(
                    connection, dsn, about, unfinished=unfinished, tools=tools, jobs=jobs, report=report
                )
                path = unfinished.finish(manifest)
            except Exception as error:
                await _record_failure(dsn, config, unfinished.name, error)
                if connection.is_closed() and not isinstance(error, DatabaseUnavailable):  # with its snapshot
                    raise DatabaseUnavailable(
                        "the connection that held the snapshot was lost", hint="Try again when the server answers."
                    ) from error
                raise
        if recorded := await record(connection, manifest):
            notes.append(recorded)
        deleted = place.prune(folder, manifest.origin, keep) if keep is not None else []
    notes += [
        f"{held.count} contents of artifacts are in {store}, not in the backup: keep deleted objects there as long as backups"
        for store, held in manifest.objects.items()
    ]
    if manifest.restores_into > number(manifest.postgres)[0]:
        notes.append(
            f"pg_dump {tools.version} wrote it: it can be restored into PostgreSQL {manifest.restores_into} or newer alone; "
            f"install postgresql-client-{number(manifest.postgres)[0]} to restore it into the present version"
        )
    return Made(manifest.backup, str(path), manifest.bytes, manifest.rows, time.monotonic() - began, deleted, notes)


async def _checked(connection: Connection) -> _About:
    """Return what the server is.

    Raises: ``DatabaseUnavailable`` for a standby; ``NotFound`` without a schema; ``PermissionDenied``.
    """
    with mapped_errors():
        about = msgspec.convert(dict(await connection.fetchrow(_ABOUT) or {}), _About)
        if not about.ours:
            raise NotFound(
                f'the database "{about.database}" has no schema of coordinator',
                hint="Check the address: --url, or COORDINATOR_DATABASE_URL.",
            )
        if about.standby:
            raise DatabaseUnavailable("the database is a standby", hint="Back up the primary: give its address.")
        names, count = await connection.fetchrow(_UNREADABLE)
        if count:
            raise PermissionDenied(
                f"this role may not read everything: {count} tables and sequences, such as {names.split(', ')[0]}",
                hint="Run as the owner of the schema, or as a role with pg_read_all_data and bypassrls.",
            )
    return about


async def _take_turn(connection: Connection) -> None:
    """Keep other backups, changes of the schema and changes of partitions away, as long as the session lasts.

    Raises: ``Conflict`` if another backup runs; ``DatabaseBusy``.
    """
    with mapped_errors():
        if not await connection.fetchval(_TURN):
            holder = await connection.fetchval(_HOLDER, "coordinator.backup")
            raise Conflict(
                f"another backup of this database runs, in {holder or 'another session'}",
                hint="Wait for its end; if its program is dead, end the session with pg_terminate_backend.",
            )
        for attempt, key in ((_SCHEMA, "coordinator.schema"), (_PARTITIONS, "coordinator.partitions")):
            backoff = Backoff()
            deadline = time.monotonic() + TURN_S
            while not await connection.fetchval(attempt):
                if time.monotonic() > deadline:
                    holder = await connection.fetchval(_HOLDER, key)
                    raise DatabaseBusy(
                        f"the schema has been changed for {TURN_S:g} seconds by {holder or 'another session'}",
                        hint="Try again when it is done.",
                    )
                await backoff.wait()


async def _dump(
    connection: Connection,
    dsn: str,
    about: _About,
    *,
    unfinished: place.Unfinished,
    tools: programs.Programs,
    jobs: int,
    report: OnProgress,
) -> Manifest:
    before = await contents.sequences(connection)
    summed: dict[str, TableSum] = {}
    with mapped_errors():
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
        snapshot = await connection.fetchval("select pg_export_snapshot()")
    sizes = await contents.sizes(connection)
    # The tables are read twice: for the dump, and for the checksums.
    advance = Advance(report, "dumping", {**sizes, **{f"{name}=": size for name, size in sizes.items()}})
    arguments = [
        "--format=directory",
        f"--file={unfinished.dump}",
        f"--snapshot={snapshot}",
        f"--jobs={jobs}",
        f"--compress={COMPRESSION}",
        "--no-toast-compression",  # not every server is built with lz4: the restore compresses what its server can compress
        "--schema=coordinator",
        "--no-owner",
        "--no-privileges",
    ]
    pg_dump = tools.folder / "pg_dump"

    async def add_up() -> None:
        summed.update(await contents.tables(connection, sizes, lambda name: advance(f"{name}=")))

    await both(partial(programs.run, pg_dump, dsn, arguments, report=advance, keep_open=[unfinished.lock]), add_up)
    with mapped_errors():
        migrations = await connection.fetch(_MIGRATIONS)
        compressed = await connection.fetch(_COMPRESSED)
        objects = await connection.fetch(_OBJECTS, timeout=UNBOUNDED_S)
        await transaction.rollback()
        after = await contents.sequences(connection)
        ended_at = await connection.fetchval("select clock_timestamp()")
    return Manifest(
        product=PRODUCT,
        format=FORMAT,
        backup=unfinished.name,
        program=version(),
        postgres=about.version,
        pg_dump=tools.version,
        restores_into=max(number(about.version)[0], programs.NEEDS_17 if tools.major >= programs.NEEDS_17 else 0),
        origin=about.origin,
        database=about.database,
        encoding=about.encoding,
        started_at=about.now,
        ended_at=ended_at,
        migrations=[name for (name,) in migrations],
        tables=summed,
        sequences={name: (value, after.get(name)) for name, value in before.items()},
        objects={store: StoredObjects(count, size) for store, count, size in objects},
        compressed=[(table, column) for table, column in compressed],
        files=unfinished.files(),
    )


async def both(*work: programs.Work) -> None:
    """Run both to the end; if one fails, cancel the other, and raise its error."""
    try:
        async with anyio.create_task_group() as tasks:
            for each in work:
                tasks.start_soon(each)
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def record(connection: Connection, manifest: Manifest) -> str | None:
    """Record a backup in the database; return why that was not possible."""
    try:
        with mapped_errors():
            await connection.execute(_RECORD, manifest.backup, manifest.started_at, manifest.bytes, None)
    except CoordinatorError as failure:
        return f"the database has no record of the backup, so metrics do not know of it: {failure.message}"
    return None


async def _record_failure(dsn: str, config: Config, name: str, error: Exception) -> None:
    """Record a failure on a separate connection, if that is possible, since the other one may be lost."""
    try:
        async with connected(dsn, config) as connection:
            with mapped_errors():
                await connection.execute(_RECORD, name, None, None, (str(error) or type(error).__name__)[:2000])
    except CoordinatorError:
        pass  # the age of the last good backup grows anyway
