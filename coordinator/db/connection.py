"""Connections: how they are opened, and how asyncpg's errors are mapped.

msgspec encodes and decodes JSON. A value that it cannot decode, or that is larger than any event, is replaced by a
placeholder (see ``model.json``), so that one bad row never hides the others. A connection can also leave JSON encoded
(``raw_json``) for callers that only pass it on: as Python objects, a value takes up to thirty times the size of its
text. Times are UTC. A session keeps no state that a pooler could pass on to another client.

Whatever the database or the role sets for its sessions, connections use the values in ``PINNED``. They are parameters
of the startup packet, which need no round trip. A wait for another transaction ends after ``LOCK_WAIT_S``, and a
statement ends shortly before the caller stops waiting, so that the server reports the reason. The server cancels a
statement whose connection is closed.

A pooler in transaction mode refuses such parameters. Then the connection is opened without them, and the settings that
affect the result of a call are compared. Functions limit their own waits for locks, and the caller cancels a call that
takes too long.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import asyncpg
import msgspec

from coordinator.config import current
from coordinator.errors import (
    ConfigurationError,
    CoordinatorError,
    DatabaseBusy,
    DatabaseUnavailable,
    InvalidArgument,
    SchemaMismatch,
    ServerBehind,
    from_sqlstate,
)
from coordinator.model.address import hosts_apart
from coordinator.model.json import encode, fault_of, readable, unreadable

__all__ = [
    "APPLICATION_NAME",
    "CHECK_S",
    "CONNECT_TIMEOUT_S",
    "LOST",
    "NO_ROOM",
    "UNAVAILABLE_HINT",
    "age_limit_s",
    "answers",
    "connect",
    "from_postgres",
    "mapped_errors",
    "prepare",
    "retire",
]

APPLICATION_NAME = "coordinator"
# Errors of the driver on a lost connection, besides the server's final error. It is InternalClientError if the
# connection is lost between two steps of a statement.
LOST = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError, EOFError, asyncpg.PostgresError)
NO_ROOM = "53"  # class of SQLSTATEs: too many connections, among others
CONNECT_TIMEOUT_S = 10.0
NEXT_HOST_S = 0.5  # delay before the next host of an address is tried as well
# Errors after which another host may work: nobody listens, the server starts or stops, it is a standby, or a former primary.
NEXT_HOST = (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched, ServerBehind)
CHECK_S = 2.0  # for a ping
RETIRE_S = 2.0  # for the server to confirm that a call was cancelled
LOCK_WAIT_S = 1.0
STATEMENT_SHARE = 0.9  # of the time that the caller waits

# Settings that functions and callers depend on, and settings that could end a session between two calls.
PINNED = {
    "coordinator.pinned": "on",  # shows that the parameters were not ignored
    "array_nulls": "on",
    "backslash_quote": "safe_encoding",
    "client_connection_check_interval": "2s",
    "datestyle": "ISO, MDY",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "exit_on_error": "off",
    "idle_in_transaction_session_timeout": "1min",
    "idle_session_timeout": "0",
    "intervalstyle": "postgres",
    "jit": "off",  # functions disable plans by their cost, which then looks high enough for JIT: work_due took 3 s instead of 20 ms
    "plpgsql.extra_errors": "none",
    "plpgsql.extra_warnings": "none",
    "row_security": "on",
    "search_path": "public",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "transform_null_equals": "off",
}
# Only a superuser can pin these, and behind a pooler nothing is pinned, so the ones that affect calls are compared.
DECISIVE = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "exit_on_error": "off",
    "plpgsql.variable_conflict": "error",
    "session_replication_role": "origin",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
}
# The first part pins settings that only some versions have, unless there is a pooler, which would pass them to other clients.
_SETTLE = """
select name, set_config(name, value, false) as found, null as value, null as role, null as database
from (values ('transaction_timeout', '0'), ('restrict_nonsystem_relation_kind', '')) newer (name, value)
where current_setting('coordinator.pinned', true) = 'on' and current_setting(name, true) <> value
union all
select name, current_setting(name, true), value, quote_ident(current_user), quote_ident(current_database())
from unnest($1::text[], $2::text[]) decisive (name, value) where current_setting(name, true) <> value
"""

# A socket leads to one server, without TLS. Variables for remote servers, such as PGSSLMODE, do not change that.
_SOCKET = {"ssl": False, "direct_tls": False, "gsslib": "gssapi", "target_session_attrs": "any"}
_REMOTE = re.compile("[?&](ssl|gsslib|target_session_attrs)")

_POOLERS: set[str] = set()  # addresses that have refused startup parameters

# The arrays of built-in types in calls. The driver would ask the server for each, once a connection, which takes 8 ms of a processor.
_ARRAYS = {
    "bool": (1000, 16),
    "float4": (1021, 700),
    "float8": (1022, 701),
    "int4": (1007, 23),
    "int8": (1016, 20),
    "interval": (1187, 1186),
    "json": (199, 114),
    "jsonb": (3807, 3802),
    "uuid": (2951, 2950),
    "xid8": (271, 5069),
}  # with the ids of the array and of its elements, which never change
_ARRAY = {
    "ns": "pg_catalog",
    "kind": b"b",
    "elemdelim": ",",
    "basetype": None,
    "range_subtype": None,
    "attrtypoids": None,
}
_ARRAY_TYPES = [
    {**_ARRAY, "name": f"_{name}", "oid": oid, "elemtype": element} for name, (oid, element) in _ARRAYS.items()
]

UNAVAILABLE_HINT = "Check that it runs and that the address is right. A write may or may not have succeeded."
JSON_MAX_BYTES = 2**21  # twice the maximum size of an event in the database
SURELY_READABLE = 300  # in this many bytes, no number is too large and no nesting too deep
_PLACEHOLDER = b'\x01{"unreadable"'


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + encode(value)


def _decode_jsonb(value: bytes) -> object:
    if len(value) <= SURELY_READABLE and not value.startswith(_PLACEHOLDER):
        return msgspec.json.decode(value[1:])
    found: object = readable(memoryview(value)[1:]) if len(value) <= JSON_MAX_BYTES else unreadable("json")
    if fault := fault_of(found):
        from coordinator.telemetry import metrics  # noqa: PLC0415 - slow to import, and rarely needed

        metrics.VALUE_UNREADABLE.labels(fault).inc()
    return found


def _check_jsonb(value: bytes) -> object:
    """Return the JSON unchanged, or its placeholder."""
    if len(value) > SURELY_READABLE or value.startswith(_PLACEHOLDER):
        found = _decode_jsonb(value)
        if fault_of(found):
            return found
    return msgspec.Raw(value[1:])


async def prepare(connection: asyncpg.Connection, *, raw_json: bool = False) -> None:
    """Register the codecs on a new connection: jsonb is decoded, json stays text, and arrays need no query."""
    await connection.set_type_codec("json", schema="pg_catalog", format="binary", encoder=bytes, decoder=msgspec.Raw)
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=_encode_jsonb,
        decoder=_check_jsonb if raw_json else _decode_jsonb,
    )
    with suppress(AttributeError):  # not public: a version of the driver without it asks the server
        connection._protocol.get_settings().register_data_types(_ARRAY_TYPES)  # noqa: SLF001


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose every wait has a limit. The driver closes statements that it no longer needs without one."""

    async def _cleanup_stmts(self) -> None:
        try:
            async with asyncio.timeout(self._config.command_timeout):
                await super()._cleanup_stmts()
        except TimeoutError:
            self.terminate()
            raise


