"""One run of the server process, from the remains of the previous one to its end.

Before a start, no process of an earlier run may be left. An orphaned postmaster gets time to shut down cleanly, and the
backends of a killed one are ended. If ``postmaster.pid`` names a process that is not the server, the id is replaced, but
the file stays: it also names the shared memory that must have no users, and PostgreSQL's check of this protects the data.
Only a file that names nothing is removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import anyio

from coordinator.embedded import cluster, files, processes, socket_folder
from coordinator.embedded.account import Account
from coordinator.embedded.binaries import Binaries
from coordinator.embedded.server import (
    PORT,
    Server,
    accepts,
    cluster_dir,
    identity,
    read_pid_file,
    read_record,
    write_record,
)
from coordinator.errors import DatabaseUnavailable

__all__ = ["Postmaster"]

START_TIMEOUT_S = 300.0  # recovery of a large cluster after a crash
ORPHAN_TIMEOUT_S = 60.0
FAST_SHUTDOWN_S = 20.0
IMMEDIATE_SHUTDOWN_S = 5.0
_READY_POLL_S = 0.002
_READY_POLL_MAX_S = 0.02


class Postmaster:
    """A server process that this process started."""

    def __init__(
        self, data_dir: Path, process: subprocess.Popen[bytes], socket_dir: Path, logged: Mapping[Path, int]
    ) -> None:
        self._logged = logged  # before this run, so that an error quotes only its own log
        self.data_dir = data_dir
        self.process = process
        self.socket_dir = socket_dir

    @classmethod
    async def start(
        cls, data_dir: Path, binaries: Binaries, account: Account, settings: Mapping[str, str]
    ) -> tuple[Postmaster, Server]:
        """Start the server of an existing cluster, and return when it accepts connections.

        The caller owns the lock. The server ends with the caller's thread.

        Raises: ``ConfigurationError`` for a wrong setting or permission; ``DatabaseUnavailable`` if the server ended, or was
        not ready in time. The detail is the end of its log.
        """
        home = cluster_dir(data_dir)
        await _clear(data_dir)
        cluster.configure(data_dir, account)
        cluster.prune_logs(home)
        socket_dir = socket_folder.prepare(data_dir, account)
        socket_folder.clean(socket_dir)
        fixed = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": '"' + str(socket_dir).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
        }
        options = [part for name, value in {**settings, **fixed}.items() for part in ("-c", f"{name}={value}")]
        command = account.command(binaries.folder / "postgres", "-D", str(home), *options, folder=home)
        logged = cluster.log_sizes(home)
        postmaster = cls(data_dir, _spawn(command, home, account), socket_dir, logged)
        try:
            await postmaster._wait_ready()
            server = Server(
                data_dir=data_dir,
                version=binaries.version,
                bin_dir=binaries.folder,
                socket_dir=socket_dir,
                pid=postmaster.process.pid,
                home=identity(data_dir),
                owned=True,
            )
            with files.errors_named(data_dir):
                write_record(server)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await postmaster.stop()
            raise
        return postmaster, server

    async def _wait_ready(self) -> None:
        home = cluster_dir(self.data_dir)
        delay_s = _READY_POLL_S
        with anyio.move_on_after(START_TIMEOUT_S):
            while read_pid_file(home) != (self.process.pid, True) or not accepts(self.socket_dir):
                if self.process.poll() is not None:
                    log = cluster.log_tail(home, self._logged)
                    ended = (
                        "" if log else f": it ended with code {self.process.returncode} and wrote nothing to its log"
                    )
                    raise cluster.failure(f"PostgreSQL did not start in {home}{ended}", home, log)
                await anyio.sleep(delay_s)
                delay_s = min(delay_s * 1.2, _READY_POLL_MAX_S)
            return
        raise DatabaseUnavailable(
            f"PostgreSQL in {home} was not ready within {START_TIMEOUT_S:.0f} seconds",
            hint="A recovery may need longer; the log shows its progress. Try again.",
            detail=cluster.log_tail(home, self._logged),
        )

    def has_socket(self) -> bool:
        """Return whether the socket exists; a program that cleans up temporary files may have removed it."""
        return (self.socket_dir / f".s.PGSQL.{PORT}").exists()

    async def exited(self, timeout_s: float) -> bool:
        """Wait until the server has ended, at most this long, and return whether it has."""
        return await processes.exited(self.process, timeout_s)

    async def stop(self) -> None:
        """Stop the server: fast, then immediately (it recovers at its next start), then by force."""
        for number, limit_s in (
            (signal.SIGINT, FAST_SHUTDOWN_S),
            (signal.SIGQUIT, IMMEDIATE_SHUTDOWN_S),
            (signal.SIGKILL, IMMEDIATE_SHUTDOWN_S),
        ):
            if self.process.poll() is None:
                self.process.send_signal(number)
            if await self.exited(limit_s):
                break
        await processes.end(cluster_dir(self.data_dir))
        socket_folder.remove(self.socket_dir, self.data_dir)


def _spawn(command: list[str], home: Path, account: Account) -> subprocess.Popen[bytes]:
    path = cluster.log_dir(home) / "start.log"
    with files.errors_named(path), path.open("wb") as output:
        account.give(path)
        return processes.spawn(command, output)


async def _clear(data_dir: Path) -> None:
    """Ensure that no server of the cluster runs, and that no file says that one does."""
    home = cluster_dir(data_dir)
    path = home / "postmaster.pid"
    state = read_pid_file(home)
    if state and state.pid in processes.servers_of(home):
        # Its owner is dead, so it is already shutting down, except off Linux.
        processes.send(home, state.pid, signal.SIGINT)
        await processes.exited(state.pid, ORPHAN_TIMEOUT_S)
    elif path.exists():
        await _wait_silence(data_dir)
    await processes.end(home)
    with files.errors_named(path):
        if state:
            _disarm(path)
        else:  # it is damaged, as after a power loss, and PostgreSQL would refuse it
            path.unlink(missing_ok=True)


async def _wait_silence(data_dir: Path) -> None:
    # Off Linux, processes cannot be recognised. Then a socket that accepts connections means that a server still shuts down.
    record = read_record(data_dir)
    with anyio.move_on_after(ORPHAN_TIMEOUT_S):
        while record and accepts(record.socket_dir):  # noqa: ASYNC110 - another process
            await anyio.sleep(_READY_POLL_MAX_S)
        return
    raise DatabaseUnavailable(
        f"a PostgreSQL that the coordinator did not start runs in {cluster_dir(data_dir)}",
        hint=f"Stop it: pg_ctl -D {cluster_dir(data_dir)} stop -m fast",
    )


def _disarm(path: Path) -> None:
    # PostgreSQL ignores its parent's process id in this file, but still checks the shared memory that the file names.
    try:
        _, separator, rest = path.read_text("utf-8", "surrogateescape").partition("\n")
    except FileNotFoundError:
        return
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"{os.getpid()}{separator}{rest}")
