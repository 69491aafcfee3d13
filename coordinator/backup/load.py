"""Restore a backup into a database that has no schema ``coordinator``.

Definitions are restored in one transaction, then the rows of all tables but one, then indexes and constraints, with
several sessions. The rows of ``schema_files`` are restored last, in ``finish``: without them, every daemon finds that
the schema is missing or incomplete. So the remains of an interrupted restore are never used.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from coordinator.backup import contents, programs
from coordinator.backup.contents import COMMIT_POINT
from coordinator.backup.place import Found, dump_of
from coordinator.backup.progress import Advance, OnProgress
from coordinator.config import Config
from coordinator.db import schema
from coordinator.db.connection import mapped_errors
from coordinator.db.single import Connection
from coordinator.embedded import processes
from coordinator.embedded.files import temporary_folder
from coordinator.embedded.releases import number
from coordinator.errors import BackupFailed, ConfigurationError, SchemaMismatch
from coordinator.version import version

__all__ = ["finish", "fitting", "load"]

LIST_TIMEOUT_S = 600.0
_LZ4 = "select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression'"
_COMPRESS = """
select string_agg(format('alter table only coordinator.%I alter column %I set compression lz4', c.relname, a.attname), '; ')
from unnest($1::text[], $2::text[]) given (relation, name)
join pg_class c on c.relnamespace = 'coordinator'::regnamespace and c.relname = given.relation
join pg_attribute a on a.attrelid = c.oid and a.attname = given.name
"""


async def fitting(backup: Found, config: Config, connection: Connection) -> programs.Programs:
    """Return the programs that restore a backup into the server of a connection.

    Raises: ``SchemaMismatch`` if a newer program made it; ``ConfigurationError`` if the server or the programs are too old.
    """
    manifest = backup.manifest
    known = {file.name for file in schema.files() if file.kind == "migration"}
    if unknown := sorted(set(manifest.migrations) - known):
        raise SchemaMismatch(
            f"the backup has {unknown[0]} of a newer program than {version()}: it was made by {manifest.program}",
            hint="Update this program; older ones do not know what is in the backup.",
        )
    with mapped_errors():
        server = str(await connection.fetchval("select current_setting('server_version')"))
        encoding = await connection.fetchval(
            "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()"
        )
    if number(server)[0] < manifest.restores_into:
        raise ConfigurationError(
            f"the server is PostgreSQL {server.split(' ', maxsplit=1)[0]}; this backup needs {manifest.restores_into} or newer",
            hint=f"It is of PostgreSQL {manifest.postgres}, written by pg_dump {manifest.pg_dump}. Restore it into a newer server.",
        )
    if encoding != manifest.encoding:
        raise ConfigurationError(
            f"the database has the encoding {encoding}, the backup {manifest.encoding}",
            hint=f"Create it with: create database … template template0 encoding '{manifest.encoding}'.",
        )
    return await programs.choose(
        config.pg_bin_dir, number(manifest.pg_dump)[0], what="the pg_dump that made the backup"
    )


async def load(
    backup: Found, dsn: str, connection: Connection, tools: programs.Programs, *, jobs: int, report: OnProgress
) -> list[str]:
    """Restore all but ``COMMIT_POINT``, and return what differs from the manifest; then run ``finish``.

    Raises: ``BackupFailed``; ``DatabaseUnavailable``; ``ConfigurationError`` without a folder for temporary files.
    """
    scratch = temporary_folder()  # asked first: nothing is restored if there is none
    dump = dump_of(backup.path)
    restore = tools.folder / "pg_restore"
    common = ("--exit-on-error", "--no-owner", "--no-privileges")
    await contents.settle(connection)
    await programs.run(restore, dsn, [*common, "--section=pre-data", "--single-transaction", dump])
    with mapped_errors():
        if backup.manifest.compressed and await connection.fetchval(_LZ4):
            relations, names = (list(each) for each in zip(*backup.manifest.compressed, strict=True))
            await connection.execute(await connection.fetchval(_COMPRESS, relations, names) or "")
    weights = {name: table.rows for name, table in backup.manifest.tables.items()}
    advance = Advance(report, "restoring", weights)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=scratch) as listed:
        entries = await _entries(tools, dump)
        listed.writelines(f"{entry}\n" for entry in entries if not _is_commit_point(entry))
        listed.flush()
        await programs.run(
            restore,
            dsn,
            [*common, "--section=data", f"--jobs={jobs}", f"--use-list={listed.name}", dump],
            report=advance,
        )
    report("indexing", 0, 0)
    await programs.run(restore, dsn, [*common, "--section=post-data", f"--jobs={jobs}", dump])
    return await contents.differences(
        connection, backup.manifest, apart_from=[COMMIT_POINT], report=Advance(report, "comparing", weights)
    )


async def finish(backup: Found, dsn: str, connection: Connection, tools: programs.Programs) -> list[str]:
    """Restore the rows of ``COMMIT_POINT``; return the differences from the manifest, except for tables that ``load`` has compared."""
    dump = dump_of(backup.path)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=temporary_folder()) as listed:
        listed.writelines(f"{entry}\n" for entry in await _entries(tools, dump) if _is_commit_point(entry))
        listed.flush()
        arguments: list[str | Path] = [
            "--exit-on-error",
            "--single-transaction",
            "--section=data",
            f"--use-list={listed.name}",
            dump,
        ]
        await programs.run(tools.folder / "pg_restore", dsn, arguments)
    others = backup.manifest.tables.keys() - {COMMIT_POINT}
    return await contents.differences(connection, backup.manifest, apart_from=others)


async def _entries(tools: programs.Programs, dump: Path) -> list[str]:
    code, text = await processes.run([str(tools.folder / "pg_restore"), "--list", str(dump)], timeout_s=LIST_TIMEOUT_S)
    if code != 0:
        reason = text.strip().rpartition("\n")[2] or f"exit code {code}"
        raise BackupFailed(
            f"the backup {dump.parent} cannot be read: {reason}", hint="Use another one.", detail=text[-2000:]
        )
    return [line for line in text.splitlines() if line and not line.startswith(";")]


def _is_commit_point(entry: str) -> bool:
    return bool(re.search(rf" TABLE DATA coordinator {COMMIT_POINT} ", entry))
