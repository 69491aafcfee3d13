"""The directory of backups: which directories are backups, which are good, and what retention deletes.

    20261126T190229Z-5f0c9a1e/                a backup: its manifest, the dump, and the result of the last verification
    20261126T190229Z-5f0c9a1e.unfinished/     one that is being written, or was interrupted
    20261126T190229Z-5f0c9a1e.deleted/        one that is being deleted

A directory with the name of a backup whose manifest cannot be read is listed as damaged, and never deleted. Other contents
of the directory are neither listed nor changed. Symbolic links are not followed. When a backup is deleted, only the files
that pg_dump and this program write are deleted; files that somebody else has put there stay. An unfinished backup is locked
while its program or its pg_dump runs, so remains of a dead program can be distinguished from a backup in progress.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from coordinator.errors import BackupFailed, ConfigurationError, NotFound
from coordinator.model.backup import FORMAT, PRODUCT, Backup, BackupCheck, Manifest

__all__ = [
    "Found",
    "Unfinished",
    "begin",
    "dump_of",
    "find",
    "found",
    "listed",
    "make",
    "prune",
    "refused",
    "remove_remains",
    "write_verification",
]

MANIFEST = "manifest.json"
VERIFICATION = "verification.json"
LOCK = "unfinished.lock"
DUMP = "dump"
MAX_MANIFEST_BYTES = 16 << 20
_NAME = r"\d{8}T\d{6}Z-[0-9a-f]{8}"
_BACKUP = re.compile(_NAME)
_REMAINS = re.compile(rf"{_NAME}\.(unfinished|deleted)")
_DUMPED = re.compile(r"toc\.dat(\.tmp)?|\d+\.dat(\.gz|\.lz4|\.zst)?|blobs(_\d+)?\.toc")
_BEGAN = "%Y%m%dT%H%M%SZ"  # the beginning of a name
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_OURS = re.compile(rf"({MANIFEST}|{VERIFICATION}|{LOCK})(\.new)?")


class Found(msgspec.Struct, frozen=True):
    """A backup that is or was complete; ``damage`` describes what is missing."""

    path: Path
    manifest: Manifest
    verification: BackupCheck | None
    damage: str | None

    @property
    def fault(self) -> str | None:
        """Why it is not good: what is missing, or what a verification has found."""
        return self.damage or (self.verification.error if self.verification else None)

    @property
    def good(self) -> bool:
        """Whether it is complete, and no verification has found a fault."""
        return self.fault is None

    def shown(self) -> Backup:
        """Return its entry in a list."""
        manifest = self.manifest
        return Backup(
            backup=manifest.backup,
            status="good" if self.good else "damaged" if self.damage else "differs",
            started_at=manifest.started_at,
            verified_at=self.verification.at if self.verification else None,
            bytes=manifest.bytes,
            rows=manifest.rows,
            database=manifest.database,
            program=manifest.program,
            postgres=manifest.postgres,
            path=str(self.path),
            fault=self.fault,
        )


class _Unreadable(Exception):
    """A directory has no readable manifest; the message says why, and ``status`` is its status in a list."""

    def __init__(self, reason: str, status: str = "damaged") -> None:
        super().__init__(reason)
        self.status = status


class _ManifestHead(msgspec.Struct, frozen=True):
    """The fields that manifests of every format have."""

    product: str
    format: int


def dump_of(path: Path) -> Path:
    """Return the absolute directory of the dump within a backup: programs run in ``/``."""
    return path.absolute() / DUMP


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an error that names the file.

    Raises: ``BackupFailed`` if the disk is full or broken; ``ConfigurationError`` if the directory cannot be used.
    """
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else path
        if isinstance(error, (PermissionError, FileNotFoundError, NotADirectoryError, FileExistsError)):
            raise ConfigurationError(
                f"cannot use {name}: {error.strerror}",
                hint="Correct --dir (COORDINATOR_BACKUP_DIR), or the permissions there.",
            ) from None
        raise BackupFailed(
            f"cannot write {name}: {error.strerror}", hint="Check the disk; free some space if it is full."
        ) from None


def found(folder: Path) -> list[Found]:
    """Return the backups in a directory, newest first.

    Raises: ``ConfigurationError`` if it cannot be read.
    """
    backups = []
    for path in _paths(folder):
        with suppress(_Unreadable):
            backups.append(_read_named(path))
    return sorted(backups, key=lambda each: (each.manifest.started_at, each.path.name), reverse=True)


