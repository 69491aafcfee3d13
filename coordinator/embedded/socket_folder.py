"""The folder of the socket: the cluster's own, or a private folder if that path is not suitable.

The path of a unix socket has at most about a hundred bytes, and commas separate the hosts of a client's address. The
name of the private folder derives from the data directory. It has mode 0700, belongs to the account and is never a link.
It is recorded, so the next start uses it again, and created again if it was deleted with other temporary files.
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
from coordinator.errors import ConfigurationError

__all__ = ["clean", "prepare", "remove"]

# 107 bytes on Linux, 103 elsewhere; the lower limit applies everywhere, so that a data directory can move.
PATH_LIMIT_BYTES = 103
_SOCKET = f".s.PGSQL.{PORT}"


def prepare(data_dir: Path, account: Account) -> Path:
    """Create the folder of the socket for a data directory, if possible the same at every start.

    Raises: ``ConfigurationError`` if no folder is suitable.
    """
    cluster = cluster_dir(data_dir)
    if _suits(cluster):
        return cluster
    name = "coordinator-" + hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    record = read_record(data_dir)
    places = parents()
    for folder in (*([record.socket_dir] if record else []), *(parent / name for parent in places)):
        if _suits(folder) and folder != cluster and _is_private(folder, account):
            return folder
    with files.errors_named(places[-1]):
        folder = Path(tempfile.mkdtemp(prefix="coordinator-", dir=places[-1]))
    if not _suits(folder):
        folder.rmdir()
        raise ConfigurationError(
            f"neither {cluster} nor {places[-1]} can contain a socket: the path is too long, or contains a comma",
            hint="Choose another --data-dir.",
        )
    account.give(folder)
    return folder


def parents() -> list[Path]:
    """Return the possible parents of a private folder: the user's runtime directory, then the one for temporary files."""
    return [Path(f"/run/user/{os.geteuid()}"), files.temporary_folder()]


def clean(folder: Path) -> None:
    """Remove the socket and lock file of a server that has ended, even if another process has its id now."""
    with files.errors_named(folder):
        (folder / f"{_SOCKET}.lock").unlink(missing_ok=True)
        (folder / _SOCKET).unlink(missing_ok=True)


def remove(folder: Path, data_dir: Path) -> None:
    """Remove a private folder after the server has ended, if it is empty."""
    if folder != cluster_dir(data_dir):
        try:
            folder.rmdir()
        except OSError:
            return  # in use by another process, or already removed


def _suits(folder: Path) -> bool:
    path = os.fsencode(folder / _SOCKET)
    decodable = not any(0xDC80 <= ord(character) <= 0xDCFF for character in str(folder))
    return len(path) <= PATH_LIMIT_BYTES and b"," not in path and decodable


def _is_private(folder: Path, account: Account) -> bool:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    found = folder.lstat()
    if found.st_mode != stat.S_IFDIR | 0o700 or found.st_uid not in (account.uid, os.geteuid()):
        return False
    account.give(folder)
    return True
