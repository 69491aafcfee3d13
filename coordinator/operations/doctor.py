"""The doctor: what is wrong with the database, and what to do about it."""

from __future__ import annotations

from coordinator.model.doctor import Finding
from coordinator.model.operation import Operation, Scope

__all__ = ["Fix", "Run"]


class Run(Operation[list[Finding]], frozen=True, kw_only=True):
    """Examine the database: all checks, or these.

    Raises: ``InvalidArgument`` for a check that the database does not know.
    """

    function = "doctor_run"
    reads = True
    scope = Scope.ALL
    route = "/v1/doctor"

    checks: list[str] | None = None


class Fix(Operation[list[str]], frozen=True, kw_only=True):
    """Fix what a check finds, if the repair is non-destructive; return what was done."""

    function = "doctor_fix"
    internal = True

    check: str
