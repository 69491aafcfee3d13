"""PostgreSQL as an operator sees it."""

from __future__ import annotations

from coordinator.model.operation import Operation, Scope
from coordinator.model.server import ServerCalls, ServerSize

__all__ = ["ListCalls", "ListSizes"]


class ListCalls(Operation[list[ServerCalls]], frozen=True, kw_only=True):
    """List calls by function: how many run and for how long, and how many have ended and how long they took."""

    function = "server_calls"
    reads = True
    scope = Scope.ALL
    route = "/v1/server/calls"


class ListSizes(Operation[list[ServerSize]], frozen=True, kw_only=True):
    """List the sizes of the database, its tables and its projects, and their growth in a day and in a week."""

    function = "server_sizes"
    reads = True
    scope = Scope.ALL
    route = "/v1/server/sizes"
