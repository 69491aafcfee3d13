"""The result of a check of the client: a severity, a message, and a remedy."""

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
    """Return a diagnosis that needs no action."""
    return Diagnosis("ok", message)


def unknown(message: str, remedy: str | None = None) -> Diagnosis:
    """Return a diagnosis of something that cannot be seen."""
    return Diagnosis("unknown", message, remedy)


def warning(message: str, remedy: str | None) -> Diagnosis:
    """Return a diagnosis that needs attention during working hours."""
    return Diagnosis("warning", message, remedy)


def critical(message: str, remedy: str | None) -> Diagnosis:
    """Return a diagnosis that needs somebody now."""
    return Diagnosis("critical", message, remedy)
