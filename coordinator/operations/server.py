"""PostgreSQL as an operator sees it."""

from __future__ import annotations

from coordinator.model.operation import Operation, Scope
from coordinator.model.server import ServerCalls, ServerSize

__all__ = ["ListCalls", "ListSizes"]


class ListCalls(Operation[list[ServerCalls]], frozen=True, kw_only=True):
    """List calls by function: how many run, for how long, and how many ended, in which time."""

    function = "server_calls"
    reads = True
    scope = Scope.ALL
    route = "/v1/server/calls"


class ListSizes(Operation[list[ServerSize]], frozen=True, kw_only=True):
    """List how large the database, its tables and its projects are, and how much they grew in a day and in a week."""

    function = "server_sizes"
    reads = True
    scope = Scope.ALL
    route = "/v1/server/sizes"
