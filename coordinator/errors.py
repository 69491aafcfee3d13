"""The tree of errors: each has an SQLSTATE, an HTTP status and an exit code.

Every error that leaves the program is one of these. The database raises class ``ZC`` (``ZC1xx`` invalid, ``ZC2xx`` not
found, ``ZC3xx`` conflict or lost, ``ZC4xx`` wait timed out, ``ZC5xx`` no valid token, ``ZC6xx`` schema, ``ZC7xx`` event log, ``ZC8xx`` object
store, ``ZC9xx`` backup); Python raises
the classes below. HTTP responds with ``http_status``, and the command line exits with ``exit_code``. An exception outside
the tree is a bug and exits with 1. ``docs/errors.md`` lists the tree.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BY_SQLSTATE_PREFIX",
    "BackupFailed",
    "ConfigurationError",
    "Conflict",
    "CoordinatorError",
    "DatabaseBusy",
    "DatabaseUnavailable",
    "InvalidArgument",
    "LogFull",
    "NotFound",
    "PermissionDenied",
    "SchemaMismatch",
    "ServerBehind",
    "StoreUnavailable",
    "Unauthenticated",
    "WaitTimedOut",
    "from_sqlstate",
]


class CoordinatorError(Exception):
    """An error with a message for people, a hint where the caller can act, and a stable code for programs.

    ``code`` is the SQLSTATE. ``detail`` is JSON text or a sentence with the facts (current version, current holder).
    ``remedy`` says what the caller should do.
    """

    sqlstate: ClassVar[str] = "XX000"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    name: ClassVar[str] = "internal"
    remedy: ClassVar[str] = "Report the bug."

    def __init__(
        self, message: str, *, hint: str | None = None, detail: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # so that a traceback has it
        self.detail = detail
        self.code = code or self.sqlstate


class InvalidArgument(CoordinatorError):
    """A value is malformed or over a limit. Nothing was changed."""

    sqlstate, http_status, exit_code, name = "ZC100", 422, 5, "invalid-argument"
    remedy = "Correct the value; the hint says how."


class NotFound(CoordinatorError):
    """The named thing does not exist, or no longer exists."""

    sqlstate, http_status, exit_code, name = "ZC200", 404, 3, "not-found"
    remedy = "Create it first, or treat it as gone."


class Conflict(CoordinatorError):
    """Something else came first: another version, another holder, the same name. Nothing was changed."""

    sqlstate, http_status, exit_code, name = "ZC300", 409, 4, "conflict"
    remedy = "Read again and decide again."


class WaitTimedOut(CoordinatorError):
    """A wait reached its deadline."""

    sqlstate, http_status, exit_code, name = "ZC400", 408, 8, "wait-timed-out"
    remedy = "Try again, or do without."


class Unauthenticated(CoordinatorError):
    """The token is missing, unknown, revoked or expired."""

    sqlstate, http_status, exit_code, name = "ZC500", 401, 5, "unauthenticated"
    remedy = "Present a valid token."


class SchemaMismatch(CoordinatorError):
    """The database's schema does not fit this program."""

    sqlstate, http_status, exit_code, name = "ZC600", 503, 6, "schema-mismatch"
    remedy = "Apply the schema, or run the version that fits it."


class DatabaseUnavailable(CoordinatorError):
    """The database did not respond. A write may have succeeded."""

    sqlstate, http_status, exit_code, name = "08000", 503, 7, "database-unavailable"
    remedy = "Try again later; before repeating a write, read whether it succeeded."


class DatabaseBusy(DatabaseUnavailable):
    """Another transaction holds what the call needs. Nothing was changed."""

    sqlstate, name = "55P03", "database-busy"
    remedy = "Try again; if it persists, end the transaction that the hint names."


class ServerBehind(DatabaseUnavailable):
    """The server has not reached the position of the caller: it is a standby or a former primary. Nothing was lost or changed."""

    sqlstate, name = "ZC710", "server-behind"
    remedy = "Try again with the same cursor; if it persists, give the address of the current primary."


class LogFull(CoordinatorError):
    """The event log has no partition for another event, so nothing can change. Nothing was changed."""

    sqlstate, http_status, exit_code, name = "ZC700", 503, 7, "log-full"
    remedy = "Start a daemon: the leader creates partitions. Or call event_extend."


class StoreUnavailable(CoordinatorError):
    """An object store has the bytes, and this process did not get them. Nothing was changed."""

    sqlstate, http_status, exit_code, name = "ZC800", 503, 7, "store-unavailable"
    remedy = "Try again later; if it persists, follow the hint."


class PermissionDenied(CoordinatorError):
    """The role or token lacks the right."""

    sqlstate, http_status, exit_code, name = "42501", 403, 5, "permission-denied"
    remedy = "Ask an administrator for a role that may."


class ConfigurationError(CoordinatorError):
    """A setting is malformed. This is found before any connection is made."""

    sqlstate, http_status, exit_code, name = "F0000", 500, 78, "configuration-error"
    remedy = "Correct the setting that the message names."


class BackupFailed(CoordinatorError):
    """A backup could not be made or restored, is damaged, or differs from what it was made of. No other backup was changed."""

    sqlstate, http_status, exit_code, name = "ZC900", 500, 9, "backup-failed"
    remedy = "Follow the hint; until then, rely on another backup."


BY_SQLSTATE_PREFIX: tuple[tuple[str, type[CoordinatorError]], ...] = (
    ("ZC1", InvalidArgument),
    ("ZC2", NotFound),
    ("ZC3", Conflict),
    ("ZC4", WaitTimedOut),
    ("ZC5", Unauthenticated),
    ("ZC6", SchemaMismatch),
    ("ZC710", ServerBehind),
    ("ZC7", LogFull),
    ("ZC8", StoreUnavailable),
    ("ZC9", BackupFailed),
    ("40P01", DatabaseBusy),  # a deadlock; calls have none among themselves, but with a change of the schema
    ("40", Conflict),  # rolled back, or a failed serialization: run it again
    ("42501", PermissionDenied),
    ("42703", SchemaMismatch),  # undefined column
    ("42883", SchemaMismatch),  # undefined function
    ("42P01", SchemaMismatch),  # undefined table
    ("3F000", SchemaMismatch),  # no schema coordinator
    ("22", InvalidArgument),  # data exception: NUL in text, broken JSON, out of range
    ("54", InvalidArgument),  # program limit exceeded: JSON too deep for the parser, text too long
    ("25006", DatabaseUnavailable),  # read-only: a primary that was demoted
    ("08", DatabaseUnavailable),
    ("28", DatabaseUnavailable),  # wrong role or password
    ("3D000", DatabaseUnavailable),  # no such database
    ("55P03", DatabaseBusy),  # the wait for a lock was too long
    ("55000", DatabaseUnavailable),  # the database accepts no connections: allow_connections is false
    ("53", DatabaseUnavailable),  # too many connections, disk full
    ("57", DatabaseUnavailable),  # shutting down, terminated, cancelled
)


def from_sqlstate(sqlstate: str) -> type[CoordinatorError]:
    """Return the class for an SQLSTATE; ``CoordinatorError`` itself if no class fits."""
    for prefix, error in BY_SQLSTATE_PREFIX:
        if sqlstate.startswith(prefix):
            return error
    return CoordinatorError
