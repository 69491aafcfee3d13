"""The program between fork and exec of a command that must not outlive its parent.

Run as a script by an isolated interpreter (``python -I -S launcher.py PARENT COMMAND ARG…``): it may import the standard library
alone. Guarantee, on Linux: when the parent dies, however that is, the command is killed. The parent is compared after that
was asked for, because it may have died before. Ends with 126 if the command cannot be run, 127 if there is none.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_RUNNABLE = 126
NOT_FOUND = 127


def main(arguments: list[str]) -> int:
    """Do what the module says; return only if the command could not be started."""
    parent, *command = arguments
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - for nothing elsewhere

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        return NOT_RUNNABLE
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter ignores them, and the command would, too
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - a shell is the last thing wanted here
    except OSError as error:
        sys.stderr.write(f"error: {command[0]} cannot be run: {error.strerror}\n")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
