"""Connections: how every one is opened, and how asyncpg's errors become ours.

JSON goes through msgspec, times are UTC, and nothing is left in a session that a pooler could hand to somebody else.
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

__all__ = ["APPLICATION_NAME", "connect", "mapped_errors", "prepare"]

APPLICATION_NAME = "coordinator"
CONNECT_TIMEOUT_S = 10.0

_UNAVAILABLE_HINT = (
    "Is it running, and is the address right? A call that changes something may or may not have been done."
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + _encode(value)


def _decode_jsonb(value: bytes) -> object:
    return _decode(memoryview(value)[1:])


async def prepare(connection: asyncpg.Connection) -> None:
    """Teach a new connection our JSON."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )


async def connect(dsn: str, *, statement_cache_size: int = 100, call_timeout_s: float = 30.0) -> asyncpg.Connection:
    """Open one connection of its own.

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
        await prepare(connection)
        return connection


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn what asyncpg raises into the tree of ``coordinator.errors``; what has no place there passes."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise from_postgres(error) from error
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise ConfigurationError(
            f"the database's address: {error.args[0]}", hint=error.hint or "Correct the setting database_url."
        ) from error
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError) as error:
        raise InvalidArgument(
            f"the database cannot store that: {error}", hint="Give valid UTF-8 text and JSON."
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise DatabaseUnavailable(
            f"the database's certificate is not accepted: {error.verify_message}",
            hint="sslrootcert names whom to trust; with sslmode=verify-full the certificate must be for the address's host.",
        ) from error
    except ssl.SSLError as error:
        raise DatabaseUnavailable(
            f"no TLS connection to the database: {error}", hint="Check sslmode and certificates."
        ) from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError, EOFError) as error:
        if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):  # a value of the wrong type
            raise InvalidArgument(
                f"the database cannot store that: {error}", hint="Give a value of the right type."
            ) from error
        raise DatabaseUnavailable(
            f"no answer from the database: {error or type(error).__name__}",
            hint=_UNAVAILABLE_HINT,
        ) from error


def from_postgres(error: asyncpg.PostgresError) -> CoordinatorError:
    """Map by SQLSTATE, in this one place. asyncpg does not know our class ZC and calls its errors fatal."""
    state = error.sqlstate or "XX000"
    kind = from_sqlstate(state)
    message = getattr(error, "message", None) or str(error)
    hint = getattr(error, "hint", None)
    if hint is None and state in ("22021", "22P05"):
        hint = "PostgreSQL's text cannot hold the character NUL; encode such data, with base64 for instance."
    elif kind is SchemaMismatch and not state.startswith("ZC"):  # the server's own hint would be about casts
        hint = 'Has the schema been applied here? See "coordinator schema status" and "coordinator schema apply".'
    elif state == "26000":  # the driver's prepared statement is in another session
        hint = "Behind a pooler in transaction mode set COORDINATOR_STATEMENT_CACHE_SIZE=0; see docs/pgbouncer.md."
        kind = ConfigurationError
    elif hint is None and state.startswith(("28", "3D")):
        hint = "Check the database's address: role, password, database and sslmode."
    elif hint is None and kind is DatabaseUnavailable:  # terminated, shutting down, starting up, full
        hint = _UNAVAILABLE_HINT
    elif hint is None and kind is InvalidArgument:
        hint = "Give a value of the right type, and text that is valid UTF-8."
    return kind(message, hint=hint, detail=getattr(error, "detail", None), code=state)
