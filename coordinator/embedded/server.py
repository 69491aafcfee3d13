"""A running server as others see it: its address, and how to find it without touching it.

The owner writes a record (`postgres.json` in the data directory) when the server takes connections. `find` believes the record only if PostgreSQL's own `postmaster.pid` names the same
process as ready *and* the socket takes a connection: so neither a stale file nor a process id that now
belongs to somebody else can mislead it. It starts nothing, waits for nothing and imports nothing heavy.
"""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path
from urllib.parse import quote

import msgspec

from coordinator.embedded.releases import Upgrade, upgrade
from coordinator.errors import ConfigurationError

__all__ = [
    "DATABASE",
    "PORT",
    "ROLE",
    "Postmaster",
    "Record",
    "Server",
    "absolute",
    "answers",
    "cluster_dir",
    "find",
    "identity",
    "read_postmaster",
    "read_record",
    "write_record",
]

ROLE = "coordinator"
DATABASE = "coordinator"
PORT = 5432  # only names the socket file; nothing listens on TCP
CONNECT_TIMEOUT_S = 1.0


class Server(msgspec.Struct, frozen=True):
    """A server that takes connections.

    `dsn` suits asyncpg and libpq; `psql` is a command line for a person; `version` is the full one
    ("18.1"); `owned` says whether this process started it and will stop it; `pid` is the postmaster's, and
    changes at a restart.
    """

    dsn: str
    psql: str
    data_dir: Path
    version: str
    owned: bool
    bin_dir: Path
    socket_dir: Path
    pid: int

    @property
    def upgrade(self) -> Upgrade | None:
        """A newer minor release, if the coordinator knows one."""
        return upgrade(self.version, self.bin_dir)


class Record(msgspec.Struct, frozen=True):
    """What the owner leaves in the data directory for others and for the next start.

    `home` identifies the cluster's folder, so that the record in a copy of a data directory counts for
    nothing: it names the original's socket.
    """

    home: str
    pid: int
    version: str
    bin_dir: str
    socket_dir: str

    def server(self, data_dir: Path, *, owned: bool) -> Server:
        """Describe the recorded server."""
        socket_dir = self.socket_dir
        psql = [f"{self.bin_dir}/psql", "-h", socket_dir, "-p", str(PORT), "-U", ROLE, DATABASE]
        return Server(
            dsn=f"postgresql://{ROLE}@/{DATABASE}?host={quote(socket_dir, safe='/')}&port={PORT}",
            psql=shlex.join(psql),
            data_dir=data_dir,
            version=self.version,
            owned=owned,
            bin_dir=Path(self.bin_dir),
            socket_dir=Path(socket_dir),
            pid=self.pid,
        )


class Postmaster(msgspec.Struct, frozen=True):
    """What `postmaster.pid` says; `status` is empty while the file is still being written."""

    pid: int
    status: str


def cluster_dir(data_dir: Path) -> Path:
    """Name the cluster's folder in a data directory."""
    return data_dir / "postgres"


def find(data_dir: Path) -> Server | None:
    """Find the running server of a data directory, without side effects; None if there is none that answers.

    Raises:
        ConfigurationError: this user may not look into the directory; ask as its owner.

    """
    data_dir = absolute(data_dir)
    try:
        record = read_record(data_dir)
        postmaster = read_postmaster(cluster_dir(data_dir))
        if record is None or postmaster is None or postmaster.pid != record.pid or postmaster.status != "ready":
            return None
        if not answers(Path(record.socket_dir)):
            return None
    except PermissionError as error:
        raise ConfigurationError(
            f"The data directory {data_dir} belongs to another user ({error.filename or 'its socket'}).",
            hint="Run as the user who owns it, or choose another data directory.",
        ) from None
    return record.server(data_dir, owned=False)


def absolute(path: Path) -> Path:
    """Make a path absolute, and the same for the same words: links are not followed, dots are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute() keeps `..`


def read_postmaster(cluster: Path) -> Postmaster | None:
    """Read `postmaster.pid`; None if there is none. The process it names may be long gone."""
    try:
        lines = (cluster / "postmaster.pid").read_text("utf-8", "replace").splitlines()
        pid = abs(int(lines[0]))  # a single-user server writes its process id negated
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None
    return Postmaster(pid, lines[7].strip() if len(lines) > 7 else "")


def answers(socket_dir: Path) -> bool:
    """Tell whether something takes connections at the socket; a full queue counts as yes."""
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


def read_record(data_dir: Path) -> Record | None:
    """Read the owner's record; None if there is none, none that can be read, or one of another folder."""
    try:
        record = msgspec.json.decode((data_dir / "postgres.json").read_bytes(), type=Record)
        return record if record.home == identity(data_dir) else None
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def identity(data_dir: Path) -> str:
    """Identify the cluster's folder, by whatever path it is reached."""
    found = cluster_dir(data_dir).stat()
    return f"{found.st_dev}:{found.st_ino}"


def write_record(data_dir: Path, record: Record) -> None:
    """Replace the owner's record, whole or not at all."""
    temporary = data_dir / "postgres.json.new"
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.replace(data_dir / "postgres.json")
