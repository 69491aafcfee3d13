"""Verify a backup: restore it into a scratch database, compare counts and checksums, and drop that database.

The name of a scratch database contains the session that created it, which lasts as long as the verification. So a later
verification recognises and drops the databases of dead ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import anyio
import msgspec

from coordinator import embedded
from coordinator.backup import contents, load, place
from coordinator.backup.progress import OnProgress
from coordinator.config import Config
from coordinator.db.connection import mapped_errors
from coordinator.db.single import Connection, connected
from coordinator.embedded.files import temporary_folder
from coordinator.errors import BackupFailed, CoordinatorError, DatabaseBusy, NotFound, PermissionDenied
from coordinator.model.address import with_database
from coordinator.model.backup import BackupCheck

__all__ = ["Verified", "verify"]

DROP_S = 60.0
DATABASE_S = 600.0  # for creating or dropping a database
_OWN = "select pid, to_hex((extract(epoch from backend_start) * 1000000)::bigint) from pg_stat_activity where pid = pg_backend_pid()"
_DATABASE = "select * from pg_database where datname = current_database()"
_LEFT = """
select d.datname from pg_database d, regexp_match(d.datname, '^coordinator_verify_([0-9]+)_([0-9a-f]+)$') m
where m is not null and not exists (
  select from pg_stat_activity a where a.pid = m[1]::bigint
    and (a.backend_start is null or to_hex((extract(epoch from a.backend_start) * 1000000)::bigint) = m[2]))
"""
_VERIFIED = "select coordinator.backup_verified($1, $2)"


class Verified(msgspec.Struct, frozen=True):
    """A backup whose contents match its manifest."""

    backup: str
    rows: int
    tables: int
    seconds: float
    notes: list[str]


async def verify(
    dsn: str | None,
    config: Config,
    *,
    folder: Path,
    name: str | None,
    on: str | None,
    in_embedded: bool,
    jobs: int,
    report: OnProgress,
) -> Verified:
    """Restore a backup, or the newest good one, into a scratch database, and compare everything.

    The scratch database is made on the server of ``dsn``, on that of ``on``, or on an embedded server that is started for it. What was found is kept
    beside the backup, and in the database of ``dsn`` if it can be reached.

    Raises: ``BackupFailed`` if anything differs; ``NotFound``; ``PermissionDenied`` if the role may not create databases; ``DatabaseUnavailable``;
        ``ConfigurationError``; ``SchemaMismatch``.
    """
    backup = await anyio.to_thread.run_sync(place.find, folder, name)
    began = time.monotonic()
    wrong: list[str] = []
    try:
        async with (
            _server(dsn, on, in_embedded) as server,
            _scratch(server, config) as url,
            connected(url, config) as connection,
        ):
            tools = await load.fitting(backup, config, connection)
            wrong = await load.load(backup, url, connection, tools, jobs=jobs, report=report)
            wrong += await load.finish(backup, url, connection, tools)
    except BackupFailed as error:
        wrong = [error.message]
    seconds = round(time.monotonic() - began, 3)
    found = BackupCheck(datetime.now(UTC), seconds, contents.sentence(wrong)[:2000] or None)
    notes = []
    with suppress(CoordinatorError):  # the directory may be read-only
        place.write_verification(backup, found)
    if note := await _record(dsn, config, backup, found):
        notes.append(note)
    if found.error:
        raise BackupFailed(
            f"the backup {backup.manifest.backup} is not what it was made of: {found.error}"[:2000],
            hint='Make another one now, and check the disk. "coordinator backup list" shows which backups are good.',
        )
    return Verified(backup.manifest.backup, backup.manifest.rows, len(backup.manifest.tables), seconds, notes)


@asynccontextmanager
async def _server(dsn: str | None, on: str | None, in_embedded: bool) -> AsyncIterator[str]:
    """Yield the address of a database on the server for the scratch database."""
    if not in_embedded:
        address = on or dsn
        if address is None:
            raise NotFound(
                "there is no server for the scratch database", hint="Give --on postgresql://…, or --embedded."
            )
        yield address
        return
    folder = temporary_folder()
    with tempfile.TemporaryDirectory(prefix="coordinator-verify-", dir=folder, ignore_cleanup_errors=True) as home:
        settings = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        async with embedded.run(Path(home), settings=settings) as server:
            yield server.dsn


@asynccontextmanager
async def _scratch(server: str, config: Config) -> AsyncIterator[str]:
    """Create a scratch database, and drop it at the end of the block, whatever happens; first, drop those of dead verifications."""
    async with connected(server, config) as connection:
        await contents.settle(connection)
        with mapped_errors():
            for row in await connection.fetch(_LEFT):
                with (
                    suppress(DatabaseBusy, PermissionDenied),
                    mapped_errors(),
                ):  # its pg_restore still runs, or it belongs to another role
                    await connection.execute(f'drop database if exists "{row[0]}"', timeout=DATABASE_S)
            pid, started = await connection.fetchrow(_OWN)
        name = f"coordinator_verify_{pid}_{started}"
        try:
            await _make(connection, name)
            yield with_database(server, name)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(DROP_S):
                await _drop(connection, server, config, name)


async def _make(connection: Connection, name: str) -> None:
    with mapped_errors():
        own = await connection.fetchrow(_DATABASE)
        assert own is not None  # noqa: S101 - one row
        encoding = await connection.fetchval("select pg_encoding_to_char($1)", own["encoding"])
        options = [f"encoding '{encoding}'", f"lc_collate '{own['datcollate']}'", f"lc_ctype '{own['datctype']}'"]
        locale = own.get("datlocale") or own.get("daticulocale")
        match (
            bytes(own["datlocprovider"])
            if isinstance(own["datlocprovider"], bytes)
            else str(own["datlocprovider"]).encode()
        ):
            case b"i":
                options += ["locale_provider icu", f"icu_locale '{locale}'"]
            case b"b":
                options += ["locale_provider builtin", f"builtin_locale '{locale}'"]
            case _:
                options += ["locale_provider libc"]
        try:
            with mapped_errors():
                await connection.execute(
                    f'create database "{name}" template template0 {" ".join(options)}', timeout=DATABASE_S
                )
        except PermissionDenied as error:
            raise PermissionDenied(
                error.message,
                hint="Give a server on which the role may create databases (--on postgresql://…), or --embedded.",
            ) from error


async def _drop(connection: Connection, server: str, config: Config, name: str) -> None:
    statement = f'drop database if exists "{name}" with (force)'
    try:
        with mapped_errors():
            await connection.execute(statement, timeout=DATABASE_S)
    except CoordinatorError:  # the connection is lost, or busy with a cancelled call
        with suppress(CoordinatorError):
            async with connected(server, config) as another:
                with mapped_errors():
                    await another.execute(statement, timeout=DATABASE_S)


async def _record(dsn: str | None, config: Config, backup: place.Found, found: BackupCheck) -> str | None:
    """Record the result in the database; return why that was not possible."""
    unknown = "the database has no record of the verification"
    if dsn is None:
        return f"{unknown}: none was given"
    try:
        async with connected(dsn, config) as connection:
            try:
                with mapped_errors():
                    await connection.execute(_VERIFIED, backup.manifest.backup, found.error)
            except NotFound:
                return f"{unknown}: the backup is not recorded there as one of it"
    except CoordinatorError as error:
        return f"{unknown}: {error.message}"
    return None