async def connect(
    dsn: str,
    *,
    statement_cache_size: int = 100,
    call_timeout_s: float = 30.0,
    raw_json: bool = False,
    check: Callable[[asyncpg.Connection], Awaitable[None]] | None = None,
) -> asyncpg.Connection:
    """Open a connection. With ``raw_json``, JSON in results is ``msgspec.Raw``. An address from a file is read again.

    If there are several hosts, those that ``check`` finds to be behind are skipped.

    Raises: ``DatabaseUnavailable``; ``ConfigurationError`` for a malformed address, or for session settings that change
    the result of calls.
    """
    bounds = {"lock_timeout": LOCK_WAIT_S, "statement_timeout": call_timeout_s * STATEMENT_SHARE}
    pinned = {**PINNED, **{name: f"{max(1, round(value_s * 1000))}ms" for name, value_s in bounds.items()}}
    address = current(dsn)

    async def opened_at(address: str, settings: dict[str, str]) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            address,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=call_timeout_s,
            statement_cache_size=statement_cache_size,
            connection_class=_Connection,
            **(_SOCKET if "?host=/" in address and not _REMOTE.search(address) else {}),
            server_settings={"application_name": APPLICATION_NAME, **settings},
        )
        if check is not None:
            try:
                await check(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def opened(settings: dict[str, str]) -> asyncpg.Connection:
        return await _first([partial(opened_at, each, settings) for each in hosts_apart(address)])

    with mapped_errors():
        try:
            connection = await opened({} if dsn in _POOLERS else pinned)
        except asyncpg.PostgresError as error:
            if "startup parameter" not in str(error):
                raise
            connection = await opened({})
            _POOLERS.add(dsn)
        try:
            await prepare(connection, raw_json=raw_json)
            await _settle(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection


async def _first(attempts: Sequence[Callable[[], Awaitable[asyncpg.Connection]]]) -> asyncpg.Connection:
    """Return the connection of the first attempt that succeeds. Each attempt begins when the previous one has failed, or has not responded for a moment.

    The driver tries the hosts one after the other within a single timeout, so an unreachable primary would use up the
    time for its successor.
    """
    waiting, pending = [*attempts], set[asyncio.Future[asyncpg.Connection]]()
    failed: BaseException = OSError("no host")
    try:
        while waiting or pending:
            if waiting:
                pending.add(asyncio.ensure_future(waiting.pop(0)()))
            ready, pending = await asyncio.wait(
                pending, timeout=NEXT_HOST_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            while ready:
                attempt = ready.pop()
                error = attempt.exception()
                if error is None:
                    pending |= ready  # whatever their results
                    return attempt.result()
                if not isinstance(error, NEXT_HOST):
                    raise error
                failed = failed if isinstance(failed, ServerBehind) else error
    finally:
        for attempt in pending:
            attempt.cancel()
            attempt.add_done_callback(_close)
    raise failed


def _close(attempt: asyncio.Future[asyncpg.Connection]) -> None:
    """Close the connection of an abandoned attempt."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


async def _settle(connection: asyncpg.Connection) -> None:
    """Pin the remaining settings, and check those that affect the result of a call.

    Raises: ``ConfigurationError`` with the statement that corrects the setting.
    """
    for name, found, value, role, database in await connection.fetch(_SETTLE, list(DECISIVE), list(DECISIVE.values())):
        if value is not None:
            raise ConfigurationError(
                f'sessions have {name} = "{found}"; calls need "{value}"',
                hint=f"Run: alter role {role} in database {database} set {name} = '{value}'. Then let a pooler reconnect.",
            )


def age_limit_s(max_age_s: float) -> float:
    """Return at what age to replace a connection: up to a fifth earlier, so that connections opened together do not end together."""
    return max_age_s * random.uniform(0.8, 1.0)  # noqa: S311 - not security-relevant


async def answers(connection: asyncpg.Connection) -> bool:
    """Return whether the server answers on a connection within ``CHECK_S``."""
    try:
        await connection.execute("select 1", timeout=CHECK_S)
    except LOST:
        return False
    return True


async def retire(connection: asyncpg.Connection) -> bool:
    """Cancel what a connection runs, and close it when the server has confirmed this; return false if it does not confirm in time."""
    try:
        await connection.close(timeout=RETIRE_S)
    except TimeoutError:
        return False
    except LOST:
        return True  # the connection is lost, so the server has ended the call
    finally:
        connection.terminate()
    return True


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Map asyncpg's exceptions to those of ``coordinator.errors``; other exceptions pass unchanged."""
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
    except LOST as error:
        if isinstance(error.__cause__, InvalidArgument):  # the JSON codec rejected the value
            raise error.__cause__ from None
        if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):  # a value of the wrong type
            raise InvalidArgument(
                f"the database cannot store that: {error}", hint="Use a value of the right type."
            ) from error
        raise DatabaseUnavailable(
            f"no answer from the database: {error or type(error).__name__}",
            hint=UNAVAILABLE_HINT,
        ) from error


def from_postgres(error: asyncpg.PostgresError) -> CoordinatorError:
    """Map an error by its SQLSTATE. asyncpg does not know the class ZC, and treats its errors as fatal."""
    state = error.sqlstate or "XX000"
    kind = from_sqlstate(state)
    message = getattr(error, "message", None) or str(error)
    hint = getattr(error, "hint", None)
    if hint is None and kind is DatabaseBusy:
        message = "another transaction blocked this call for too long"
        hint = "Try again. While a call waits, pg_blocking_pids() names the sessions in its way."
    elif message.startswith("cache lookup failed for function"):  # it was dropped between planning and execution
        kind, state = DatabaseBusy, DatabaseBusy.sqlstate
        message = "the schema was changed during the call"
        hint = "Try again: nothing was done."
    elif hint is None and state in ("22021", "22P05"):
        hint = "PostgreSQL cannot store the character NUL in text; encode such data, for example with base64."
    elif state == "57014":
        message = "the server ended the call, because it took too long or was cancelled"
        hint = "Nothing was changed. Do less in one call, or try again when the server is less busy; COORDINATOR_CALL_TIMEOUT_S sets the limit."
    elif state == "25006":
        hint = "A standby answers reads alone. Give the address of the primary, or several hosts and target_session_attrs=read-write."
    elif state.startswith("54"):  # the server's hint is about its own settings
        hint = "Nest JSON at most 64 levels deep, and give smaller values."
    elif kind is SchemaMismatch and not state.startswith("ZC"):  # the server's hint is about casts
        hint = 'Check "coordinator schema status"; apply the schema with "coordinator schema apply".'
    elif state == "26000":  # the prepared statement belongs to another session
        hint = "With a pooler in transaction mode, set COORDINATOR_STATEMENT_CACHE_SIZE=0; see docs/pgbouncer.md."
        kind = ConfigurationError
    elif hint is None and state.startswith(("28", "3D")):
        hint = "Check role, password, database and sslmode in the address."
    elif hint is None and kind is DatabaseUnavailable:  # terminated, shutting down, starting up, full
        hint = UNAVAILABLE_HINT
    elif hint is None and kind is InvalidArgument:
        hint = "Use values of the right type, and valid UTF-8 text."
    return kind(message, hint=hint, detail=getattr(error, "detail", None), code=state)
