"""Durations as people write them: ``30s``, ``1h30m``, ``7d``. A plain number is seconds."""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec

__all__ = ["HINT", "parse", "read", "written"]

HINT = "Write 30s, 5m, 1h30m or 7d; a plain number is seconds."

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse(text: str) -> timedelta:
    """Read a duration.

    Raises: ``ValueError`` if it is malformed; ``OverflowError`` if a timedelta cannot hold it.
    """
    compact = text.strip().lower()
    if len(compact) > 50:
        raise ValueError("invalid duration: longer than 50 characters")
    if _NUMBER.fullmatch(compact):
        return timedelta(seconds=float(compact))
    parts = list(_PART.finditer(compact))
    if not parts or "".join(part.group() for part in parts) != compact:
        raise ValueError(f'invalid duration "{text}"')
    units = [_UNITS[part[2]] for part in parts]
    if units != sorted(set(units), reverse=True):
        raise ValueError(f'invalid duration "{text}": units go from large to small, each once')
    return timedelta(seconds=sum(float(part[1]) * unit for part, unit in zip(parts, units, strict=True)))


def read(value: object) -> timedelta:
    """Read a duration from JSON: a number of seconds, a text as ``parse`` takes it, or ISO 8601.

    Raises: ``TypeError`` for another type; else as ``parse``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"Expected a duration. {HINT}")
    try:
        if isinstance(value, str) and value.lstrip("+-").startswith("P"):
            return msgspec.convert(value, timedelta)
        return parse(value) if isinstance(value, str) else timedelta(seconds=value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{error}. {HINT}") from None


def written(length: timedelta) -> str:
    """Format a duration with at most three decimals, so that ``parse`` returns the same."""
    milliseconds = round(length.total_seconds() * 1000)
    parts: list[str] = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, milliseconds = divmod(milliseconds, round(_UNITS[unit] * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
