"""Settings files: read, compared, and replaced as a whole.

A file is replaced by a new one with the same mode, following symbolic links, after a backup copy was made. Concurrent
installations wait for each other. If the process is killed at any point, the file has either the old or the new
content.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from coordinator.errors import ConfigurationError

__all__ = ["BACKUP", "Keeps", "content", "copy_of", "locked", "replace"]

BACKUP = ".coordinator-backup"
FILE_BYTES = 4 << 20

# What happens to the previous content: it is copied, a copy already exists, or none is needed because the file becomes that copy.
Keeps = Literal["copy", "former", "nothing"]


def copy_of(path: Path) -> Path:
    """Return the path of the backup copy of a file."""
    target = path.resolve()
    return target.with_name(target.name + BACKUP)


def content(path: Path) -> str | None:
    """Return the text of a file, with its line ends, or None if it does not exist."""
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}", hint="Check the path and its permissions."
        ) from None
    if len(body) > FILE_BYTES:
        raise ConfigurationError(f"{path} has {len(body)} bytes", hint=f"At most {FILE_BYTES} are read; move it away.")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8", hint="Convert it, or move it away.") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the folder of a file against other installations. The folder is created; the system releases the lock of a dead process."""
    folder = path.resolve().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigurationError(
            f"cannot use {folder}: {error.strerror}", hint="Check the path and its permissions."
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def replace(path: Path, before: str | None, after: str | None, keeps: Keeps = "copy") -> Path | None:
    """Write a file, or remove it for None, if it still has the content ``before``. Return the copy of what was there, if one was made.

    Raises:
        ConfigurationError: It cannot be written, or somebody else has changed it; nothing was changed.

    """
    target = path.resolve()
    if content(target) != before:
        raise ConfigurationError(f"{path} was changed in the meantime", hint="Run the command again.")
    try:
        copy = None
        if before is not None and keeps == "copy":
            copy = copy_of(path)
            _write(copy, before, target)
        if after is None:
            target.unlink()
        else:
            _write(target, after, target)
        if keeps == "nothing":
            copy_of(path).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}", hint="Check its permissions.") from None
    return copy


def _write(path: Path, text: str, like: Path) -> None:
    """Write a file atomically, with the mode of an existing file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            mode = like.stat().st_mode & 0o7777
        except FileNotFoundError:
            mode = 0o666 & ~_umask()
        os.chmod(name, mode)  # noqa: PTH101
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
