"""Findings of the doctor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

__all__ = ["SEVERITIES", "Finding", "Severity", "worst"]

Severity = Literal["ok", "unknown", "warning", "critical"]
SEVERITIES: tuple[str, ...] = ("ok", "unknown", "warning", "critical")
"""From the least to the most severe. unknown: the check failed."""


class Finding(msgspec.Struct, frozen=True):
    """A finding of one check, with its remedy.

    ``severity`` is one of ``SEVERITIES``. ``remedy`` is None where nothing has to be done.
    """

    check: str
    severity: str
    message: str
    remedy: str | None = None


def worst(findings: Iterable[Finding]) -> str:
    """Return the worst severity of findings."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="ok")
