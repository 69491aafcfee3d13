"""Run a command that ends when standard input does: when whoever holds the other end is gone, however that happened.

SIGTERM is passed on; the exit code is the command's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

__all__ = ["main"]


def main(command: list[str]) -> int:
    """Run the command to its end."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def terminate(*_: object) -> None:
        process.terminate()

    def hold() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        terminate()

    signal.signal(signal.SIGTERM, terminate)
    threading.Thread(target=hold, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
