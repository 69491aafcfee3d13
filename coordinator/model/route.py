"""Routes: the HTTP method and path of an operation, derived from the operation alone, for server and client.

A write is ``POST /v1/<nouns>/<verb>`` with its parameters in a JSON body. A read is ``GET /v1/<nouns>`` if its verb is
list, otherwise ``GET /v1/<nouns>/<verb>``, with its parameters in the query. The operation's ``route`` can set another
path.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec

from coordinator.model.operation import Operation

__all__ = ["STREAM_PATH", "Route", "plural", "route_of"]

STREAM_PATH = "/v1/events/stream"


class Route(msgspec.Struct, frozen=True):
    """Method and path. ``parameter`` is the name in braces at the end of the path; it takes the rest of the path."""

    method: Literal["GET", "POST"]
    path: str
    parameter: str | None


def plural(noun: str) -> str:
    """Return the plural of a noun, which is used in paths and as an attribute of the client."""
    if noun == "knowledge":
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


@cache
def route_of(operation: type[Operation[Any]]) -> Route:
    """Return the route of an operation."""
    noun, _, verb = operation.function.rpartition("_")
    path = operation.route
    if path is None:
        nouns = plural(noun)
        path = f"/v1/{nouns}" if operation.reads and verb == "list" else f"/v1/{nouns}/{verb}"
    return Route("GET" if operation.reads else "POST", path, path.partition("{")[2].rstrip("}") or None)
