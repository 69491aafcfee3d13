"""Errors: one tree, with the SQLSTATE, HTTP status and exit code of each class in one table.

Every error that leaves the program is one of these. The database raises SQLSTATEs of class ``ZC``, Python raises the classes
below, the HTTP API responds with ``http_status``, and the command line exits with ``exit_code``. An exception outside this tree
is a bug; the command line then exits with 1.

| class               | SQLSTATE | HTTP | exit | the caller should                                              |
|---------------------|----------|------|------|----------------------------------------------------------------|
| InvalidArgument     | ZC1xx    | 422  | 5    | correct the value; the hint says how                           |
| NotFound            | ZC2xx    | 404  | 3    | create it first, or accept that it is gone                     |
| Conflict            | ZC3xx    | 409  | 4    | read it and decide again                                       |
| WaitTimedOut        | ZC4xx    | 408  | 8    | try again, or do without                                       |
| Unauthenticated     | ZC5xx    | 401  | 5    | present a valid token                                          |
| SchemaMismatch      | ZC6xx    | 503  | 6    | apply the schema, or run the program version that fits it      |
| DatabaseUnavailable | 08, 57P… | 503  | 7    | try again later; a write without a response may have succeeded |
| PermissionDenied    | 42501    | 403  | 5    | ask an administrator for a role that may                       |
| ConfigurationError  | -        | 500  | 78   | correct the setting that the message names                     |
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ConfigurationError",
    "Conflict",
    "CoordinatorError",
    "DatabaseUnavailable",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "SchemaMismatch",
    "Unauthenticated",
    "WaitTimedOut",
    "from_sqlstate",
]


class CoordinatorError(Exception):
    """An error with a message for people, a hint where the caller can act, and a stable code for programs.

    ``code`` is the SQLSTATE. ``detail`` is a JSON text or a sentence with the facts (present version, present holder).
    """

    sqlstate: ClassVar[str] = "XX000"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    name: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, hint: str | None = None, detail: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        self.code = code or self.sqlstate


class InvalidArgument(CoordinatorError):
    """A value is malformed or over a limit. Nothing was changed."""

    sqlstate, http_status, exit_code, name = "ZC100", 422, 5, "invalid-argument"


class NotFound(CoordinatorError):
    """The named thing does not exist, or no longer exists."""

    sqlstate, http_status, exit_code, name = "ZC200", 404, 3, "not-found"


class Conflict(CoordinatorError):
    """Something else came first: another version, another holder, the same name. Nothing was changed."""

    sqlstate, http_status, exit_code, name = "ZC300", 409, 4, "conflict"


class WaitTimedOut(CoordinatorError):
    """A wait ended at its deadline."""

    sqlstate, http_status, exit_code, name = "ZC400", 408, 8, "wait-timed-out"


class Unauthenticated(CoordinatorError):
    """The token is missing, unknown, revoked or expired."""

    sqlstate, http_status, exit_code, name = "ZC500", 401, 5, "unauthenticated"


class SchemaMismatch(CoordinatorError):
    """The database's schema does not fit this program."""

    sqlstate, http_status, exit_code, name = "ZC600", 503, 6, "schema-mismatch"


class DatabaseUnavailable(CoordinatorError):
    """The database did not respond. A write may have succeeded."""

    sqlstate, http_status, exit_code, name = "08000", 503, 7, "database-unavailable"


class PermissionDenied(CoordinatorError):
    """The role or token may not do this."""

    sqlstate, http_status, exit_code, name = "42501", 403, 5, "permission-denied"


class ConfigurationError(CoordinatorError):
    """A setting is malformed. This is found before any connection is made."""

    sqlstate, http_status, exit_code, name = "F0000", 500, 78, "configuration-error"


_BY_SQLSTATE_PREFIX: tuple[tuple[str, type[CoordinatorError]], ...] = (
    ("ZC1", InvalidArgument),
    ("ZC2", NotFound),
    ("ZC3", Conflict),
    ("ZC4", WaitTimedOut),
    ("ZC5", Unauthenticated),
    ("ZC6", SchemaMismatch),
    ("40", Conflict),  # rolled back, a deadlock or a failed serialization: run it again
    ("42501", PermissionDenied),
    ("42883", SchemaMismatch),  # undefined function
    ("42P01", SchemaMismatch),  # undefined table
    ("3F000", SchemaMismatch),  # no schema coordinator
    ("22", InvalidArgument),  # data exception: NUL in text, broken JSON, out of range
    ("25006", DatabaseUnavailable),  # read-only: a primary that was demoted
    ("08", DatabaseUnavailable),
    ("28", DatabaseUnavailable),  # wrong role or password
    ("3D000", DatabaseUnavailable),  # no such database
    ("53", DatabaseUnavailable),  # too many connections, disk full
    ("57", DatabaseUnavailable),  # shutting down, terminated, cancelled
)


def from_sqlstate(sqlstate: str) -> type[CoordinatorError]:
    """Return the class for an SQLSTATE; ``CoordinatorError`` itself if no class fits."""
    for prefix, error in _BY_SQLSTATE_PREFIX:
        if sqlstate.startswith(prefix):
            return error
    return CoordinatorError
