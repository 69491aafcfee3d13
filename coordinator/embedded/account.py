"""The user whom the server runs as: PostgreSQL refuses to run as root, and its files must belong to its user.

An ordinary user runs the server directly. Root runs it in a user namespace, where root is called nobody, still owns its
files, and has no privileges. Where namespaces are forbidden, as in many containers, root gives the cluster to the user
nobody and runs the server as nobody. The server of a cluster that belongs to another user runs as that user. No user is
created, and no file becomes accessible to more users.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import msgspec

from coordinator.embedded import files, launcher
from coordinator.errors import ConfigurationError

__all__ = ["Account", "candidates"]


class Account(msgspec.Struct, frozen=True):
    """A way to run the server's programs: ``name`` is the argument of the launcher, ``uid`` and ``gid`` own the files."""

    name: str
    uid: int
    gid: int

    def command(self, program: Path, *arguments: str, folder: Path) -> list[str]:
        """Put the launcher in front of a command, which must be able to enter ``folder``."""
        return [
            *(sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), self.name, str(folder)),
            *(str(program), *arguments),
        ]

    def give(self, path: Path) -> None:
        """Make the account the owner of a file, or of a folder with its contents."""
        with files.errors_named(path):
            _give(path, self.uid, self.gid)


def _give(path: Path, uid: int, gid: int) -> None:
    if path.lstat().st_uid != uid:
        os.chown(path, uid, gid, follow_symlinks=False)
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            _give(inner, uid, gid)


def candidates(path: Path, *, new: bool) -> list[Account]:
    """Return the accounts to try, best first: for the cluster in a folder, or for a new one in a data directory.

    Only initdb, and so only a new cluster, needs a user with a name. Containers often run as a user without one.

    Raises: ``ConfigurationError`` if the path belongs to another user, and this one is not root.
    """
    with files.errors_named(path):
        owner = path.stat()
    uid, gid = os.geteuid(), os.getegid()
    if uid == owner.st_uid and uid != 0:
        plain = Account("self", uid, gid)
        return [Account("namespace", uid, gid), plain] if new and not _has_name(uid) else [plain]
    if uid != 0:
        raise ConfigurationError(
            f"{path} belongs to another user (id {owner.st_uid})",
            hint="Run as the user who owns it, or choose another data directory.",
        )
    if owner.st_uid != 0 and (not new or _has_name(owner.st_uid)):
        return [Account(f"{owner.st_uid}:{owner.st_gid}", owner.st_uid, owner.st_gid)]
    nobody = launcher.NOBODY
    return [Account("namespace", 0, 0), Account(f"{nobody}:{nobody}", nobody, nobody)]


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
