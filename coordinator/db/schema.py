"""The schema: SQL files, applied in one transaction under one advisory lock, with their checksums recorded.

Migrations (tables) are numbered, applied once and never edited. If any file has changed, all function files are applied
again, in the order of ``sql/functions/order.txt``. If twenty programs start at once, the schema is applied once. An
apply is all or nothing: PostgreSQL's DDL is transactional, and no migration runs outside the transaction.

During an upgrade, programs of two releases run on one database. A database is ahead of a program if it has migrations
that the program does not know, or functions that a later version applied. Such a program changes nothing, and runs if
the schema still supports it: ``coordinator.schema_compatibility`` has the number of the newest migration that a program
must know. ``sql/README.md`` has the rules that keep the previous release supported. Before anything is done, these are
refused: an edited migration; a schema that does not support the program; and a schema of another line of development,
which has migrations that the program does not know and lacks others that it has.

A schema change waits for a lock for less time than calls do, so no call that queues behind it fails. Then it rolls back
and tries again, for ``DDL_LIMIT_S``. If only short transactions are in the way, as under load, it later waits longer
than calls do: some of these hold what it needs and wait for what it holds, and end with the error that the database is
busy.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

import asyncpg
import msgspec
import structlog

from coordinator.backoff import Backoff
from coordinator.db.connection import mapped_errors
from coordinator.errors import DatabaseBusy, PermissionDenied, SchemaMismatch
from coordinator.version import version

__all__ = ["FileStatus", "SqlFile", "apply", "files", "files_in", "grant", "pending", "script", "status", "verify"]

OLDEST_SERVER = 15
APPLY_TIMEOUT_S = 600.0
DDL_WAIT_S = 0.5  # callers queue behind this wait, and wait at most LOCK_WAIT_S themselves
DDL_FIRM_S = 2.5  # longer than callers wait, and than autovacuum is left undisturbed
OLD_S = 2.5  # transactions older than this do not count as short
DDL_LIMIT_S = 60.0
# Tests check the bodies of functions on every PostgreSQL; here, this would take a quarter of the time of a first apply.
SETTINGS = "set local client_min_messages = warning; set local check_function_bodies = off"
_LOCK = "select pg_advisory_xact_lock(hashtextextended('coordinator.schema', 0))"  # in a script for psql
_HUSH = "\\set shown :QUIET\n\\set QUIET on\n\\o /dev/null"
_UNHUSH = "\\o\n\\set QUIET :shown"
_TRY_LOCK = "select pg_try_advisory_xact_lock(hashtextextended('coordinator.schema', 0))"
_HOLDER = """
select format('session %s of role "%s"', a.pid, a.usename)
from pg_locks l join pg_stat_activity a on a.pid = l.pid, hashtextextended('coordinator.schema', 0) key
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
  and l.database = (select oid from pg_database where datname = current_database())
  and l.classid = (key >> 32 & 4294967295)::oid and l.objid = (key & 4294967295)::oid
"""
_OLDEST_TRANSACTION = """
select format('session %s of role "%s", whose transaction has been open for %s s', a.pid, a.usename,
              round(extract(epoch from clock_timestamp() - a.xact_start), 1)) as session,
       extract(epoch from clock_timestamp() - a.xact_start)::float as open_s
from pg_stat_activity a
where a.pid <> pg_backend_pid() and a.datname = current_database() and exists (
  select from pg_locks l join pg_class c on c.oid = l.relation and c.relnamespace = 'coordinator'::regnamespace
  where l.pid = a.pid and l.granted and l.database = (select oid from pg_database where datname = current_database()))
