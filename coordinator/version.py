"""The program's version, as it was installed. Read late: it costs a look into the file system."""

from __future__ import annotations

from functools import cache

__all__ = ["version"]


@cache
def version() -> str:
    """Return the version of the program."""
    from importlib import metadata  # noqa: PLC0415 - 15 ms that only few commands need

    return metadata.version("coordinatord")
