"""The standard streams of the program."""

from __future__ import annotations

import os
import sys

__all__ = ["prepare"]


def prepare() -> None:
    """Set the output streams to UTF-8, and to nowhere if the caller has closed them."""
    if sys.stdout is None or sys.stderr is None:
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        # JSON is UTF-8 in every locale. Text that cannot be encoded is escaped.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
