"""Routes: the HTTP method and path of an operation, derived from the operation alone, for server and client.

A write is ``POST /v1/<nouns>/<verb>`` with its parameters in a JSON body. A read is ``GET /v1/<nouns>`` if its verb is list,
otherwise ``GET /v1/<nouns>/<verb>``. Its parameters are in the query. The operation's ``route`` may name another path.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec

from coordinator.model.operation import Operation

__all__ = ["STREAM_PATH", "Route", "route_of"]

STREAM_PATH = "/v1/events/stream"


class Route(msgspec.Struct, frozen=True):
    """Method and path. ``parameter`` is the name in braces at the end of the path; it takes the rest of the path."""

    method: Literal["GET", "POST"]
    path: str
    parameter: str | None


@cache
def route_of(operation: type[Operation[Any]]) -> Route:
    """Return the route of an operation."""
    noun, _, verb = operation.function.rpartition("_")
    path = operation.route
    if path is None:
        path = f"/v1/{noun}s" if operation.reads and verb == "list" else f"/v1/{noun}s/{verb}"
    return Route("GET" if operation.reads else "POST", path, path.partition("{")[2].rstrip("}") or None)
