"""Patterns of keys: ``*`` matches any text, including slashes; every other character matches itself. ``task/7/*``, ``*/COMPLETED``.

Matching takes time proportional to the length of the key, whatever the pattern. The database uses LIKE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.errors import InvalidArgument
from coordinator.model.catalogue import LIMITS

__all__ = ["check_key_patterns", "matches_any"]


def check_key_patterns(patterns: Iterable[str]) -> None:
    """Refuse a pattern that is longer than a key, or empty.

    Raises: ``InvalidArgument``.
    """
    for pattern in patterns:
        if not 0 < len(pattern) <= LIMITS["key"]:
            raise InvalidArgument(
                f'a pattern of keys has {len(pattern)} characters: "{pattern[:50]}"',
                hint=f"Give 1 to {LIMITS['key']} characters, such as task/7/* or */COMPLETED.",
                code="ZC102" if pattern else "ZC101",
            )


def matches_any(patterns: Sequence[str], key: str | None) -> bool:
    """Return whether an event's key matches one of several patterns. An event without a key matches none."""
    return key is not None and any(_matches(pattern, key) for pattern in patterns)


def _matches(pattern: str, key: str) -> bool:
    first, *parts = pattern.split("*")
    if not parts:
        return key == pattern
    *middle, last = parts
    start, end = len(first), len(key) - len(last)
    if start > end or not key.startswith(first) or not key.endswith(last):
        return False
    for part in middle:  # the leftmost match leaves the most text for the following parts
        found = key.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True