def listed(folder: Path) -> list[Backup]:
    """Return what a list shows: also directories whose manifest cannot be read; newest first.

    Raises: ``ConfigurationError`` if the directory cannot be read.
    """
    rows = []
    for path in _paths(folder):
        try:
            rows.append(_read_named(path).shown())
        except _Unreadable as error:
            began = datetime.strptime(path.name[:16], _BEGAN).replace(tzinfo=UTC)
            rows.append(
                Backup(path.name, error.status, began, None, None, None, None, None, None, str(path), str(error))
            )
    return sorted(rows, key=lambda each: (each.started_at, each.backup), reverse=True)


def _paths(folder: Path) -> list[Path]:
    """Return the directories that have the name of a backup."""
    with refused(folder):
        if not folder.exists():
            return []
        return [path for path in folder.iterdir() if _is_named(path.name) and path.is_dir() and not path.is_symlink()]


def _is_named(name: str) -> bool:
    if not _BACKUP.fullmatch(name):
        return False
    with suppress(ValueError):
        return bool(datetime.strptime(name[:16], _BEGAN))  # noqa: DTZ007 - whether there is such a date
    return False


def _read_named(path: Path) -> Found:
    """Read the backup that a directory is named after."""
    backup = _read(path)
    if backup.manifest.backup != path.name:
        raise _Unreadable(f"its manifest is that of {backup.manifest.backup}", "renamed")
    return backup


def find(folder: Path, name: str | None) -> Found:
    """Return a backup by its name or path; None: the newest good one.

    Raises: ``NotFound``; ``BackupFailed`` if it is damaged.
    """
    if name is None:
        for each in found(folder):
            if each.good:
                return each
        raise NotFound(
            f"there is no good backup in {folder}",
            hint='Make one with "coordinator backup create", or give its directory with --dir.',
        )
    path = Path(name) if "/" in name else folder / name
    if not _is_there(path):
        raise NotFound(f"{path} is not a complete backup", hint='See "coordinator backup list".')
    try:
        backup = _read(path)
    except _Unreadable as error:
        if error.status == "newer":
            raise BackupFailed(f"the backup {path} cannot be used: {error}", hint="Use that program.") from None
        damage = str(error)
    else:
        if not (damage := backup.damage or ""):
            return backup
    raise BackupFailed(f"the backup {path} is damaged: {damage}", hint='Use another one: "coordinator backup list".')


def _is_there(path: Path) -> bool:
    try:
        return (path / MANIFEST).exists() or (_is_named(path.name) and path.is_dir())
    except (OSError, ValueError):  # an invalid path
        return False


def _read(path: Path) -> Found:
    """Read a backup.

    Raises: ``_Unreadable``.
    """
    try:
        content = _content(path / MANIFEST)
        head = msgspec.json.decode(content, type=_ManifestHead)
        if head.product != PRODUCT:
            raise _Unreadable(f"{MANIFEST} is not that of a backup")
        if head.format != FORMAT:
            raise _Unreadable(f"a newer program made it, in format {head.format}", "newer")
        manifest = msgspec.json.decode(content, type=Manifest)
    except FileNotFoundError:
        raise _Unreadable(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise _Unreadable(f"{MANIFEST} cannot be read: {error.strerror}") from None
    except _UNDECODABLE:
        raise _Unreadable(f"{MANIFEST} is damaged") from None
    return Found(path, manifest, _verification(path / VERIFICATION, manifest), _damage(path / DUMP, manifest))


def _verification(path: Path, manifest: Manifest) -> BackupCheck | None:
    """Read the result of the last verification. An unreadable result counts as a fault, since it may have been one."""
    try:
        return msgspec.json.decode(_content(path), type=BackupCheck)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except _UNDECODABLE:
        reason = "is damaged"
    return BackupCheck(manifest.ended_at, 0.0, f"{path.name} {reason}")


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_MANIFEST_BYTES)


def _damage(dump: Path, manifest: Manifest) -> str | None:
    for name, size in manifest.files.items():
        try:
            there = (dump / name).stat().st_size if _DUMPED.fullmatch(name) else -1
        except (OSError, ValueError):
            return f"{name} is missing"
        if there != size:
            return f"{name} has {there} bytes instead of {size}"
    return None if "toc.dat" in manifest.files else "it has no table of contents"


