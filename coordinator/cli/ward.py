"""Runs a command whose processes must not outlive another process: when that one is killed, everything that the command started is killed.

An isolated interpreter runs this file (``python -I -S ward.py PROCESS COMMAND ARG…``), so it imports only the standard
library. It is the parent of the command and, on Linux, of each descendant that loses its own parent
(``PR_SET_CHILD_SUBREAPER``), even one that has left the session or the group. The kernel signals the death of
``PROCESS``; then all of them are killed. If this process itself is killed, so is the command, but not the processes
that the command has started.

It forwards the signals in ``PASSED_ON`` and returns the command's exit code, or 128 plus the number of the signal that
ended it. Processes that a command leaves running when it ends continue to run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
DEATH = signal.SIGUSR1
PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
OF_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # the command receives them as well
NOT_RUNNABLE = 126


def main(arguments: list[str]) -> int:
    """Run the command."""
    process, *command = arguments
    prctl = ctypes.CDLL(None).prctl
    awaited = (DEATH, signal.SIGCHLD, *PASSED_ON, *OF_THE_TERMINAL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_PDEATHSIG, DEATH, 0, 0, 0)
    if os.getppid() != int(process):  # the process has already died
        return NOT_RUNNABLE
    own = os.getpid()
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        launcher = str(Path(__file__).with_name("launcher.py"))
        os.execv(sys.executable, [sys.executable, "-I", "-S", launcher, str(own), *command])  # noqa: S606 - no shell
    while True:
        number = signal.sigwait(awaited)
        if number in PASSED_ON:
            os.kill(child, number)
        elif number == DEATH:
            _kill_below(own)
            return 128 + signal.SIGKILL
        code = _ended(child)
        if code is not None:
            return code


def _ended(child: int) -> int | None:
    """Reap ended processes; return the exit code of the command if it has ended."""
    code = None
    with suppress(ChildProcessError):  # there is no child left
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
    return code if code is None or code >= 0 else 128 - code


def _kill_below(ancestor: int) -> None:
    """Kill the descendants of a process until there are none: orphans, and what they started meanwhile, become its children."""
    killed = True
    while killed:
        killed = False
        for pid in _below(ancestor):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed = True
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _below(ancestor: int) -> list[int]:
    """Return the descendants of a process that have not ended."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                state, parent, *_ = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
                if state not in ("Z", "X") or int(parent) == ancestor:
                    parents[int(folder.name)] = int(parent)
    found: list[int] = []
    near = {ancestor}
    while near:
        near = {pid for pid, parent in parents.items() if parent in near}
        found += near
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
