"""Asks the fork server of the suite for a process: see `tests.forked`.

As a program, `python -I -S fork_client.py <address> <constants> <module> [argument…]` replaces `python -m <module>`
where another program starts it, such as a shell or git. It starts in a twentieth of the time, because it imports
little.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import IO


def ask(address: str, request: Sequence[object], files: Sequence[int]) -> IO[bytes]:
    """Start a process with these standard streams; return a stream that reports its id and then how it ended, each on a line.

    A request consists of the module, its arguments, its folder, its environment, and the constants to set.
    """
    data = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"%8d" % len(data)], files)
        connection.sendall(data)
        return connection.makefile("rb", buffering=0)


if __name__ == "__main__":
    _, called, constants, name, *words = sys.argv
    with ask(called, [name, words, os.getcwd(), dict(os.environ), json.loads(constants)], (0, 1, 2)) as reports:  # noqa: PTH109 - slow to import
        reports.readline()
        code = int(reports.readline())
    sys.exit(code if code >= 0 else 128 - code)
