"""Errors as HTTP answers: problem+json (RFC 9457), from the one tree of errors, and nothing else.

``type`` is stable and for programs, ``code`` the SQLSTATE (class ``ZH`` for what only HTTP knows), ``detail`` and ``hint``
are for people, ``facts`` holds what is the case (the present version, the present holder). What is not in the tree is a
bug: it is logged, and answered with 500 without any detail.
"""

from __future__ import annotations

from typing import Any

import msgspec
import structlog

from coordinator.errors import Conflict, CoordinatorError, PermissionDenied, Unauthenticated
from coordinator.model.operation import Json

__all__ = [
    "MEDIA_TYPE",
    "MalformedRequest",
    "MethodNotAllowed",
    "NoRoute",
    "Overloaded",
    "PreconditionFailed",
    "Problem",
    "TooLarge",
    "UnsupportedMediaType",
    "headers_of",
    "problem_of",
]

MEDIA_TYPE = "application/problem+json"

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
    """The request is no HTTP or JSON that can be read."""

    sqlstate, http_status, exit_code, name = "ZH400", 400, 5, "malformed-request"


class NoRoute(CoordinatorError):
    """There is nothing at this path."""

    sqlstate, http_status, exit_code, name = "ZH404", 404, 3, "no-route"


class MethodNotAllowed(CoordinatorError):
    """The path has other methods; ``allow`` names them."""

    sqlstate, http_status, exit_code, name = "ZH405", 405, 5, "method-not-allowed"

    def __init__(self, message: str, *, allow: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.allow = allow


class PreconditionFailed(Conflict):
    """The version is not the one that ``If-Match`` or ``If-None-Match`` asks for."""

    http_status, name = 412, "precondition-failed"


class TooLarge(CoordinatorError):
    """The body is over the limit."""

    sqlstate, http_status, exit_code, name = "ZH413", 413, 5, "too-large"


class UnsupportedMediaType(CoordinatorError):
    """The body is not said to be JSON."""

    sqlstate, http_status, exit_code, name = "ZH415", 415, 5, "unsupported-media-type"


class Overloaded(CoordinatorError):
    """A limit of the daemon is reached; nothing was done."""

    sqlstate, http_status, exit_code, name = "ZH503", 503, 7, "overloaded"


def problem_of(error: Exception) -> Problem:
    """Describe an error; logs it if it is a bug."""
    if not isinstance(error, CoordinatorError):
        log.error("request.failed", error=repr(error), exc_info=error)
        error = CoordinatorError("the daemon failed at this request", hint="This is a bug; its log says more.")
    elif error.http_status == CoordinatorError.http_status:
        log.error("request.failed", error=error.message, code=error.code)
    return Problem(
        type=f"urn:coordinator:{error.name}",
        title=error.name.replace("-", " ").capitalize(),
        status=error.http_status,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        facts=_facts(error.detail),
    )


def headers_of(error: Exception) -> list[tuple[bytes, bytes]]:
    """Give the headers that belong to an error."""
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", error.allow.encode())]
    if isinstance(error, Unauthenticated):  # RFC 6750: no reason where there was no token
        reason = b"" if error.code == Unauthenticated.sqlstate else b', error="invalid_token"'
        return [(b"www-authenticate", b'Bearer realm="coordinator"' + reason)]
    if isinstance(error, PermissionDenied):
        return [(b"www-authenticate", b'Bearer realm="coordinator", error="insufficient_scope"')]
    if isinstance(error, CoordinatorError) and error.http_status == Overloaded.http_status:
        return [(b"retry-after", b"1")]
    return [(b"connection", b"close")] if isinstance(error, TooLarge) else []


def _facts(detail: str | None) -> Json:
    if detail is None:
        return None
    try:
        facts: Any = msgspec.json.decode(detail)
    except msgspec.DecodeError:
        return detail
    return facts  # type: ignore[no-any-return]
