"""Where the socket is: in the cluster's own folder, or in a short private folder when that path does not do.

A unix socket's path may have about a hundred bytes, and a client's list of hosts is separated by commas.
The short folder has a name made from the data directory, is ours alone (0700, checked, never a link), is
recorded so that the next start takes it again, and is made anew when somebody cleaned the temporary
directory.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from coordinator.embedded import files
from coordinator.embedded.account import Account
from coordinator.embedded.server import PORT, cluster_dir, read_record

__all__ = ["clean", "prepare", "remove"]

# 107 bytes on Linux, 103 on others: one limit for all, so that a data directory can move.
PATH_LIMIT_BYTES = 103
_SOCKET = f".s.PGSQL.{PORT}"


def prepare(data_dir: Path, account: Account, *, runtime_dir: Path | None) -> Path:
    """Make the socket folder of a data directory and return it, the same at every start if possible."""
    cluster = cluster_dir(data_dir)
    if _suits(cluster):
        return cluster
    name = "coordinator-" + hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    record = read_record(data_dir)
    recorded = [Path(record.socket_dir)] if record else []
    parents = [runtime_dir] if runtime_dir else [Path(f"/run/user/{os.geteuid()}"), Path(tempfile.gettempdir())]
    for folder in (*recorded, *(parent / name for parent in parents)):
        if _suits(folder) and folder != cluster and _is_private(folder, account):
            return folder
    with files.errors_named(parents[-1]):
        folder = Path(tempfile.mkdtemp(prefix="coordinator-", dir=parents[-1]))
    account.give(folder)
    return folder


def clean(folder: Path) -> None:
    """Remove the socket and lock file of a server that is gone; its id may belong to somebody else by now."""
    with files.errors_named(folder):
        (folder / f"{_SOCKET}.lock").unlink(missing_ok=True)
        (folder / _SOCKET).unlink(missing_ok=True)


def remove(folder: Path, data_dir: Path) -> None:
    """Remove a short folder after the server has ended, if nothing is in it."""
    if folder != cluster_dir(data_dir):
        try:
            folder.rmdir()
        except OSError:
            return  # somebody else's concern, or gone already


def _suits(folder: Path) -> bool:
    path = os.fsencode(folder / _SOCKET)
    return (
        len(path) <= PATH_LIMIT_BYTES and b"," not in path and not any(0xDC80 <= ord(c) <= 0xDCFF for c in str(folder))
    )


def _is_private(folder: Path, account: Account) -> bool:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (account.uid, os.geteuid()):
        return False
    if stat.S_IMODE(found.st_mode) != 0o700:
        return False
    account.give(folder)
    return True
