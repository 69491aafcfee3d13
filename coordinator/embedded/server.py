"""A running server as others see it: its address, and how to find it without touching it.

The owner writes a record (``postgres.json`` in the data directory) when the server accepts connections. ``find`` trusts
it only if ``postmaster.pid`` says that the same process is ready, and the socket accepts a connection. So neither a stale
file nor a reused process id misleads it. ``find`` starts nothing, does not wait, and imports only small modules.
"""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from coordinator.embedded.releases import Upgrade, upgrade
from coordinator.errors import ConfigurationError

__all__ = [
    "DATABASE",
    "PORT",
    "ROLE",
    "PidFile",
    "Server",
    "absolute",
    "accepts",
    "cluster_dir",
    "find",
    "identity",
    "read_pid_file",
    "read_record",
    "write_record",
]

ROLE = "coordinator"
DATABASE = "coordinator"
PORT = 5432  # only names the socket file; nothing listens on TCP
CONNECT_TIMEOUT_S = 1.0


class Server(msgspec.Struct, frozen=True):
    """A server that accepts connections.

    ``version`` is complete ("18.6"). ``pid`` is that of the postmaster, and changes when the server restarts. ``owned``:
    this process started the server and will stop it. ``home`` identifies the folder of the cluster, since the record in a
    copy of a data directory names the socket of the original.
    """

    data_dir: Path
    version: str
    bin_dir: Path
    socket_dir: Path
    pid: int
    home: str
    owned: bool = False

    @property
    def dsn(self) -> str:
        """The address for asyncpg and libpq."""
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self.socket_dir), safe='/')}&port={PORT}"

    @property
    def psql(self) -> str:
        """The command line that opens psql."""
        return shlex.join(
            [str(self.bin_dir / "psql"), "-h", str(self.socket_dir), "-p", str(PORT), "-U", ROLE, DATABASE]
        )

    @property
    def upgrade(self) -> Upgrade | None:
        """A newer minor release, if one is known."""
        return upgrade(self.version, self.bin_dir)


class PidFile(NamedTuple):
    """The contents of ``postmaster.pid``. The process may have ended long ago."""

    pid: int
    ready: bool


def cluster_dir(data_dir: Path) -> Path:
    """Return the folder of the cluster in a data directory."""
    return data_dir / "postgres"


def find(data_dir: Path) -> Server | None:
    """Return the running server of a data directory, or None; without side effects.

    Raises: ``ConfigurationError`` if this user cannot read the directory.
    """
    data_dir = absolute(data_dir)
    try:
        record = read_record(data_dir)
        if record and read_pid_file(cluster_dir(data_dir)) == (record.pid, True) and accepts(record.socket_dir):
            return record
    except PermissionError as error:
        raise ConfigurationError(
            f"the data directory {data_dir} belongs to another user ({error.filename or 'its socket'})",
            hint="Run as the user who owns it, or choose another data directory.",
        ) from None
    return None


def absolute(path: Path) -> Path:
    """Return an absolute path. Links are not followed, so the result depends only on the given path."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute() keeps `..`


def read_pid_file(cluster: Path) -> PidFile | None:
    """Read ``postmaster.pid``; None if there is none."""
    try:
        lines = (cluster / "postmaster.pid").read_text("utf-8", "replace").splitlines()
        pid = abs(int(lines[0]))  # a single-user server negates it
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None
    return PidFile(pid, len(lines) > 7 and lines[7].strip() == "ready")


def accepts(socket_dir: Path) -> bool:
    """Return whether a process accepts connections at the socket, even if their queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_TIMEOUT_S)
        try:
            connection.connect(str(socket_dir / f".s.PGSQL.{PORT}"))
        except (BlockingIOError, TimeoutError):
            return True
        except PermissionError:
            raise
        except OSError:
            return False
        return True


def read_record(data_dir: Path) -> Server | None:
    """Read the owner's record; None if there is none, or it is unreadable, or of another folder."""
    try:
        content = (data_dir / "postgres.json").read_bytes()
        record = msgspec.json.decode(content, type=Server, dec_hook=lambda kind, value: kind(value))
        if record.home == identity(data_dir):
            return msgspec.structs.replace(record, data_dir=data_dir, owned=False)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    return None


def write_record(server: Server) -> None:
    """Replace the owner's record atomically."""
    temporary = server.data_dir / "postgres.json.new"
    temporary.write_bytes(msgspec.json.encode(server, enc_hook=str))
    temporary.replace(server.data_dir / "postgres.json")


def identity(data_dir: Path) -> str:
    """Return an identifier of the folder of the cluster that does not depend on its path."""
    found = cluster_dir(data_dir).stat()
    return f"{found.st_dev}:{found.st_ino}"
