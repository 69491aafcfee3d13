"""The schema: SQL files applied in one transaction, under one advisory lock, with their checksums on record.

Migrations (tables) are numbered, applied once and never edited. When anything changed, all function files are applied
again, in the order of ``sql/functions/order.txt``. Twenty programs that start at once apply the schema once. An edited
migration and a database changed by a newer program are refused before anything is done. It is all or nothing:
PostgreSQL's DDL is transactional, and no migration runs outside the transaction.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

import asyncpg
import msgspec

from coordinator.backoff import Backoff
from coordinator.db.connection import mapped_errors
from coordinator.errors import DatabaseBusy, PermissionDenied, SchemaMismatch
from coordinator.version import version

__all__ = ["FileStatus", "SqlFile", "apply", "files", "grant", "script", "status", "verify"]

OLDEST_SERVER = 15
APPLY_TIMEOUT_S = 600.0
DDL_WAIT_S = 10.0  # longer, and the callers that queue behind the wait would suffer
_LOCK = "select pg_advisory_xact_lock(hashtextextended('coordinator.schema', 0))"  # in a script for psql
_TRY_LOCK = "select pg_try_advisory_xact_lock(hashtextextended('coordinator.schema', 0))"
_HOLDER = """
select format('session %s of role "%s"', a.pid, a.usename)
from pg_locks l join pg_stat_activity a on a.pid = l.pid, hashtextextended('coordinator.schema', 0) key
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
  and l.database = (select oid from pg_database where datname = current_database())
  and l.classid = (key >> 32 & 4294967295)::oid and l.objid = (key & 4294967295)::oid
"""

# Not to_regclass: that may still answer, from the session's cache, as before the wait for the lock.
_IS_THERE = "select exists (select from pg_tables where schemaname = 'coordinator' and tablename = 'schema_files')"

Kind = Literal["bootstrap", "migration", "functions"]
State = Literal["applied", "pending", "changed", "edited", "newer"]


class SqlFile(msgspec.Struct, frozen=True):
    """One SQL file of the program."""

    kind: Kind
    name: str
    text: str
    checksum: str


class FileStatus(msgspec.Struct, frozen=True):
    """One file and the database: applied, pending, changed (functions to re-apply), edited or newer (both refused)."""

    kind: str
    name: str
    state: State
    applied_at: datetime | None


def _root() -> Path:
    package = Path(__file__).parent.parent
    checkout = package.parent / "sql"
    return checkout if (checkout / "bootstrap.sql").is_file() else package / "_sql"


@cache
def files() -> tuple[SqlFile, ...]:
    """Read the program's SQL files in the order they are applied: bootstrap, migrations, functions as in order.txt."""
    root = _root()
    migrations = sorted(path.name for path in (root / "migrations").glob("*.sql"))
    return (
        _read(root, "bootstrap", "bootstrap.sql"),
        *(_read(root / "migrations", "migration", name) for name in migrations),
        *(_read(root / "functions", "functions", name) for name in function_order(root / "functions")),
    )


def function_order(folder: Path) -> list[str]:
    """Read order.txt, which lists every function file of the folder once.

    Raises: ``ValueError`` that names the files it omits, invents or repeats.
    """
    listed = (folder / "order.txt").read_text("utf-8").split()
    present = [path.relative_to(folder).as_posix() for path in folder.rglob("*.sql")]
    if sorted(listed) != sorted(present):
        wrong = Counter(listed)
        wrong.subtract(present)
        names = ", ".join(sorted(name for name, count in wrong.items() if count))
        raise ValueError(f"{folder / 'order.txt'} does not list every function file once: {names}")
    return listed


def _read(folder: Path, kind: Kind, name: str) -> SqlFile:
    content = (folder / name).read_bytes()
    return SqlFile(kind, name, content.decode(), hashlib.sha256(content).hexdigest())


def script() -> str:
    """Write the whole schema as one script for psql, for databases where a person applies it."""
    parts = ["\\set ON_ERROR_STOP on", "begin;", "set local client_min_messages = warning;", _LOCK + ";"]
    parts += [f"-- {file.kind} {file.name}\n{file.text}" for file in files()]
    parts += [
        f"select coordinator.schema_record('{file.kind}', '{file.name}', '{file.checksum}', '{version()}');"
        for file in files()
        if file.kind != "bootstrap"
    ]
    return "\n".join([*parts, "select coordinator.schema_close();", "commit;", ""])


