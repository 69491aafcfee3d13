"""Operations on PostgreSQL: one statement for each, built from the operation's fields, and timed under the function's name.

The statement of a list also limits the page by size, before the rows leave the server: see ``model.page``.

A write also sends its origin (``model.call_origin``) and trace (``telemetry.tracing``) to the database, in settings
that are local to its transaction, so that a pooler does not pass them to other clients. The statement sets them before
it makes the call, which takes 1 µs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import asyncpg
import msgspec

from coordinator.backoff import Backoff
from coordinator.db.connection import mapped_errors
from coordinator.errors import CoordinatorError
from coordinator.model.agent_ref import takes_agent
from coordinator.model.call_origin import encoded
from coordinator.model.fields import fields_of
from coordinator.model.hint import with_project
from coordinator.model.operation import Json, Operation, Positioned, Shape
from coordinator.model.page import PAGE_BYTES, Page
from coordinator.model.position import AT_LEAST_S, not_included, report
from coordinator.telemetry import slow, tracing
from coordinator.telemetry.call_meter import CALL_METER

__all__ = ["Transaction", "call", "call_at_least", "statement"]

R = TypeVar("R")

_POSITION = "coordinator.position_now()"
_SETTINGS: dict[tuple[bool, bool], tuple[str, ...]] = {
    (False, False): (),
    (True, False): ("origin",),
    (False, True): ("traceparent",),
    (True, True): ("origin", "traceparent"),
}  # by whether there is an origin, and whether there is a trace
_JSON_NULL = msgspec.Raw(b"null")  # unlike None, which asyncpg sends as SQL's null


@cache
def statement(operation: type[Operation[Any]], *, agent_by_name: bool = False, settings: tuple[str, ...] = ()) -> str:
    """Return the statement of an operation; with ``agent_by_name``, it also looks up an agent by name.

    It first sets ``settings`` for its transaction, to the values after those of the operation. It names parameters and
    columns, so that a newer schema can append to both.
    """
    fields = fields_of(operation)
    names = [field.name for field in fields]
    values = {name: f"${index}" for index, name in enumerate(names, 1)}
    if agent_by_name:
        values["agent"] = f"coordinator.agent_find({values['project']}, {values['agent']})"
    # Arguments are evaluated before the call. A subselect in "where" is as well, but takes 2 µs more.
    told = " and ".join(
        f"set_config('coordinator.{name}', ${place}, true) is not null"
        for place, name in enumerate(settings, len(names) + 1)
    )
    text = next((field.name for field in fields if field.type in (str, str | None)), None)
    if told and text is not None:
        values[text] = f"case when {told} then {values[text]} end"
    gate = f" where (select {told})" if told and text is None else ""
    arguments = ", ".join(f"p_{operation.sql_names.get(name, name)} => {value}" for name, value in values.items())
    if operation.procedure:
        return f"call coordinator.{operation.function}(null, {arguments})"
    shape, result = operation.answer()
    columns = "" if shape is Shape.SCALAR else ", ".join(f'"{name}"' for name in result.__struct_encode_fields__)
    source = f"coordinator.{operation.function}({arguments})"
    if _writes(operation):  # evaluated once, after the call, when the transaction has its id
        columns, source = (f"{columns}, (select {_POSITION})", source) if columns else ("", f"{source}, {_POSITION}")
    if not operation.durable:  # only for this transaction; it is a single value, so nothing else is in "from"
        return f"select {source} from set_config('synchronous_commit', 'off', true){gate}"  # noqa: S608
    if not _pages(operation):
        return f"select {columns}{columns and ' from '}{source}{gate}"  # noqa: S608 - only names from this program
    varying = ", ".join(f'"{field.encode_name}"' for field in fields_of(result) if _varies(field.type))
    return (
        f"select {columns}, total from (select {columns}, count(*) over () as total,"  # noqa: S608
        f" sum(octet_length(concat({varying}))) over (rows between unbounded preceding and 1 preceding) as page_bytes from {source}) page"
        f" where coalesce(page_bytes, 0) < {PAGE_BYTES}"
    )


def _writes(operation: type[Operation[Any]]) -> bool:
    """Return whether a call has a position. The daemon's own calls do not need one."""
    return not operation.reads and not operation.internal


def _pages(operation: type[Operation[Any]]) -> bool:
    return bool(operation.page_by) or operation.reads_log


