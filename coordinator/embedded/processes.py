"""Processes: starting and waiting for them, recognising those of a server, and ending them.

A process id proves nothing, because the kernel reuses it. A process belongs to the server of a cluster only if it is a
``postgres`` whose working directory is the cluster. It is signalled through a pidfd that was opened before this check.
Off Linux, without /proc, this cannot be checked, and only a child of this process is signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import anyio

__all__ = ["alive", "end", "exited", "run", "send", "servers_of", "spawn"]

# Without the daemon's variables, such as PGDATA, PGOPTIONS and LANG, which would change what the programs do.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_POLL_S = 0.02
_LEFTOVER_QUIT_S = 2.0
_LEFTOVER_KILL_S = 10.0


def spawn(command: list[str], output: IO[bytes], *, source: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in its own session, so that Ctrl-C in the daemon's terminal reaches the daemon only."""
    return subprocess.Popen(
        command,
        stdin=source or subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    )


async def run(command: list[str], *, timeout_s: float, text: str = "") -> tuple[int | None, str]:
    """Run a program on a text and return its exit code and output.

    After the time limit, kill the program and its children; the exit code is None.
    """
    with _scratch() as output, _scratch() as source:
        source.write(text.encode())
        source.seek(0)
        process = spawn(command, output, source=source)
        try:
            code = process.returncode if await exited(process, timeout_s) else None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def _scratch() -> IO[bytes]:
    # In memory if possible, since a container with a read-only root file system has no temporary folder.
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("output"), "w+b")
    return tempfile.TemporaryFile()


async def exited(process: subprocess.Popen[bytes] | int, timeout_s: float) -> bool:
    """Wait until a process has ended, at most this long, and return whether it has. A child is reaped."""

    def running() -> bool:
        return alive(process) if isinstance(process, int) else process.poll() is None

    with anyio.move_on_after(timeout_s):
        if running():
            await _gone(process if isinstance(process, int) else process.pid, running)
    return not running()


async def _gone(pid: int, running: Callable[[], bool]) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # no pidfd on this system
        while running():  # noqa: ASYNC110 - another process
            await anyio.sleep(_POLL_S)
        return
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def alive(pid: int) -> bool:
    """Return whether a process exists and has not ended."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OSError:
        return not Path("/proc/self").exists()
    return state not in "ZX"


def servers_of(cluster: Path) -> list[int]:
    """Return the processes of the server of a cluster, that is, its postmaster and backends, in order of their ids."""
    try:
        home = cluster.stat()
        candidates = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    except OSError:
        return []
    return sorted(pid for pid in candidates if _is_server(pid, home))


def _is_server(pid: int, home: os.stat_result) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        if not os.path.samestat((process / "cwd").stat(), home):
            return False
        return (process / "exe").readlink().name.removesuffix(" (deleted)") == "postgres"
    except OSError:
        return False


async def end(cluster: Path) -> None:
    """End the processes of a dead postmaster: by SIGQUIT, on which a backend exits at once, then by SIGKILL."""
    for number, limit_s in ((signal.SIGQUIT, _LEFTOVER_QUIT_S), (signal.SIGKILL, _LEFTOVER_KILL_S)):
        leftovers = servers_of(cluster)
        for pid in leftovers:
            send(cluster, pid, number)
        with anyio.move_on_after(limit_s):
            for pid in leftovers:
                await exited(pid, float("inf"))
            return


def send(cluster: Path, pid: int, number: signal.Signals) -> None:
    """Signal a process, only if it still belongs to the server of the cluster."""
    with suppress(OSError, AttributeError):
        descriptor = os.pidfd_open(pid)
        try:
            if _is_server(pid, cluster.stat()):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
