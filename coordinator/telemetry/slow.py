"""The log line of a slow call: its function, the shape of its arguments, and how to get its plan. It contains no values of the call."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from coordinator.telemetry import cause

if TYPE_CHECKING:
    from coordinator.model.operation import Operation

__all__ = ["log_slow", "shape_of", "threshold_s"]

SHOWN = 40  # arguments; no function has that many

threshold_s = math.inf
"""After how many seconds a call is slow; ``logs.configure`` sets it, so that a program that does not log has no such line."""


def log_slow(operation: Operation[Any], sql: str, seconds: float) -> None:
    """Log a call that was slow."""
    import structlog  # noqa: PLC0415 - slow to import, and commands that make one call do not log

    fields = operation.__struct_fields__[:SHOWN]
    shapes = {
        f"p_{operation.sql_names.get(name, name)}": shape_of(value)
        for name in fields
        if (value := getattr(operation, name)) is not None
    }
    function = f"coordinator.{operation.function}"
    structlog.get_logger().warning(
        "call.slow",
        function=function,
        seconds=round(seconds, 3),
        statement=sql,
        arguments=shapes,
        hint=f"For plans of the statements within {function}, load auto_explain with auto_explain.log_nested_statements = on;"
        " or run the statement below EXPLAIN (ANALYZE, BUFFERS) with arguments of this shape. See docs/tracing.md.",
        **cause.facts_of(operation),
    )


def shape_of(value: object) -> str:
    """Return the type and size of an argument in PostgreSQL's terms, without its value."""
    match value:
        case bool():
            return "boolean"
        case int():
            return "bigint"
        case float():
            return "double precision"
        case str():
            return f"text({len(value)})"
        case bytes():
            return f"bytea({len(value)})"
        case msgspec.Raw():
            return f"jsonb({len(bytes(value))} bytes)"
        case list() | tuple():
            return f"list({len(value)})"
        case dict():
            return f"jsonb({len(value)} members)"
        case datetime():
            return "timestamptz"
        case timedelta():
            return "interval"
        case UUID():
            return "uuid"
        case _:
            return "value"