async def status(connection: asyncpg.Connection) -> list[FileStatus]:
    """Compare the database with the program's files, without changing anything.

    Raises: ``SchemaMismatch`` where the server is older than PostgreSQL 15.
    """
    with mapped_errors():
        server = connection.get_server_version()
        if server.major < OLDEST_SERVER:
            raise SchemaMismatch(
                f"the server is PostgreSQL {server.major}",
                hint=f"PostgreSQL {OLDEST_SERVER} or newer is needed.",
            )
        recorded = {}
        if await connection.fetchval(_IS_THERE):
            for row in await connection.fetch("select * from coordinator.schema_files"):
                recorded[row["kind"], row["name"]] = row
    result = []
    ours = [file for file in files() if file.kind != "bootstrap"]
    for file in ours:
        row = recorded.pop((file.kind, file.name), None)
        state: State = "applied"
        if row is None:
            state = "pending"
        elif row["checksum"] != file.checksum:
            if file.kind == "migration":
                state = "edited"
            else:
                state = "newer" if _parts(row["program"]) > _parts(version()) else "changed"
        result.append(FileStatus(file.kind, file.name, state, row and row["applied_at"]))
    for (kind, name), row in sorted(recorded.items()):
        newer = kind == "migration" or _parts(row["program"]) > _parts(version())
        result.append(FileStatus(kind, name, "newer" if newer else "changed", row["applied_at"]))
    return result


async def verify(connection: asyncpg.Connection) -> None:
    """Check that the database has exactly this program's schema.

    Raises: ``SchemaMismatch`` with what to do.
    """
    found = await status(connection)
    _refuse_foreign(found)
    waiting = [file.name for file in found if file.state != "applied"]
    if waiting:
        raise SchemaMismatch(
            f"the database lacks {len(waiting)} of the schema's files, first {waiting[0]}",
            hint='Run "coordinator schema apply" as the owner of the schema.',
        )


async def apply(connection: asyncpg.Connection) -> list[str]:
    """Bring the database to this program's schema, and return the names of the files that were applied.

    Idempotent, and safe to run from many programs at once: they take turns, and the later find nothing to do.

    Raises: ``SchemaMismatch`` for an edited migration, a newer database, or a role without the right to change it;
    ``DatabaseBusy`` if other sessions hold what has to change.
    """
    if all(file.state == "applied" for file in await status(connection)):
        return []
    try:
        with mapped_errors():
            async with connection.transaction():
                await connection.execute("set local client_min_messages = warning")
                await connection.execute("set local statement_timeout = 0")
                await connection.execute(f"set local lock_timeout = '{DDL_WAIT_S:g}s'")
                await _take_turn(connection)
                found = await status(connection)
                _refuse_foreign(found)
                waiting = {(file.kind, file.name) for file in found if file.state != "applied"}
                if not waiting:
                    return []
                await _apply(connection, waiting)
    except PermissionDenied as error:
        raise SchemaMismatch(
            f"the database's schema is not up to date, and this role may not change it: {error.message}",
            hint='Run "coordinator schema apply" as the owner of the schema, then "coordinator schema grant ROLE".',
        ) from error
    return sorted(name for _, name in waiting)


async def _take_turn(connection: asyncpg.Connection) -> None:
    """Take the advisory lock under which the schema changes.

    Raises: ``DatabaseBusy`` with the session that holds it.
    """
    backoff = Backoff()
    deadline = time.monotonic() + APPLY_TIMEOUT_S
    while not await connection.fetchval(_TRY_LOCK):
        if time.monotonic() > deadline:
            holder = await connection.fetchval(_HOLDER)
            raise DatabaseBusy(
                f"the schema has been locked for {APPLY_TIMEOUT_S:g} seconds by {holder or 'another session'}",
                hint="Wait until it has applied the schema, or end that session with pg_terminate_backend.",
            )
        await backoff.wait()


async def _apply(connection: asyncpg.Connection, waiting: set[tuple[str, str]]) -> None:
    ours = files()
    for file in ours:
        if file.kind == "migration" and (file.kind, file.name) not in waiting:
            continue
        try:
            await connection.execute(file.text, timeout=APPLY_TIMEOUT_S)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.LockNotAvailableError):
            raise
        except asyncpg.PostgresError as error:
            raise SchemaMismatch(
                f"{file.name} could not be applied: {error}",
                hint="Nothing was changed. Was the schema edited by hand?",
                detail=getattr(error, "detail", None),
            ) from error
    for file in ours:
        if file.kind != "bootstrap":
            await connection.execute(
                "select coordinator.schema_record($1, $2, $3, $4)",
                file.kind,
                file.name,
                file.checksum,
                version(),
            )
    await connection.execute(
        "select coordinator.schema_forget('functions', $1)",
        [file.name for file in ours if file.kind == "functions"],
    )
    await connection.execute("select coordinator.schema_close()")


async def grant(connection: asyncpg.Connection, role: str) -> None:
    """Let a role run the daemon and use the functions, without any right to change the schema."""
    with mapped_errors():
        await connection.execute("select coordinator.schema_grant($1)", role)


def _refuse_foreign(found: list[FileStatus]) -> None:
    for file in found:
        if file.state == "edited":
            raise SchemaMismatch(
                f"migration {file.name} is not the one that was applied to this database",
                hint="Released migrations are never edited; restore the file and write a new one.",
            )
        if file.state == "newer":
            raise SchemaMismatch(
                f"the database has {file.name} of a newer program than {version()}",
                hint="Update this program; older ones do not run on a newer schema.",
            )


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
