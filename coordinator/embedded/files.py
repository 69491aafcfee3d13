"""Files: the operating system's refusals as errors that name the path, atomic writes, and the folder for temporary files."""

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
    """Turn an `OSError` of the block into an error that names its path, or the given path if it has none.

    Raises:
        DatabaseUnavailable: the disk is full; free some space and try again.
        ConfigurationError: anything else, usually a missing permission.

    """
    try:
        yield
    except OSError as error:
        place = Path(error.filename) if isinstance(error.filename, str) else path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(place) from None
        raise ConfigurationError(
            f"Cannot use {place}: {error.strerror or error}.",
            hint="Give this user permission to write there, or choose another data directory.",
        ) from None


def disk_full(path: Path, *, detail: str | None = None) -> CoordinatorError:
    """Return the error for a full disk."""
    return DatabaseUnavailable(
        f"No space is left on the disk of {path}.",
        hint="Free some space there, or choose a data directory on another disk.",
        detail=detail,
        code="53100",
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file of mode 0600 atomically: a full disk leaves the old one."""
    with errors_named(path):
        temporary = path.with_name(f"{path.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(text, "utf-8")
        temporary.replace(path)


def temporary_folder() -> Path:
    """Return the folder for temporary files.

    Raises:
        ConfigurationError: this user can write to none.

    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise ConfigurationError(
            "This user can write to no folder for temporary files.",
            hint="Set TMPDIR to a folder of this user. In a container with a read-only root file system, mount a volume at /tmp.",
        ) from None
