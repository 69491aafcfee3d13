"""Restore a backup permanently, into a database without the schema ``coordinator``.

Sequence: definitions, rows, indexes; comparison; grants; then, in one transaction, the rows that make the schema valid;
then migrations that the backup does not have, and a new epoch. A daemon that starts meanwhile waits for the lock of the
schema.
"""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import msgspec

from coordinator.backup import contents, create, load, place
from coordinator.backup.contents import UNBOUNDED_S
from coordinator.backup.progress import OnProgress
from coordinator.config import Config
from coordinator.db import schema
from coordinator.db.connection import mapped_errors
from coordinator.db.single import Connection, connected
from coordinator.errors import BackupFailed, Conflict, CoordinatorError, DatabaseBusy

__all__ = ["Restored", "restore"]

_THERE = """
select exists (select from pg_namespace where nspname = 'coordinator') as schema,
       to_regclass('coordinator.schema_files') is not null as files, current_database() as database
"""
_FILES = "select exists (select from coordinator.schema_files)"
_TURN = "select pg_try_advisory_lock(hashtextextended('coordinator.schema', 0))"
_ANALYZE = """
select 'analyze ' || string_agg(format('coordinator.%I', relname), ', ') from pg_class
where relnamespace = 'coordinator'::regnamespace and relkind in ('r', 'p') and not relispartition
"""
_MISSING_ROLES = (
    "select role from coordinator.schema_roles where role not in (select rolname from pg_roles) order by role"
)
_RESTORED = "select coordinator.backup_restored($1)"


class Restored(msgspec.Struct, frozen=True):
    """A restored database. ``epoch`` is the new one; ``applied`` are schema files that the backup did not have."""

    backup: str
    database: str
    rows: int
    seconds: float
    epoch: str
    applied: list[str]
    notes: list[str]


async def restore(
    dsn: str, config: Config, *, folder: Path, name: str | None, jobs: int, report: OnProgress
) -> Restored:
    """Restore a backup, or the newest good one. The role becomes the owner of the schema.

    Raises: ``Conflict`` if the database has the schema already; ``NotFound``; ``BackupFailed``; ``SchemaMismatch``; ``DatabaseBusy``;
        ``DatabaseUnavailable``; ``PermissionDenied``.
    """
    backup = await anyio.to_thread.run_sync(place.find, folder, name)
    manifest = backup.manifest
    began = time.monotonic()
    async with connected(dsn, config) as connection:
        await contents.settle(connection)
        with mapped_errors():
            if not await connection.fetchval(_TURN):
                raise DatabaseBusy("another session applies or restores the schema", hint="Wait for its end.")
        database = await _empty(connection)
        tools = await load.fitting(backup, config, connection)
        again = f"drop schema coordinator cascade; then restore another backup into {database}"
        if wrong := await load.load(backup, dsn, connection, tools, jobs=jobs, report=report):
            raise BackupFailed(f"what was restored differs: {contents.sentence(wrong)}"[:2000], hint=f"Run: {again}.")
        report("finishing", 0, 0)
        with mapped_errors():
            await connection.execute(await connection.fetchval(_ANALYZE), timeout=UNBOUNDED_S)
            await connection.execute("select coordinator.schema_close()")
            roles = [row[0] for row in await connection.fetch(_MISSING_ROLES)]
        if wrong := await load.finish(backup, dsn, connection, tools):
            raise BackupFailed(f"what was restored differs: {contents.sentence(wrong)}"[:2000], hint=f"Run: {again}.")
        applied = await schema.apply(connection)
        notes = [f'there is no role "{role}": create it, then run "coordinator schema grant {role}"' for role in roles]
        with mapped_errors():
            epoch = await connection.fetchval("select coordinator.event_epoch()")
        notes += [note for note in [await create.record(connection, manifest)] if note]
        try:
            with mapped_errors():
                await connection.execute(_RESTORED, manifest.backup)
        except CoordinatorError as error:
            notes.append(f"the restore is not recorded: {error.message}")
    notes += [
        f"{held.count} contents of artifacts are read from {store}, as far as it still has them"
        for store, held in manifest.objects.items()
    ]
    return Restored(manifest.backup, database, manifest.rows, round(time.monotonic() - began, 3), epoch, applied, notes)


async def _empty(connection: Connection) -> str:
    """Return the name of the database.

    Raises: ``Conflict`` if it has the schema.
    """
    with mapped_errors():
        there = await connection.fetchrow(_THERE)
        assert there is not None  # noqa: S101 - one row
        database = str(there["database"])
        if not there["schema"]:
            return database
        interrupted = there["files"] and not await connection.fetchval(_FILES)
    if interrupted:
        raise Conflict(
            f'an interrupted restore left the schema coordinator in the database "{database}"; no daemon has used it',
            hint="Run: drop schema coordinator cascade; then restore again.",
        )
    raise Conflict(
        f'the database "{database}" has the schema coordinator already; a restore needs a database without it',
        hint='Run "create database NAME", and give its address with --url; then give it to the daemons. Drop the old database when all is well.',
    )