def _varies(kind: Any) -> bool:
    """Return whether values of a type have no fixed size."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return not {*members} <= {int, float, bool, datetime, timedelta, UUID, NoneType}


class _Plan(NamedTuple):
    """Data about an operation for its calls, computed once."""

    agent_at: int | None  # the index of the value that is the agent
    values: Callable[[Any], tuple[Any, ...]]
    shape: Shape
    result: Any
    pages: bool
    writes: bool
    tells: bool  # whether it sends its origin
    observe: Callable[[float, dict[str, str] | None], None]


@cache
def _plan(operation: type[Operation[Any]]) -> _Plan:
    shape, result = operation.answer()
    observe = CALL_METER.timer(operation.function)
    agent_at = next((index for index, field in enumerate(fields_of(operation)) if takes_agent(field.type)), None)
    writes, tells = _writes(operation), not operation.reads and not operation.procedure
    return _Plan(agent_at, _values(operation), shape, result, _pages(operation), writes, tells, observe)


def _values(operation: type[Operation[Any]]) -> Callable[[Any], tuple[Any, ...]]:
    fields = fields_of(operation)
    if not any(map(_is_json, fields)):
        return msgspec.structs.astuple
    null = {index for index, field in enumerate(fields) if _is_json(field)}

    def values(call: Any) -> tuple[Any, ...]:
        given = enumerate(msgspec.structs.astuple(call))
        return tuple(_JSON_NULL if value is None and index in null else value for index, value in given)

    return values


def _is_json(field: msgspec.structs.FieldInfo) -> bool:
    return field.required and field.type == Json


async def call(connection: asyncpg.Connection, operation: Operation[R], timeout_s: float | None = None) -> R:
    """Run an operation on a connection, in its open transaction or in a new one.

    Raises: the errors of the operation, mapped.
    """
    kind = type(operation)
    agent_at, values_of, shape, result, pages, writes, tells, observe = _plan(kind)
    values = values_of(operation)
    by_name = agent_at is not None and isinstance(values[agent_at], str)
    query = statement(kind, agent_by_name=by_name)
    with tracing.statement(operation, query) as span:
        if tells:
            origin, trace = encoded(), tracing.traceparent()
            settings = _SETTINGS[origin is not None, trace is not None]
            query = statement(kind, agent_by_name=by_name, settings=settings)
            values = (*values, *(told for told in (origin, trace) if told is not None))
        started = time.perf_counter()
        try:
            with mapped_errors():
                if shape is Shape.SCALAR and not writes:
                    return cast("R", await connection.fetchval(query, *values, timeout=timeout_s))
                rows = await connection.fetch(query, *values, timeout=timeout_s)
        except CoordinatorError as error:
            CALL_METER.failed(kind.function, error.code)
            span.set("db.response.status_code", error.code)
            if isinstance(project := operation.about(), str):
                error.hint = with_project(error.hint, project)
            raise
        finally:
            seconds = time.perf_counter() - started
            observe(seconds, tracing.exemplar())
            if seconds >= slow.threshold_s:
                slow.log_slow(operation, query, seconds)
    if writes:
        if rows:
            report(rows[0][-1])
        if shape is Shape.SCALAR:
            return cast("R", rows[0][0])
    if shape is Shape.ONE:
        return cast("R", result(*rows[0][: -1 if writes else None]))
    if pages:
        page = Page([result(*row[:-1]) for row in rows])
        page.cut = bool(rows) and rows[0][-1] > len(rows)
        return cast("R", page)
    return cast("R", [result(*row[:-1]) for row in rows] if writes else [result(*row) for row in rows])


class Transaction:
    """Runs operations in the open transaction of a connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def run(self, operation: Operation[R]) -> R:
        """Run an operation in the transaction."""
        with tracing.operation(operation):
            return await call(self._connection, operation)


async def call_at_least(
    begin: Callable[[], AbstractAsyncContextManager[Transaction]], included: Operation[bool], operation: Operation[R]
) -> R:
    """Run a read in one transaction, and so on one server, once that server includes a position.

    It checks soon at first, then 20 times a second, since a standby cannot listen.

    Raises: the errors of both operations, mapped; ``WaitTimedOut``.
    """
    backoff = Backoff(0.001, 0.05)
    ends_at = time.monotonic() + AT_LEAST_S
    while True:
        async with begin() as transaction:
            if await transaction.run(included):
                return await transaction.run(operation)
        if time.monotonic() >= ends_at:
            raise not_included(cast("Positioned", included).position)
        await backoff.wait()
