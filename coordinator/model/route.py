"""Routes: where an operation is on HTTP, told from the operation alone; for those who serve it and those who call it.

A write is ``POST /v1/<nouns>/<verb>`` with its parameters as a JSON body. A read is ``GET /v1/<nouns>`` if its verb is
list, else ``GET /v1/<nouns>/<verb>``, unless the operation says otherwise by ``route``; its parameters are the query's.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec

from coordinator.model.operation import Operation

__all__ = ["STREAM_PATH", "Route", "route_of"]

STREAM_PATH = "/v1/events/stream"


class Route(msgspec.Struct, frozen=True):
    """Method and path. ``parameter``: the name in braces at the path's end; it takes all that is left."""

    method: Literal["GET", "POST"]
    path: str
    parameter: str | None


@cache
def route_of(operation: type[Operation[Any]]) -> Route:
    """Tell where an operation is."""
    noun, _, verb = operation.function.rpartition("_")
    path = operation.route
    if path is None:
        path = f"/v1/{noun}s" if operation.reads and verb == "list" else f"/v1/{noun}s/{verb}"
    return Route("GET" if operation.reads else "POST", path, path.partition("{")[2].rstrip("}") or None)
