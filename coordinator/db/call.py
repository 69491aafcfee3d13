"""Operations on PostgreSQL: one statement each, made from the operation's fields, timed under the function's name."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import asyncpg
import msgspec

from coordinator.db.connection import mapped_errors
from coordinator.errors import CoordinatorError
from coordinator.model.operation import Json, Operation, Shape
from coordinator.telemetry import metrics

__all__ = ["call", "statement"]

R = TypeVar("R")

_JSON_NULL = msgspec.Raw(b"null")  # a value of its own; asyncpg would send None as SQL's null


@cache
def statement(operation: type[Operation[Any]]) -> str:
    """Write the one statement of an operation.

    Parameters and columns are named, so that a newer schema may append to either.
    """
    names = [field.name for field in msgspec.structs.fields(operation)]
    arguments = ", ".join(f"p_{name} => ${index}" for index, name in enumerate(names, 1))
    shape, result = operation.answer()
    columns = "" if shape is Shape.SCALAR else ", ".join(f'"{field.name}"' for field in msgspec.structs.fields(result))
    return f"select {columns}{columns and ' from '}coordinator.{operation.function}({arguments})"  # noqa: S608 - our names


class _Plan(NamedTuple):
    """What a call needs to know of its operation; made once."""

    sql: str
    values: Callable[[Any], tuple[Any, ...]]
    shape: Shape
    result: Any
    observe: Callable[[float], None]


@cache
def _plan(operation: type[Operation[Any]]) -> _Plan:
    shape, result = operation.answer()
    observe = metrics.CALL_SECONDS.labels(operation.function).observe
    return _Plan(statement(operation), _values(operation), shape, result, observe)


def _values(operation: type[Operation[Any]]) -> Callable[[Any], tuple[Any, ...]]:
    fields = msgspec.structs.fields(operation)
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
    """Run an operation on a connection, in the transaction that is open there or one of its own.

    Raises: the errors of the operation, mapped.
    """
    kind = type(operation)
    sql, values, shape, result, observe = _plan(kind)
    started = time.perf_counter()
    try:
        with mapped_errors():
            if shape is Shape.SCALAR:
                return cast("R", await connection.fetchval(sql, *values(operation), timeout=timeout_s))
            rows = await connection.fetch(sql, *values(operation), timeout=timeout_s)
    except CoordinatorError as error:
        metrics.CALL_ERRORS.labels(kind.function, error.code).inc()
        raise
    finally:
        observe(time.perf_counter() - started)
    if shape is Shape.ONE:
        return cast("R", result(*rows[0]))
    return cast("R", [result(*row) for row in rows])
