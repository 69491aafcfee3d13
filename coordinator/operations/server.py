"""PostgreSQL as an operator sees it."""

from __future__ import annotations

from coordinator.model.operation import Operation, Scope
from coordinator.model.server import ServerCalls

__all__ = ["ListCalls"]


class ListCalls(Operation[list[ServerCalls]], frozen=True, kw_only=True):
    """List calls by function: how many run, for how long, and how many ended, in which time."""

    function = "server_calls"
    reads = True
    scope = Scope.ALL
    route = "/v1/server/calls"
