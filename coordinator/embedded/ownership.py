"""Who owns the server: the process that holds a flock on `postgres.lock` in the data directory.

The kernel gives the lock back when its holder ends, however it ends, so there is no stale lock and no
time-out. The file holds the holder's process id for people; nobody decides by it. It is never deleted: that
would make two locks.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from coordinator.embedded import files

__all__ = ["Ownership", "holder"]


class Ownership:
    """A held lock; `release` gives it back."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def try_acquire(cls, data_dir: Path) -> Ownership | None:
        """Take the lock if nobody holds it; None if somebody does.

        Raises:
            ConfigurationError: the lock file cannot be written.

        """
        path = _path(data_dir)
        with files.errors_named(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            try:
                if os.geteuid() == 0:  # root lets the folder's owner take over later
                    owner = data_dir.stat()
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
            except OSError:
                os.close(descriptor)
                raise
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock back; harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(data_dir: Path) -> int | None:
    """Read the process id of the last holder, for messages and to be woken when it ends."""
    try:
        return int(_path(data_dir).read_text("ascii"))
    except (OSError, ValueError):
        return None


def _path(data_dir: Path) -> Path:
    return data_dir / "postgres.lock"
