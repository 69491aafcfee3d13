"""``coordinator`` and ``python -m coordinator``.

The kernel gives the first process of a container no default action for signals: SIGTERM would be lost until the command
handles it, which ``serve`` does after its imports and most other commands never do. So this restores the usual
behaviour there.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

__all__ = ["main"]

if os.getpid() == 1:
    signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))

gc.disable()  # imported modules stay in memory, and searching them for garbage takes 10 ms


def main() -> None:
    """Run the program and end the process."""
    if sys.argv[1:3] == ["hook", "run"]:
        from coordinator.cli.hook_run import answer  # noqa: PLC0415

        answer(sys.argv[3:])
    from coordinator.cli.main import main as run  # noqa: PLC0415 - signals would be lost mostly during these imports

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
