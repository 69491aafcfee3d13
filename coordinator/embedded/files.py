"""Files: errors of the operating system with the path, atomic writes, and the folder for temporary files."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable

__all__ = ["disk_full", "errors_named", "temporary_folder", "write_whole"]


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Convert an ``OSError`` of the block to an error that names its path, or the given path if it has none.

    Raises: ``DatabaseUnavailable`` if the disk is full; ``ConfigurationError`` otherwise, usually for a missing permission.
    """
    try:
        yield
    except OSError as error:
        place = Path(error.filename) if isinstance(error.filename, str) else path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(place) from None
        raise ConfigurationError(
            f"cannot use {place}: {error.strerror or error}",
            hint="Give this user permission to write there, or choose another data directory.",
        ) from None


def disk_full(path: Path, *, detail: str | None = None) -> CoordinatorError:
    """Return the error for a full disk."""
    return DatabaseUnavailable(
        f"no space is left on the disk of {path}",
        hint="Free some space there, or choose a data directory on another disk.",
        detail=detail,
        code="53100",
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file of mode 0600 atomically: if the disk is full, the old file stays."""
    with errors_named(path):
        temporary = path.with_name(f"{path.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(text, "utf-8")
        temporary.replace(path)


def temporary_folder() -> Path:
    """Return the folder for temporary files.

    Raises: ``ConfigurationError`` if this user can write to none.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise ConfigurationError(
            "this user can write to no folder for temporary files",
            hint="Set TMPDIR to a folder of this user. In a container with a read-only root file system, mount a volume at /tmp.",
        ) from None
