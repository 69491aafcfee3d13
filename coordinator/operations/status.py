"""Status: whether the server is healthy, and how much it contains."""

from __future__ import annotations

from coordinator.model.operation import InProject
from coordinator.model.status import Status

__all__ = ["Show"]


class Show(InProject[Status], frozen=True, kw_only=True):
    """Show server, schema and leader, how much a project contains, and what needs attention.

    Raises: ``NotFound`` if there is no such project.
    """

    function = "status_show"
    reads = True
    route = "/v1/status"
