"""Errors as HTTP responses: problem+json (RFC 9457), derived only from the error tree.

Programs read ``type``, which is stable, and ``code``, the SQLSTATE (class ``ZH`` for errors that only HTTP has). People
read ``detail`` and ``hint``. ``facts`` describes the current state: the current version, the current holder. Any other
exception is a bug: it is logged, and the response is 500 without details. Denied requests are also logged, since they
have no event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import msgspec
import structlog

from coordinator import operations
from coordinator.api.response import Response
from coordinator.errors import Conflict, CoordinatorError, PermissionDenied, Unauthenticated
from coordinator.model.operation import Json
from coordinator.model.route import route_of

__all__ = [
    "MEDIA_TYPE",
    "ForeignRequest",
    "HeadTooLarge",
    "MalformedRequest",
    "MethodNotAllowed",
    "NoRoute",
    "Overloaded",
    "PreconditionFailed",
    "Problem",
    "RangeNotSatisfiable",
    "RequestTimedOut",
    "TooLarge",
    "UnsupportedMediaType",
    "problem_response",
]

MEDIA_TYPE = "application/problem+json"

_COMMAND = re.compile(r'"coordinator (?:--[a-z-]+ \S+ )*([a-z]+) ([a-z]+)[^"]*"')

log = structlog.get_logger()


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong, and what to do about it (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    facts: Json = None


class MalformedRequest(CoordinatorError):
    """The request is not valid HTTP or JSON."""

    sqlstate, http_status, exit_code, name = "ZH400", 400, 5, "malformed-request"


class NoRoute(CoordinatorError):
    """No route has this path."""

    sqlstate, http_status, exit_code, name = "ZH404", 404, 3, "no-route"

    def __init__(self, path: str, hint: str = "The API is below /v1; see /schema.") -> None:
        super().__init__(f"there is nothing at {path[:200]}", hint=hint)


class MethodNotAllowed(CoordinatorError):
    """The path has other methods, which the header ``Allow`` lists."""

    sqlstate, http_status, exit_code, name = "ZH405", 405, 5, "method-not-allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not possible here", hint=f"Use {self.allow}.")


class ForeignRequest(PermissionDenied):
    """The request is not meant for this daemon, or comes from a page of another site."""


class RequestTimedOut(CoordinatorError):
    """The request did not arrive in time."""

    sqlstate, http_status, exit_code, name = "ZH408", 408, 8, "request-timed-out"


class PreconditionFailed(Conflict):
    """The version is not the one that ``If-Match`` or ``If-None-Match`` requires."""

    http_status, name = 412, "precondition-failed"


def unmet(conflict: Conflict) -> Conflict:
    """Return the error for a conflict if a header contains the expected version: 412 if that is the cause, otherwise the conflict."""
    if conflict.code != "ZC301":
        return conflict
    return PreconditionFailed(conflict.message, hint=conflict.hint, detail=conflict.detail, code=conflict.code)


class TooLarge(CoordinatorError):
    """The body exceeds the limit."""

    sqlstate, http_status, exit_code, name = "ZH413", 413, 5, "too-large"


class RangeNotSatisfiable(CoordinatorError):
    """The range lies beyond the end."""

    sqlstate, http_status, exit_code, name = "ZH416", 416, 5, "range-not-satisfiable"

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message, hint="Ask for bytes before its end.")
        self.size = size


class UnsupportedMediaType(CoordinatorError):
    """The body is not declared as JSON."""

    sqlstate, http_status, exit_code, name = "ZH415", 415, 5, "unsupported-media-type"


class HeadTooLarge(CoordinatorError):
    """The request line and headers exceed the limit."""

    sqlstate, http_status, exit_code, name = "ZH431", 431, 5, "head-too-large"


class Overloaded(CoordinatorError):
    """The daemon is at one of its limits; nothing was done."""

    sqlstate, http_status, exit_code, name = "ZH503", 503, 7, "overloaded"


def problem_response(error: Exception) -> Response:
    """Describe an error; log it if it is a bug, or if the caller may not do this."""
    if not isinstance(error, CoordinatorError):
        log.error("request.failed", error=repr(error), exc_info=error)
        error = CoordinatorError(
            "the daemon failed to handle this request", hint="This is a bug; see the daemon's log."
        )
    elif error.http_status == CoordinatorError.http_status:
        log.error("request.failed", error=error.message, code=error.code)
    elif isinstance(error, Unauthenticated | PermissionDenied):
        log.info("request.refused", error=error.message, code=error.code)
    problem = Problem(
        type=f"urn:coordinator:{error.name}",
        title=error.name.replace("-", " ").capitalize(),
        status=error.http_status,
        detail=error.message,
        code=error.code,
        hint=None if error.hint is None else _COMMAND.sub(_with_route, error.hint),
        facts=_facts(error.detail),
    )
    return Response(problem.status, msgspec.json.encode(problem), _headers(error), MEDIA_TYPE.encode())


def _with_route(command: re.Match[str]) -> str:
    """Add the equivalent HTTP request to a command in a hint."""
    route = _routes().get(f"{command[1]}_{command[2]}")
    return f"{command[0]} or {route}" if route else command[0]


@cache
def _routes() -> dict[str, str]:
    routes = {kind.function: route_of(kind) for kind in operations.every() if not kind.internal}
    return {function: f"{route.method} {route.path}" for function, route in routes.items()}


def _headers(error: CoordinatorError) -> list[tuple[bytes, bytes]]:
    if isinstance(error, ForeignRequest | TooLarge):
        return [(b"connection", b"close")]
    if isinstance(error, RangeNotSatisfiable):
        return [(b"content-range", b"bytes */%d" % error.size)]
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", error.allow.encode())]
    if isinstance(error, Unauthenticated):  # RFC 6750: no reason if the request has no token
        reason = b"" if error.code == Unauthenticated.sqlstate else b', error="invalid_token"'
        return [(b"www-authenticate", b'Bearer realm="coordinator"' + reason)]
    if isinstance(error, PermissionDenied):
        return [(b"www-authenticate", b'Bearer realm="coordinator", error="insufficient_scope"')]
    if error.http_status == Overloaded.http_status:
        return [(b"retry-after", b"1")]
    return []


def _facts(detail: str | None) -> Json:
    try:
        return None if detail is None else msgspec.json.decode(detail, type=Json)
    except msgspec.DecodeError:
        return detail
