"""Hashes of file contents. A hook compares them with what its session last saw."""

from __future__ import annotations

import hashlib
import math
import os
import stat

__all__ = ["ABSENT", "UNKNOWN", "fingerprint", "fingerprint_within"]

ABSENT = "-"
UNKNOWN = ""
MOST_BYTES = 64 << 20  # larger files are identified by size and time


def fingerprint(path: str) -> str:
    """Return the SHA-256 hash of a file in hexadecimal; ``ABSENT`` if there is none, ``UNKNOWN`` if it cannot be read.

    It does not open pipes or devices, which could block.
    """
    return fingerprint_within(path, math.inf) or UNKNOWN


def fingerprint_within(path: str, max_bytes: float) -> str | None:
    """Return the same, or None without reading the file if it is larger than ``max_bytes``."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except (OSError, ValueError):
        return UNKNOWN
    with os.fdopen(number, "rb", buffering=0) as file:
        try:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode):
                return UNKNOWN
            if found.st_size > max_bytes:
                return None
            if found.st_size > MOST_BYTES:
                return f"{found.st_size}-{found.st_mtime_ns}"
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return UNKNOWN
