"""Starts a command that must not outlive its parent.

An isolated interpreter runs this file (``python -I -S launcher.py PARENT COMMAND ARG…``), so it imports only the
standard library. Guarantee, on Linux: when the parent dies, the command is killed. The parent's id is checked after
requesting the death signal, because the parent may have died before. Exits with 126 if the command cannot be run, and
with 127 if it is not found.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_RUNNABLE = 126
NOT_FOUND = 127


def main(arguments: list[str]) -> int:
    """Start the command; return only if this fails."""
    parent, *command = arguments
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - used only here

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        return NOT_RUNNABLE
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter ignores them; the command must not
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell
    except OSError as error:
        sys.stderr.write(f"error: {command[0]} cannot be run: {error.strerror}\n")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
