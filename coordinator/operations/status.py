"""Status: whether the server is healthy, and how much it contains."""

from __future__ import annotations

from coordinator.model.operation import Operation, Scope
from coordinator.model.status import Status

__all__ = ["Show"]


class Show(Operation[Status], frozen=True, kw_only=True):
    """Show server, schema and leader, how much a project contains, and what needs attention.

    Raises: ``NotFound`` if there is no such project.
    """

    function = "status_show"
    reads = True
    scope = Scope.IN_PROJECT
    route = "/v1/status"

    project: str
