"""The files of the cluster: created atomically, recognised before they are changed, never deleted.

A new cluster is created in a temporary folder beside its place, and renamed when it is complete. If the process is
killed meanwhile, only that folder is left, and the next start removes it. A cluster is the coordinator's if it contains
``PG_VERSION`` and ``coordinator.conf``.

Settings, in order of increasing precedence: ``coordinator.conf`` (written at each start), ``postgresql.conf`` (the operator's),
ALTER SYSTEM, and the daemon's command line.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import anyio

from coordinator.embedded import files, processes
from coordinator.embedded.account import Account
from coordinator.embedded.binaries import Binaries
from coordinator.embedded.server import DATABASE, ROLE, cluster_dir
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable

__all__ = [
    "configure",
    "create",
    "failure",
    "log_dir",
    "log_sizes",
    "log_tail",
    "major",
    "prune_logs",
    "remove_unfinished",
]

INITDB_TIMEOUT_S = 300.0
REMOVAL_TIMEOUT_S = 5.0
LOG_FILES = 8
LOG_FILE_SIZE_MB = 16
TAIL_LINES = 20
_TAIL_BYTES = 16_384
_REMOVAL_POLL_S = 0.02
_UNFINISHED = "postgres.new-"
_BUILTIN_LOCALE_SINCE = 17

_FATAL = re.compile(r"\bFATAL:|\berror:")

_CONFIGURATION = f"""\
# The coordinator writes this file at each start. Put your settings into postgresql.conf: they take precedence.
max_connections = 200
shared_buffers = 128MB
max_wal_size = 512MB
fsync = on
synchronous_commit = on
full_page_writes = on
jit = off
timezone = 'UTC'
lc_messages = 'C'
default_text_search_config = 'pg_catalog.english'
cluster_name = 'coordinator'
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%Y%m%d-%H%M%S.log'
log_rotation_age = 1d
log_rotation_size = {LOG_FILE_SIZE_MB}MB
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
log_checkpoints = off
"""
_POSTGRESQL_CONF = """\
# Edit this file: settings below the include take precedence over the coordinator's.
include_if_exists = 'coordinator.conf'
"""
_HBA_CONF = """\
# The socket's folder has mode 0700, so everyone who can reach the socket may connect. There is no TCP.
local all all trust
local replication all trust
"""


def major(data_dir: Path) -> int | None:
    """Return the major version of the cluster in a data directory; None if there is no cluster yet.

    Raises: ``ConfigurationError`` if the folder contains something else, or cannot be read.
    """
    cluster = cluster_dir(data_dir)
    with files.errors_named(cluster):
        if (data_dir / "PG_VERSION").exists():
            raise _foreign(data_dir, "is itself the cluster of a PostgreSQL server")
        if not cluster.exists() or (cluster.is_dir() and not any(cluster.iterdir())):
            return None
        if not cluster.is_dir() or not (cluster / "PG_VERSION").exists():
            raise _foreign(cluster, "is not empty and is not a PostgreSQL cluster")
        if not (cluster / "coordinator.conf").exists():
            raise _foreign(cluster, "is a PostgreSQL cluster that the coordinator did not create")
        version = (cluster / "PG_VERSION").read_text("ascii", "replace").split(".")[0].strip()
        if not version.isdecimal():
            raise ConfigurationError(
                f'{cluster / "PG_VERSION"} is damaged: it contains "{version[:50]}", which is not a version',
                hint="Restore the cluster from a backup; or write the major version, such as 18, into that file.",
            )
        return int(version)


def _foreign(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} {what}",
        hint="Nothing in it was changed. Choose another --data-dir, or move that folder away.",
    )


async def create(data_dir: Path, binaries: Binaries, account: Account, *, sync: bool) -> None:
    """Create the cluster with its database; the caller owns the lock. Without ``sync``, files are not flushed.

    Raises: ``ConfigurationError`` with the output of initdb, if it failed; ``DatabaseUnavailable`` if the disk is full,
    or initdb did not end in time.
    """
    with files.errors_named(data_dir):
        temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=data_dir))
    try:
        account.give(temporary)
        await _fill(temporary, binaries, account, sync=sync)
        for name, text in (
            ("postgresql.conf", _POSTGRESQL_CONF),
            ("pg_hba.conf", _HBA_CONF),
            ("coordinator.conf", _CONFIGURATION),
        ):
            files.write_whole(temporary / name, text)
            account.give(temporary / name)
        _rename(temporary, cluster_dir(data_dir))
    finally:
        with anyio.CancelScope(shield=True):
            await remove_unfinished(data_dir)


async def remove_unfinished(data_dir: Path) -> None:
    """Remove the remains of an interrupted ``create``, whose initdb may still be ending. The caller owns the lock."""
    with files.errors_named(data_dir), anyio.move_on_after(REMOVAL_TIMEOUT_S):
        while left := list(data_dir.glob(f"{_UNFINISHED}*")):  # noqa: ASYNC240
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)
            await anyio.sleep(_REMOVAL_POLL_S)


async def _fill(folder: Path, binaries: Binaries, account: Account, *, sync: bool) -> None:
    options = ["--encoding=UTF8", "--locale=C", "--auth=trust", "--data-checksums", f"--username={ROLE}"]
    if binaries.major >= _BUILTIN_LOCALE_SINCE:  # sorts like C, and knows upper and lower case of all letters
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not sync:
        options.append("--no-sync")
    # A stand-alone backend creates the database: it needs no socket, no driver and no second start.
    single = ["-c", "exit_on_error=on", "-c", f"fsync={'on' if sync else 'off'}", "postgres"]
    for program, arguments, text in (
        ("initdb", ["-D", str(folder), *options], ""),
        ("postgres", ["--single", "-D", str(folder), *single], f'create database "{DATABASE}"\n'),
    ):
        command = account.command(binaries.folder / program, *arguments, folder=folder)
        code, output = await processes.run(command, timeout_s=INITDB_TIMEOUT_S, text=text)
        if code != 0:
            where = cluster_dir(folder.parent)
            raise failure(f"the database cluster {where} could not be created", where, _last_lines(output))


def _rename(temporary: Path, cluster: Path) -> None:
    with files.errors_named(cluster):
        _flush(temporary)
        temporary.rename(cluster)  # replaces an empty folder
        _flush(cluster.parent)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def configure(data_dir: Path, account: Account) -> None:
    """Set the mode and owner of the cluster, and write ``coordinator.conf``, before a start."""
    cluster = cluster_dir(data_dir)
    account.give(cluster)
    with files.errors_named(cluster):
        cluster.chmod(0o700)
        settings = cluster / "coordinator.conf"
        if settings.read_text("utf-8", "replace") != _CONFIGURATION:
            files.write_whole(settings, _CONFIGURATION)
        log_dir(cluster).mkdir(mode=0o700, exist_ok=True)
    account.give(settings)
    account.give(log_dir(cluster))


def log_dir(cluster: Path) -> Path:
    """Return the folder of the server's log files."""
    return cluster / "log"


