"""The embedded PostgreSQL: a private server in the data directory, for a daemon without a configured database.

It is an ordinary PostgreSQL, whose programs come from a wheel or from the system. It runs as a direct child of the
daemon, listens only on a unix socket in a folder of mode 0700, and stops when the daemon ends.

Guarantees:

- No acknowledged write is lost: fsync and data checksums are on. After a ``kill -9`` of the daemon or the server, the
  next start may need a recovery.
- One process owns the server: the one that holds the lock file in the data directory. The server outlives its owner
  only during a fast shutdown. Other processes attach, and one of them takes over when the owner ends.
- Files in the data directory that the coordinator did not create are neither deleted nor overwritten.
- The address stays the same across restarts and take-overs.

The first start raises ``ConfigurationError`` (somebody has to change something) or ``DatabaseUnavailable`` (a later
attempt may succeed), with the end of the server's log as detail. After that, the supervisor restarts the server with
back-off while the daemon runs. It ends the daemon only if the cluster is gone or belongs to somebody else.

What it deliberately does not do: TCP, passwords, replication, and major upgrades (the operator runs ``pg_upgrade``). Off
Linux, it does not stop the server when the daemon is killed; the next start reports how to stop it.

| module        | content                                                                     |
|---------------|-----------------------------------------------------------------------------|
| server        | a running server as others see it: ``Server``, ``find``                     |
| releases      | which PostgreSQL is supported, and which is outdated                        |
| binaries      | which PostgreSQL runs                                                       |
| account       | the user whom the server runs as                                            |
| launcher      | the system calls between fork and exec                                      |
| processes     | waiting for processes, recognising and ending them                          |
| files         | errors of the operating system that name the path; atomic writes            |
| cluster       | the files and settings of the cluster                                       |
| socket_folder | the folder of the socket                                                    |
| ownership     | the lock file                                                               |
| postmaster    | one run of the server process                                               |
| supervisor    | starting or attaching, restarting, taking over, stopping                    |
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from coordinator.embedded.releases import Upgrade
from coordinator.embedded.server import Server, find
from coordinator.errors import DatabaseUnavailable

__all__ = ["Server", "Upgrade", "address", "find", "run"]


def address(data_dir: Path) -> str:
    """Return the address of the running server of a data directory.

    Raises: ``DatabaseUnavailable`` if no server runs there.
    """
    server = find(data_dir)
    if server is None:
        raise DatabaseUnavailable(
            f"no database is configured, and no embedded server runs in {data_dir}",
            hint='Start one with "coordinator serve", or name a database: --url postgresql://…, or COORDINATOR_DATABASE_URL.',
        )
    return server.dsn


def run(
    data_dir: Path, *, bin_dir: Path | None = None, settings: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[Server]:
    """Start the server of a data directory, or attach to the running one, until the block ends.

    The cluster is the subfolder ``postgres``, created on first use. ``bin_dir`` selects the PostgreSQL. ``settings`` are
    server settings that override all configuration files; they apply only to a server that this process starts.

    Within the block, a supervisor restarts the server when it ends, and takes it over when the owner ends. ``owned`` in
    the result says whether this process owned it at the start. The end of the block stops an owned server (fast
    shutdown, at most 30 seconds), but not the server of another process. The thread that enters the block must live
    until its end, since the kernel stops the server when that thread ends.

    Raises: ``ConfigurationError`` if there is no usable PostgreSQL, or the directory cannot be used;
    ``DatabaseUnavailable`` if the server did not start, or its owner did not make it ready in time.
    """
    # Imported late, since every command imports this package, but only for `find`.
    from coordinator.embedded import supervisor  # noqa: PLC0415

    return supervisor.supervised(Path(data_dir), bin_dir, settings or {})
