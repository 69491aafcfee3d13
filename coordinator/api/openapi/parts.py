"""Parts that the descriptions of operations share: parameters, headers, responses and their meanings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordinator.api.problems import MEDIA_TYPE

__all__ = [
    "AT_LEAST",
    "DURATION",
    "REF",
    "REQUEST_HEADERS",
    "RESPONSE_HEADERS",
    "header",
    "header_refs",
    "object_of",
    "parameter",
    "problems",
    "responses",
]

REF = "#/components/schemas/{name}"
DURATION = {"type": "string", "examples": ["30s"]}
REQUEST_HEADERS = {
    "traceparent": "The trace (W3C Trace Context) that the request continues; one that is not valid is ignored.",
    "tracestate": "Data of tracers; ignored without a traceparent, and if it exceeds 512 characters.",
    "X-Request-ID": "1 to 128 letters, digits or ._~:/+=@-: the id of the request in the log; without a valid one, the daemon makes one.",
}
RESPONSE_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Accept-Ranges": ("bytes: ranges of the content can be read.", {"type": "string"}),
    "Content-Disposition": ("The name under which to save the content.", {"type": "string"}),
    "Content-Range": ("The range of bytes in the response; after 416, the total number of bytes.", {"type": "string"}),
    "ETag": ("The version.", {"type": "string"}),
    "Event-Cursor": ("The cursor of the event log at which the snapshot was taken.", {"type": "string"}),
    "Idempotency-Replayed": (
        "true: this is the recorded response of an earlier request with the same Idempotency-Key.",
        {"type": "string", "enum": ["true"]},
    ),
    "Position": ("The position of the write, for at_least; absent if it changed nothing.", {"type": "string"}),
    "Replica-Lag": (
        "Maximum lag, in seconds, of the replica that served the response; absent if the primary served it.",
        {"type": "number"},
    ),
    "Repr-Digest": ("The SHA-256 of the whole content, as sha-256=:BASE64:.", {"type": "string"}),
    "Retry-After": ("Seconds after which to try again.", {"type": "integer"}),
    "WWW-Authenticate": ("Bearer, and why the token is not sufficient.", {"type": "string"}),
    "X-Request-ID": ("The id of the request, which lines of the log have.", {"type": "string"}),
}
_MEANINGS = {
    206: "The bytes of the range.",
    304: "The version is still that of If-None-Match.",
    400: "The request cannot be read.",
    401: "The token is missing or not valid.",
    403: "The token may not do this.",
    404: "The object does not exist.",
    408: "The wait timed out.",
    409: "Another client was first; read again and decide again.",
    412: "The version is not the one that If-Match or If-None-Match requires.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    416: "The range begins beyond the end.",
    422: "A value is malformed or exceeds a limit; nothing was changed.",
    500: "A bug of the daemon.",
    503: "Overloaded, shutting down, or without its database; try again after Retry-After.",
}
_OF_STATUS = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    416: ("Content-Range",),
    503: ("Retry-After",),
}
_FAILED = 400
_UNCHANGED = ("ETag", "Event-Cursor")  # what 304 has of 200
_FAILED = 400
_UNCHANGED = ("ETag", "Event-Cursor")  # what 304 has of 200


def parameter(name: str, text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe an optional parameter of a query, by default a text."""
    schema = schema or {"type": "string"}
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def header(name: str, text: str) -> dict[str, Any]:
    """Describe an optional header of a request."""
    return {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def object_of(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has all these properties."""
    return {"type": "object", "required": sorted(properties), "properties": properties}


AT_LEAST = parameter("at_least", "A position: wait until the response includes it.")


def responses(
    schema: Any, headers: Iterable[str], errors: Iterable[int], media_type: str = "application/json"
) -> dict[str, Any]:
    """Describe the responses of an operation: success with these headers, and errors."""
    content = {media_type: {"schema": schema}}
    unchanged = [name for name in headers if name in _UNCHANGED]
    own = {
        200: {"description": "Success.", "headers": header_refs(headers), "content": content},
        206: {"description": _MEANINGS[206], "headers": header_refs((*headers, "Content-Range")), "content": content},
        304: {"description": _MEANINGS[304], "headers": header_refs(unchanged)},
    }
    return {
        str(status): own.get(status, {"$ref": f"#/components/responses/{status}"}) for status in sorted((200, *errors))
    }


def problems() -> dict[str, Any]:
    """Describe the responses that operations share."""
    content = {MEDIA_TYPE: {"schema": {"$ref": REF.format(name="Problem")}}}
    return {
        str(status): {"description": text, "headers": header_refs(_OF_STATUS.get(status, ())), "content": content}
        for status, text in _MEANINGS.items()
        if status >= _FAILED
    }


def header_refs(names: Iterable[str]) -> dict[str, Any]:
    """Refer to the descriptions of headers of a response."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, "X-Request-ID")}