class Unfinished:
    """A backup that is being written. ``lock`` is a descriptor: while a process holds it, nobody removes the backup."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._final = folder / name
        self.path = folder / f"{name}.unfinished"
        hidden = folder / f".{name}"  # not visible to others before it is locked
        hidden.mkdir(mode=0o700)
        self.lock = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        hidden.rename(self.path)

    @property
    def dump(self) -> Path:
        """Where pg_dump writes; it makes the directory itself."""
        return self.path / DUMP

    def files(self) -> dict[str, int]:
        """Return the size of each file of the dump."""
        with refused(self.dump):
            return {path.name: path.stat().st_size for path in sorted(self.dump.iterdir())}

    def finish(self, manifest: Manifest) -> Path:
        """Write the manifest, and give the backup its name, so that it survives a loss of power from here on.

        Raises: ``BackupFailed``, ``ConfigurationError``.
        """
        with refused(self.path):
            _flush(self.dump)
            _write(self.path / MANIFEST, manifest)
            self.path.rename(self._final)
            (self._final / LOCK).unlink()
            _flush(self._final)
            _flush(self._final.parent)
        return self._final

    def close(self) -> None:
        """Remove what is not finished."""
        os.close(self.lock)
        with suppress(OSError):
            _remove(self.path)


def make(folder: Path) -> None:
    """Make the directory of backups, unless it is there.

    Raises: ``ConfigurationError``, ``BackupFailed``.
    """
    with refused(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def begin(folder: Path, at: datetime) -> Iterator[Unfinished]:
    """Begin a backup; remove it if the block does not finish it.

    Raises: ``ConfigurationError`` if nothing can be written there.
    """
    with refused(folder):
        unfinished = Unfinished(folder, f"{at.astimezone(UTC):{_BEGAN}}-{secrets.token_hex(4)}")
    try:
        yield unfinished
    finally:
        unfinished.close()


def write_verification(backup: Found, verification: BackupCheck) -> None:
    """Store the result of a verification next to the backup.

    Raises: ``ConfigurationError``, ``BackupFailed``.
    """
    with refused(backup.path):
        _write(backup.path / VERIFICATION, verification)


def remove_remains(folder: Path) -> list[Path]:
    """Remove what dead programs left: unfinished and half-deleted backups. Return what could not be removed as a whole.

    Raises: ``ConfigurationError`` if the directory cannot be read.
    """
    left = []
    with refused(folder):
        remains = [path for path in folder.iterdir() if _REMAINS.fullmatch(path.name) and not path.is_symlink()]
    for path in remains:
        with suppress(OSError):
            if _is_dead(path):
                _remove(path)
        if path.exists() and path.name.endswith(".deleted"):
            left.append(path)
    return left


def _is_dead(path: Path) -> bool:
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return path.name.endswith(".deleted")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def prune(folder: Path, origin: str, keep: timedelta) -> list[str]:
    """Delete the backups of a database that are older than ``keep``; return their names.

    The last good backup stays, and the last one that was verified, however old they are. So do those of other databases.

    Raises: ``BackupFailed``, ``ConfigurationError``.
    """
    ours = [each for each in found(folder) if each.manifest.origin == origin]
    good = [each for each in ours if each.good]
    verified = [each for each in good if each.verification]
    kept = {each.path for each in (*good[:1], *verified[:1])}
    oldest = datetime.now(UTC) - keep
    deleted = []
    for each in ours:
        if each.manifest.started_at < oldest and each.path not in kept:
            with refused(each.path):
                doomed = each.path.rename(each.path.with_name(f"{each.path.name}.deleted"))
                _remove(doomed)
            deleted.append(each.manifest.backup)
    return deleted


def _remove(path: Path) -> None:
    """Remove the backup's files in a directory, and the directory if nothing else is in it."""
    dump = path / DUMP
    if dump.is_dir() and not dump.is_symlink():
        _unlink(dump, _DUMPED)
    _unlink(path, _OURS)
    with suppress(OSError):  # it contains a file of somebody else
        path.rmdir()


def _unlink(folder: Path, ours: re.Pattern[str]) -> None:
    for each in list(folder.iterdir()):
        if ours.fullmatch(each.name) and not each.is_dir():
            each.unlink()
    if folder.name == DUMP:
        with suppress(OSError):
            folder.rmdir()


def _write(path: Path, value: msgspec.Struct) -> None:
    temporary = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _flush(path.parent)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
