"""The doctor: finds problems of the database, and says how to fix them."""

from __future__ import annotations

from coordinator.model.doctor import Finding
from coordinator.model.operation import Operation, Scope

__all__ = ["Fix", "Run"]


class Run(Operation[list[Finding]], frozen=True, kw_only=True):
    """Run all checks of the database, or only these.

    Raises: ``InvalidArgument`` for a check that the database does not know.
    """

    function = "doctor_run"
    reads = True
    scope = Scope.ALL
    route = "/v1/doctor"

    checks: list[str] | None = None


class Fix(Operation[list[str]], frozen=True, kw_only=True):
    """Fix the findings of a check, if the repair is non-destructive; return what was done."""

    function = "doctor_fix"
    internal = True

    check: str
