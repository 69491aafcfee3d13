"""What a check of the client returns: a severity, a message, and a remedy."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.model.doctor import Severity

__all__ = ["Diagnosis", "critical", "ok", "unknown", "warning"]


class Diagnosis(NamedTuple):
    """A finding without the name of its check."""

    severity: Severity
    message: str
    remedy: str | None = None


def ok(message: str) -> Diagnosis:
    """Diagnosis that nothing has to be done."""
    return Diagnosis("ok", message)


def unknown(message: str, remedy: str | None = None) -> Diagnosis:
    """Diagnosis what could not be seen."""
    return Diagnosis("unknown", message, remedy)


def warning(message: str, remedy: str | None) -> Diagnosis:
    """Diagnosis what somebody should look at in working hours."""
    return Diagnosis("warning", message, remedy)


def critical(message: str, remedy: str | None) -> Diagnosis:
    """Diagnosis what wants somebody now."""
    return Diagnosis("critical", message, remedy)
