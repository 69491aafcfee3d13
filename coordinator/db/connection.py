"""Connections: how each is opened, and how asyncpg's errors become ours.

msgspec encodes and decodes JSON; a value that it cannot decode, or that is larger than any event, is replaced by a placeholder
(see ``model.json``), so that one bad row never hides the others. A connection can also leave JSON encoded (``raw_json``), for those
who only pass it on: as Python's objects a value takes up to thirty times its text. Times are UTC, and a session keeps nothing that a pooler could pass on to another client.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import msgspec

from coordinator.errors import (
    ConfigurationError,
    CoordinatorError,
    DatabaseUnavailable,
    InvalidArgument,
    SchemaMismatch,
    from_sqlstate,
)
from coordinator.model.json import encode, fault_of, readable, unreadable
from coordinator.telemetry import metrics

__all__ = ["APPLICATION_NAME", "connect", "mapped_errors", "prepare"]

APPLICATION_NAME = "coordinator"
CONNECT_TIMEOUT_S = 10.0

_UNAVAILABLE_HINT = "Check that it runs and that the address is right. A write may or may not have succeeded."
JSON_MAX_BYTES = 2**21  # twice what the database lets an event have
SURELY_READABLE = 300  # bytes in which no number is too large and nothing nests too deeply
_PLACEHOLDER = b'\x01{"unreadable"'


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + encode(value)


def _decode_jsonb(value: bytes) -> object:
    found: object = readable(memoryview(value)[1:]) if len(value) <= JSON_MAX_BYTES else unreadable("json")
    if fault := fault_of(found):
        metrics.VALUE_UNREADABLE.labels(fault).inc()
    return found


def _check_jsonb(value: bytes) -> object:
    """Return the JSON as it is, or what stands for it."""
    if len(value) > SURELY_READABLE or value.startswith(_PLACEHOLDER):
        found = _decode_jsonb(value)
        if fault_of(found):
            return found
    return msgspec.Raw(value[1:])


async def prepare(connection: asyncpg.Connection, *, raw_json: bool = False) -> None:
    """Register our JSON codec on a new connection."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=_encode_jsonb,
        decoder=_check_jsonb if raw_json else _decode_jsonb,
    )


async def connect(
    dsn: str, *, statement_cache_size: int = 100, call_timeout_s: float = 30.0, raw_json: bool = False
) -> asyncpg.Connection:
    """Open a connection. With ``raw_json``, JSON in results is ``msgspec.Raw``.

    Raises: ``DatabaseUnavailable``; ``ConfigurationError`` for a malformed address.
    """
    with mapped_errors():
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=call_timeout_s,
            statement_cache_size=statement_cache_size,
            server_settings={"application_name": APPLICATION_NAME},
        )
        await prepare(connection, raw_json=raw_json)
        return connection


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn asyncpg's exceptions into those of ``coordinator.errors``; other exceptions pass unchanged."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise from_postgres(error) from error
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise ConfigurationError(
            f"invalid database address: {error.args[0]}", hint=error.hint or "Correct the setting database_url."
        ) from error
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError, RecursionError) as error:
        raise InvalidArgument(
            f"the database cannot store that: {error}", hint="Use valid UTF-8 text and JSON."
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise DatabaseUnavailable(
            f"untrusted certificate of the database: {error.verify_message}",
            hint="Set sslrootcert to the authority; sslmode=verify-full requires a certificate for the host of the address.",
        ) from error
    except ssl.SSLError as error:
        raise DatabaseUnavailable(
            f"no TLS connection to the database: {error}", hint="Check sslmode and the certificates."
        ) from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError, EOFError) as error:
        if isinstance(error.__cause__, InvalidArgument):  # our codec refused the value
            raise error.__cause__ from None
        if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):  # wrong type of value
            raise InvalidArgument(
                f"the database cannot store that: {error}", hint="Use a value of the right type."
            ) from error
        raise DatabaseUnavailable(
            f"no answer from the database: {error or type(error).__name__}",
            hint=_UNAVAILABLE_HINT,
        ) from error


def from_postgres(error: asyncpg.PostgresError) -> CoordinatorError:
    """Map an error by its SQLSTATE. asyncpg does not know our class ZC, and calls its errors fatal."""
    state = error.sqlstate or "XX000"
    kind = from_sqlstate(state)
    message = getattr(error, "message", None) or str(error)
    hint = getattr(error, "hint", None)
    if hint is None and state in ("22021", "22P05"):
        hint = "PostgreSQL cannot store the character NUL in text; encode such data, for example with base64."
    elif state.startswith("54"):  # the server's hint is about its settings
        hint = "Nest JSON at most 64 levels deep, and give smaller values."
    elif kind is SchemaMismatch and not state.startswith("ZC"):  # the server's hint is about casts
        hint = 'Check "coordinator schema status"; apply the schema with "coordinator schema apply".'
    elif state == "26000":  # the prepared statement belongs to another session
        hint = "With a pooler in transaction mode, set COORDINATOR_STATEMENT_CACHE_SIZE=0; see docs/pgbouncer.md."
        kind = ConfigurationError
    elif hint is None and state.startswith(("28", "3D")):
        hint = "Check role, password, database and sslmode in the address."
    elif hint is None and kind is DatabaseUnavailable:  # terminated, shutting down, starting up, full
        hint = _UNAVAILABLE_HINT
    elif hint is None and kind is InvalidArgument:
        hint = "Use values of the right type, and valid UTF-8 text."
    return kind(message, hint=hint, detail=getattr(error, "detail", None), code=state)
