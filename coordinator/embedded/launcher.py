"""The program between fork and exec: it changes to the account of the server, ties the server to the daemon, and executes it.

An isolated interpreter runs it as a script (``python -I -S launcher.py …``), so the threaded daemon runs no Python code
between a fork and an exec. It imports only the standard library, and little of it, since a start takes five such processes.

    launcher.py <parent pid> <account> <folder> <command…>

``account`` is ``self``, ``namespace`` (root, called nobody in its own user namespace, which owns root's files without
root's privileges) or ``<uid>:<gid>``. The command must be able to enter ``folder``.

When the thread that started the launcher ends, for whatever reason, the command gets SIGINT, which causes a fast
shutdown. This death signal is set last, because a change of credentials clears it. After that, the launcher compares the
parent, which may have died before. The exit code is 125 if the account is not available, and 126 if the command cannot
be executed.
"""

from __future__ import annotations

import ctypes
import os
import sys

REFUSED = 125
NOT_RUNNABLE = 126

NOBODY = 65534
SIGINT = 2
SIG_DFL = None
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


def enter_namespace(libc: ctypes.CDLL) -> None:
    """Enter a user namespace in which this user is called nobody and still owns its files."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes as long as all else
            file.write(text)


def become(libc: ctypes.CDLL, uid: int, gid: int, folder: str, program: str) -> None:
    """Change to another user permanently.

    If only root can enter a folder on the path, the command keeps the one capability that lets it pass, if this process
    has it. The mode of the folder does not change.
    """
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    try:
        check_reach(folder, program)
    except PermissionError:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        mask = 1 << CAP_DAC_OVERRIDE
        wanted = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
        libc.capset(header, wanted)
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)
        check_reach(folder, program)
    else:
        libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())


def check_reach(folder: str, program: str) -> None:
    """Check that the folder and the program can be reached.

    Raises: ``PermissionError``.
    """
    for path in (f"{folder}/.", program):
        os.stat(path)  # noqa: PTH116 - a Path would lose the dot


def main(arguments: list[str]) -> int:
    """Execute the command; return only if that fails."""
    parent, account, folder, *command = arguments
    os.umask(0o077)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.signal(SIGINT, SIG_DFL)
    try:
        if account == "namespace":
            enter_namespace(libc)
            check_reach(folder, command[0])
        elif account != "self":
            uid, gid = account.split(":")
            become(libc, int(uid), int(gid), folder, command[0])
    except OSError as error:
        sys.stderr.write(f"launcher: cannot run as {account}: {error}\n")
        return REFUSED
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, SIGINT, 0, 0, 0)
    if os.getppid() != int(parent):
        return REFUSED
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"launcher: cannot run {command[0]} as {account}: {error.strerror}\n")
    return NOT_RUNNABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