order by a.xact_start limit 1
"""

# Not to_regclass: it may answer from the session's cache, with the state before the wait for the lock.
_IS_THERE = "select exists (select from pg_tables where schemaname = 'coordinator' and tablename = $1)"
_RECORD = """
select coordinator.schema_record(kind, name, checksum, $4)
from unnest($1::text[], $2::text[], $3::text[]) file (kind, name, checksum)
"""
# The state of the database for which a script for psql was made.
_RECORDED = "select md5(string_agg(concat_ws(' ', kind, name, checksum), e'\\n' order by kind collate \"C\", name collate \"C\")) from coordinator.schema_files"

Kind = Literal["bootstrap", "migration", "functions"]
State = Literal["applied", "pending", "changed", "edited", "newer"]

log = structlog.get_logger()


class _BlockedError(Exception):
    """Another session holds a lock that the schema change needs."""


class SqlFile(msgspec.Struct, frozen=True):
    """One SQL file of the program."""

    kind: Kind
    name: str
    text: str
    checksum: str


class FileStatus(msgspec.Struct, frozen=True):
    """The state of one file in the database.

    ``state``: applied; pending; changed (functions to apply again); newer (of a program that is ahead; this one does
    not change it); edited (a migration that was changed after it was applied: refused).
    """

    kind: str
    name: str
    state: State
    applied_at: datetime | None


class _Comparison(msgspec.Struct, frozen=True):
    """The database compared with the program. ``ahead``: the version of the newer program whose schema the database has, if any."""

    files: list[FileStatus]
    ahead: str | None = None
    oldest: int = 0
    """The number of the newest migration that a program must know, to be served."""

    @property
    def waiting(self) -> list[FileStatus]:
        """The files that this program has to apply."""
        return [] if self.ahead else [file for file in self.files if file.state in ("pending", "changed")]


def _root() -> Path:
    package = Path(__file__).parent.parent
    checkout = package.parent / "sql"
    return checkout if (checkout / "bootstrap.sql").is_file() else package / "_sql"


@cache
def files() -> tuple[SqlFile, ...]:
    """Read the program's SQL files in the order in which they are applied: bootstrap, migrations, functions as in order.txt."""
    return files_in(_root())


def files_in(root: Path) -> tuple[SqlFile, ...]:
    """Read the SQL files of a folder, like ``files``."""
    migrations = sorted(path.name for path in (root / "migrations").glob("*.sql"))
    return (
        _read(root, "bootstrap", "bootstrap.sql"),
        *(_read(root / "migrations", "migration", name) for name in migrations),
        *(_read(root / "functions", "functions", name) for name in function_order(root / "functions")),
    )


