"""The owner of the server: the process that holds a flock on ``postgres.lock`` in the data directory.

The kernel releases the lock when its holder ends, however it ends, so a lock is never stale and needs no timeout. The
file contains the process id of the holder, for messages, and for waiting for its end; no decision depends on it. The file
is never deleted, because a second file would be a second lock.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from coordinator.embedded import files

__all__ = ["holder", "try_acquire"]


def try_acquire(data_dir: Path) -> IO[str] | None:
    """Return the locked file, or None if another process holds the lock; closing the file releases it.

    Raises: ``ConfigurationError`` if the lock file cannot be written.
    """
    path = _path(data_dir)
    with files.errors_named(path):
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.geteuid() == 0:  # so that the owner of the folder can take over later
                owner = data_dir.stat()
                os.fchown(lock.fileno(), owner.st_uid, owner.st_gid)
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        except BlockingIOError:
            lock.close()
            return None
        except OSError:
            lock.close()
            raise
    return lock


def holder(data_dir: Path) -> int | None:
    """Return the process id of the last holder."""
    try:
        return int(_path(data_dir).read_text("ascii"))
    except (OSError, ValueError):
        return None


def _path(data_dir: Path) -> Path:
    return data_dir / "postgres.lock"
