"""Runs a command of which nothing must outlive a process: all that it starts is killed when that is killed.

An isolated interpreter runs this file (``python -I -S ward.py PROCESS COMMAND ARG…``), so it imports the standard library only. It is the parent
of the command, and on Linux of each process that loses its own below it (``PR_SET_CHILD_SUBREAPER``), also of those that have left
the session or the group. The kernel signals the death of ``PROCESS``, upon which all of them are killed. If this process is killed itself, so is the
command, but not what it has started.

It passes on the signals of ``PASSED_ON`` and returns the command's exit code, or 128 plus the number of the signal that ended it. What a command
leaves running when it ends goes on.
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
OF_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # the command gets them, too
NOT_RUNNABLE = 126


def main(arguments: list[str]) -> int:
    """Run the command."""
    process, *command = arguments
    prctl = ctypes.CDLL(None).prctl
    awaited = (DEATH, signal.SIGCHLD, *PASSED_ON, *OF_THE_TERMINAL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_PDEATHSIG, DEATH, 0, 0, 0)
    if os.getppid() != int(process):  # it died before
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
    """Reap what has ended; return the exit code of the command if it is among it."""
    code = None
    with suppress(ChildProcessError):  # none is left
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
    return code if code is None or code >= 0 else 128 - code


def _kill_below(ancestor: int) -> None:
    """Kill what is below a process, until nothing is: orphans come to it, with what they have started meanwhile."""
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
    """Return the processes below one, without those that have ended."""
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
