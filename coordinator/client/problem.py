"""Problems as errors: a ``problem+json`` response (RFC 9457) becomes the error from which the server made it."""

from __future__ import annotations

import msgspec

from coordinator.errors import (
    CoordinatorError,
    DatabaseUnavailable,
    InvalidArgument,
    PermissionDenied,
    SchemaMismatch,
    Unauthenticated,
    from_sqlstate,
)
from coordinator.model.operation import Json

__all__ = ["error_of"]

PREFIX = "urn:coordinator:"

# Problems that only HTTP has, by code, with the error that tells the caller what to do.
_OF_HTTP: dict[str, type[CoordinatorError]] = {
    "ZH404": SchemaMismatch,
    "ZH405": SchemaMismatch,
    "ZH408": DatabaseUnavailable,
    "ZH503": DatabaseUnavailable,
}
_OF_STATUS: dict[int, type[CoordinatorError]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: SchemaMismatch,
    408: DatabaseUnavailable,
    429: DatabaseUnavailable,
    502: DatabaseUnavailable,
    503: DatabaseUnavailable,
    504: DatabaseUnavailable,
}


class _ReceivedProblem(msgspec.Struct):
    type: str
    detail: str
    code: str
    hint: str | None = None
    facts: Json = None


def error_of(status: int, body: bytes) -> CoordinatorError:
    """Return the error for an unsuccessful response."""
    try:
        problem = msgspec.json.decode(body, type=_ReceivedProblem)
    except msgspec.DecodeError:
        kind = _OF_STATUS.get(status, CoordinatorError)
        return kind(
            f"the response has status {status} and does not come from a coordinator",
            hint="Is the address correct? Is there a proxy in between?",
        )
    facts = problem.facts
    detail = facts if facts is None or isinstance(facts, str) else msgspec.json.encode(facts).decode()
    kind = _kind(problem)
    hint = problem.hint
    if kind is SchemaMismatch and problem.code.startswith("ZH"):
        hint = "Is the server of the same version as this program, and is the address correct?"
    return kind(problem.detail, hint=hint, detail=detail, code=problem.code)


def _kind(problem: _ReceivedProblem) -> type[CoordinatorError]:
    if problem.code in _OF_HTTP:
        return _OF_HTTP[problem.code]
    if problem.code.startswith("ZH"):
        return InvalidArgument
    kind = from_sqlstate(problem.code)
    if kind is not CoordinatorError:
        return kind
    name = problem.type.removeprefix(PREFIX)
    return next((known for known in CoordinatorError.__subclasses__() if known.name == name), CoordinatorError)
