"""``coordinator`` and ``python -m coordinator``.

The kernel gives the first process of a container no default action for a signal: SIGTERM would be lost until the command
handles it, which ``serve`` does after its imports and most others never do. There it is made to do what it does elsewhere.
"""

from __future__ import annotations

import gc
import os
import signal

if os.getpid() == 1:
    signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))

gc.disable()  # what is imported stays: to look for garbage in it takes 10 ms
from coordinator.cli.main import main  # noqa: E402 - the imports take most of the time in which it would be lost

gc.freeze()
gc.enable()

__all__ = ["main"]

if __name__ == "__main__":
    main()
