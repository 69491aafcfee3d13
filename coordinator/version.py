"""The program's version, as installed. Read late, because it costs a lookup in the file system."""

from __future__ import annotations

from functools import cache

__all__ = ["version"]


@cache
def version() -> str:
    """Return the version of the program."""
    from importlib import metadata  # noqa: PLC0415 - takes 15 ms, and few commands need it

    return metadata.version("coordinatord")
