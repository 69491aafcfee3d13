"""The program's version, as it was installed. Read late: it costs a look into the file system."""

from __future__ import annotations

from functools import cache
from importlib import metadata

__all__ = ["version"]


@cache
def version() -> str:
    """Tell the version of the program."""
    return metadata.version("coordinator")