def function_order(folder: Path) -> list[str]:
    """Read order.txt, which lists every function file of the folder once.

    Raises: ``ValueError`` with the names of files that are missing, unknown or repeated.
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
    """Return the whole schema as a script for psql, for applying it by hand to an empty database."""
    there = "exists (select from pg_tables where schemaname = 'coordinator' and tablename = 'schema_files')"
    return _script(files(), there, "the database has a schema: use coordinator schema apply --dry-run")


async def pending(connection: asyncpg.Connection) -> str:
    """Return what ``apply`` would do, as one script for psql; an empty text if nothing is pending.

    The script refuses to run if the schema has changed in the meantime.

    Raises: as ``apply``.
    """
    comparison = await _compare(connection)
    _refuse(comparison)
    if not comparison.waiting:
        return ""
    recorded = None
    if await connection.fetchval(_IS_THERE, "schema_files"):
        recorded = await connection.fetchval(_RECORDED)
    if recorded is None:
        return script()
    changed = f"({_RECORDED}) is distinct from '{recorded}'"
    return _script(_to_run(comparison), changed, "the schema has changed since this script was made: make it again")


def _script(run: Sequence[SqlFile], refused: str, message: str) -> str:
    """Return a script for psql that runs files, and stops before that if a condition holds. It shows only errors and its end."""
    guard = f"do $guard$ begin if {refused} then raise exception using message = $message${message}$message$; end if; end $guard$;"
    parts = [_HUSH, "\\set ON_ERROR_STOP on", "begin;", SETTINGS + ";", _LOCK + ";", guard]
    for file in run:
        parts += [f"-- {file.kind} {file.name}", f"{_bounded(DDL_FIRM_S)};", file.text]
    parts += [
        f"select coordinator.schema_record('{file.kind}', '{file.name}', '{file.checksum}', '{version()}');"
        for file in files()
        if file.kind != "bootstrap"
    ]
    names = ", ".join(f"'{name}'" for name in _function_files())
    parts += [f"select coordinator.schema_forget('functions', array[{names}]);"]
    end = f"\\echo the schema of coordinator {version()} is applied"
    return "\n".join([*parts, "select coordinator.schema_close();", "commit;", _UNHUSH, end, ""])


def _bounded(wait_s: float) -> str:
    """Return the statement that limits each wait for a lock; it precedes each file, since a file may set something else."""
    return f"set local lock_timeout = '{wait_s * 1000:.0f}ms'"


def _to_run(comparison: _Comparison) -> list[SqlFile]:
    """Return the files to run: bootstrap, the migrations that are not applied, and all functions."""
    waiting = {file.name for file in comparison.waiting if file.kind == "migration"}
    return [file for file in files() if file.kind != "migration" or file.name in waiting]


def _function_files() -> list[str]:
    return [file.name for file in files() if file.kind == "functions"]


async def status(connection: asyncpg.Connection) -> list[FileStatus]:
    """Compare the database with the program's files, without changing anything.

    Raises: ``SchemaMismatch`` if the server is older than PostgreSQL 15.
    """
    return (await _compare(connection)).files


async def _compare(connection: asyncpg.Connection) -> _Comparison:
    with mapped_errors():
        server = connection.get_server_version()
        if server.major < OLDEST_SERVER:
            raise SchemaMismatch(
                f"the server is PostgreSQL {server.major}",
                hint=f"PostgreSQL {OLDEST_SERVER} or newer is needed.",
            )
        recorded = {}
        oldest = 0
        if await connection.fetchval(_IS_THERE, "schema_files"):
            for row in await connection.fetch(
                "select kind, name, checksum, program, applied_at from coordinator.schema_files"
            ):
                recorded[row["kind"], row["name"]] = row
        if await connection.fetchval(_IS_THERE, "schema_compatibility"):
            oldest = await connection.fetchval("select oldest from coordinator.schema_compatibility")
    ours = {(file.kind, file.name): file for file in files() if file.kind != "bootstrap"}
    differing = [row for key, row in recorded.items() if key not in ours or ours[key].checksum != row["checksum"]]
    later = [row for row in differing if _parts(row["program"]) > _parts(version())]
    unknown = [row for key, row in recorded.items() if key not in ours and key[0] == "migration"]
    ahead = max((row["program"] for row in later or unknown), key=_parts, default=None)
    result = []
    for key, file in ours.items():
        row = recorded.get(key)
        state: State = "applied"
        if row is None:
            state = "newer" if ahead and file.kind == "functions" else "pending"
        elif row["checksum"] != file.checksum:
            state = "edited" if file.kind == "migration" else "newer" if ahead else "changed"
        result.append(FileStatus(file.kind, file.name, state, row and row["applied_at"]))
    theirs: State = "newer" if ahead else "changed"
    result += [FileStatus(*key, theirs, recorded[key]["applied_at"]) for key in sorted(recorded.keys() - ours.keys())]
    return _Comparison(result, ahead, oldest)


async def verify(connection: asyncpg.Connection) -> str | None:
    """Check that the database's schema supports this program.

    Returns the version of the newer program whose schema the database has; None: it has exactly this program's schema.

    Raises: ``SchemaMismatch`` with what to do.
    """
    comparison = await _compare(connection)
    _refuse(comparison)
    if waiting := comparison.waiting:
        raise SchemaMismatch(
            f"the database lacks {len(waiting)} of the schema's files, first {waiting[0].name}",
            hint='Run "coordinator schema apply" as the owner of the schema.',
        )
    return comparison.ahead


async def apply(connection: asyncpg.Connection) -> list[str]:
    """Bring the database to this program's schema, and return the names of the applied files.

    Idempotent, and safe to run from many programs at once: they wait for each other, and only the first one applies
    files. The schema of a newer program does not change.

    Raises: ``SchemaMismatch`` for an edited migration, a schema that does not support this program, or a role without
    the right to change it; ``DatabaseBusy`` if other sessions hold locks on what has to change.
    """
    comparison = await _compare(connection)
    _refuse(comparison)
    if not comparison.waiting:
        return []
    backoff = Backoff()
    deadline = time.monotonic() + DDL_LIMIT_S
    wait_s = DDL_WAIT_S
    while True:
        try:
            return await _attempt(connection, wait_s)
        except PermissionDenied as error:
            raise SchemaMismatch(
                f"the database's schema is not up to date, and this role may not change it: {error.message}",
                hint='Run "coordinator schema apply" as the owner of the schema, then "coordinator schema grant ROLE".',
            ) from error
        except _BlockedError as error:
            found = await connection.fetchrow(_OLDEST_TRANSACTION)
            holder, open_s = found or (None, 0.0)
            wait_s = DDL_WAIT_S if open_s > OLD_S else DDL_FIRM_S
            if time.monotonic() + backoff.next_s > deadline:
                raise DatabaseBusy(
                    f"for {DDL_LIMIT_S:g} seconds, other transactions have held what the schema's change needs: {error}",
                    hint=f"Nothing was changed. In the way is {holder or 'another session'}. Wait for it, or end it with pg_terminate_backend.",
                ) from error
            log.info("schema.blocked", reason=str(error), holder=holder, retry_s=backoff.next_s)
        await backoff.wait()


async def _attempt(connection: asyncpg.Connection, wait_s: float) -> list[str]:
    with mapped_errors():
        async with connection.transaction():
            await connection.execute(SETTINGS)
            await connection.execute(
                "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0"
            )
            await _take_turn(connection)
            comparison = await _compare(connection)
            _refuse(comparison)
            if comparison.waiting:
                try:
                    await _apply(connection, _to_run(comparison), wait_s)
                except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
                    raise _BlockedError(str(error)) from error
    return sorted(file.name for file in comparison.waiting)


async def _take_turn(connection: asyncpg.Connection) -> None:
    """Take the advisory lock for schema changes.

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