def prune_logs(cluster: Path) -> None:
    """Delete the oldest log files beyond the limit."""
    with files.errors_named(cluster):
        for old in sorted(log_dir(cluster).glob("postgresql-*.log"))[:-LOG_FILES]:
            old.unlink(missing_ok=True)


def log_sizes(cluster: Path) -> dict[Path, int]:
    """Return the sizes of the server's log files, so that ``log_tail`` can find what was added."""
    with files.errors_named(cluster):
        return {path: path.stat().st_size for path in log_dir(cluster).glob("postgresql-*.log")}


def log_tail(cluster: Path, since: Mapping[Path, int]) -> str:
    """Return the last lines that the server has written since then: before it opened its log file, and to the newest one."""
    found = [log_dir(cluster) / "start.log", *sorted(log_dir(cluster).glob("postgresql-*.log"))[-1:]]
    text = ""
    for path in found:
        try:
            with path.open("rb") as log:
                log.seek(max(since.get(path, 0), path.stat().st_size - _TAIL_BYTES))
                text += log.read().decode("utf-8", "replace")
        except OSError:
            continue
    return _last_lines(text)


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])


def failure(what: str, path: Path, log: str) -> CoordinatorError:
    """Return the error for a failed program of PostgreSQL, given its last output."""
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return files.disk_full(path, detail=log)
    lines = log.splitlines()
    fatal = [index for index, line in enumerate(lines) if _FATAL.search(line)]
    last = lines[fatal[-1] :] if fatal else lines[-1:]
    reasons = [_FATAL.split(line)[-1].strip() for line in last[:1]]
    reasons += [line.partition("DETAIL:")[2].strip() for line in last[1:2] if "DETAIL:" in line]
    message = f"{what}: {'; '.join(reason.rstrip('.') for reason in reasons)}" if reasons else what
    signs = ("configuration parameter", "invalid value", "Permission denied", "launcher:", "could not access")
    if any(sign in log for sign in signs):
        return ConfigurationError(message, hint="Correct what the last lines of its log name.", detail=log)
    return DatabaseUnavailable(message, hint="The last lines of its log give the reason.", detail=log)