async def _apply(connection: asyncpg.Connection, run: list[SqlFile], wait_s: float) -> None:
    for file in run:
        try:
            await connection.execute(_bounded(wait_s))
            await connection.execute(file.text, timeout=APPLY_TIMEOUT_S)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            raise
        except asyncpg.PostgresError as error:
            raise SchemaMismatch(
                f"{file.name} could not be applied: {error}",
                hint="Nothing was changed. Was the schema edited by hand?",
                detail=getattr(error, "detail", None),
            ) from error
    recorded = [(file.kind, file.name, file.checksum) for file in files() if file.kind != "bootstrap"]
    await connection.execute(_RECORD, *zip(*recorded, strict=True), version())
    await connection.execute("select coordinator.schema_forget('functions', $1)", _function_files())
    await connection.execute("select coordinator.schema_close()")


async def grant(connection: asyncpg.Connection, role: str) -> None:
    """Let a role run the daemon and use the functions, without the right to change the schema."""
    with mapped_errors():
        await connection.execute("select coordinator.schema_grant($1)", role)


def _refuse(comparison: _Comparison) -> None:
    """Refuse a database whose schema is neither an older one of this program nor one that supports it.

    Raises: ``SchemaMismatch``.
    """
    migrations = [file for file in comparison.files if file.kind == "migration"]
    for file in migrations:
        if file.state == "edited":
            raise SchemaMismatch(
                f"migration {file.name} is not the one that was applied to this database",
                hint="Released migrations are never edited; restore the file and write a new one.",
            )
    if comparison.ahead is None:
        return
    unknown = next((file.name for file in migrations if file.state == "newer"), None)
    lacking = next((file.name for file in migrations if file.state == "pending"), None)
    theirs = f"migration {unknown}" if unknown else f"functions of {comparison.ahead}"
    if lacking:
        raise SchemaMismatch(
            f"the database has {theirs}, which this program does not know, and lacks its migration {lacking}",
            hint="They are of different lines of development. Use the program that applied the schema, or another database.",
        )
    newest = max(_number(file.name) for file in migrations if file.state == "applied")
    if newest < comparison.oldest:
        raise SchemaMismatch(
            f"the database has {theirs} of coordinator {comparison.ahead}; its schema serves programs that know migration"
            f" {comparison.oldest:04}, and coordinator {version()} ends with {newest:04}",
            hint=f"Update this program to {comparison.ahead}; an upgrade without a stop goes from release to release.",
        )


def _number(name: str) -> int:
    return int(name[:4])


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
