"""Endpoints: the operations over HTTP, and the format of their parameters. They are derived from the operations.

``model.route`` determines the path of an operation. If a request names no project, it is ``default``. A duration is a
number of seconds, ``1h30m``, or ISO 8601.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import msgspec

from coordinator import operations
from coordinator.api.memory import PAGE_COST
from coordinator.model import duration
from coordinator.model.agent_ref import agent_ref, takes_agent
from coordinator.model.catalogue import LIMITS
from coordinator.model.fields import fields_of
from coordinator.model.hint import DEFAULT_PROJECT
from coordinator.model.operation import Json, Operation, Scope, Shape
from coordinator.model.password import Password, takes_password
from coordinator.model.route import route_of

__all__ = ["Endpoint", "HttpDuration", "decode_hook", "endpoint_of", "endpoints"]

BESIDE_BYTES = 64 << 10  # for the other parameters
_LISTS = (list[Json], list[dict[str, Json]])
# A long list stays encoded: as Python objects, items of two bytes take 28 times as much. PostgreSQL rejects what is not a list.
_RawList = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": {}})]


class HttpDuration(timedelta):
    """A duration, accepted in several forms."""


class Endpoint(msgspec.Struct, frozen=True):
    """One operation on HTTP. ``parameter`` is the name in braces at the end of ``path``; it matches the rest of the path.

    ``max_bytes`` is the limit of its body, if it has one of its own; ``result_cost`` is how many bytes its rows and their encoding may take, if they are many. ``body_copies`` is how often the bytes of a body are in memory: received, whole, as parameters, and on their way to the
    database. As Python's objects they take far more.
    """

    operation: type[Operation[Any]]
    name: str
    method: Literal["GET", "POST", "PUT"]
    path: str
    parameter: str | None
    parameters: type[Operation[Any]]
    body_copies: int
    max_bytes: int | None
    result_cost: int
    shape: Shape
    result: Any

    @property
    def pages(self) -> bool:
        """Whether the result comes in pages."""
        return bool(self.operation.page_by)


@cache
def endpoints() -> tuple[Endpoint, ...]:
    """Return an endpoint for each operation that is not internal."""
    return tuple(_endpoint(operation) for operation in operations.every() if not operation.internal)


@cache
def endpoint_of(operation: type[Operation[Any]]) -> Endpoint:
    """Return the endpoint of an operation that is not internal."""
    return next(endpoint for endpoint in endpoints() if endpoint.operation is operation)


def decode_hook(type: type[Any], value: Any) -> Any:
    """Decode the types that msgspec does not know."""
    if takes_agent(type):
        if not isinstance(value, str):
            raise ValueError("Expected the name or the id of an agent")
        return agent_ref(value)
    if takes_password(type):
        if not isinstance(value, str):
            raise ValueError("Expected a password")
        return Password(value)
    if type is not HttpDuration:
        raise NotImplementedError
    read = duration.read(value)
    return HttpDuration(days=read.days, seconds=read.seconds, microseconds=read.microseconds)


def _endpoint(operation: type[Operation[Any]]) -> Endpoint:
    route = route_of(operation)
    shape, result = operation.answer()
    fields = fields_of(operation)
    unpacked = operation.parts is not Operation.parts
    name = "".join(word.capitalize() for word in operation.function.split("_"))
    return Endpoint(
        operation=operation,
        name=name,
        method=route.method,
        path=route.path,
        parameter=route.parameter,
        parameters=_parameters(operation, name, fields),
        body_copies=32 if unpacked else 4,
        max_bytes=_max_bytes(operation, fields),
        result_cost=_result_cost(operation, result),
        shape=shape,
        result=result,
    )


def _max_bytes(operation: type[Operation[Any]], fields: Iterable[msgspec.structs.FieldInfo]) -> int | None:
    """Return the limit of a body; bytes are base64 in JSON."""
    if operation.max_bytes is None:
        return None
    limit = LIMITS[operation.max_bytes]
    return limit * 4 // 3 + BESIDE_BYTES if any(field.type is bytes for field in fields) else limit


def _result_cost(operation: type[Operation[Any]], result: Any) -> int:
    if operation.max_result:
        return 2 * LIMITS[operation.max_result]
    return PAGE_COST if operation.page_by or result is bytes else 0


def _parameters(
    operation: type[Operation[Any]], name: str, fields: Iterable[msgspec.structs.FieldInfo]
) -> type[Operation[Any]]:
    """Derive the parameters of an operation over HTTP: with a default project, durations in several formats, and JSON left encoded."""
    changed: list[tuple[str, Any, Any]] = []
    for field in fields:
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = msgspec.field(default_factory=field.default_factory)
        if operation.scope is Scope.IN_PROJECT and field.name == operation.scope_field and field.required:
            changed.append((field.name, str, DEFAULT_PROJECT))
        elif timedelta in (field.type, *_members(field.type)):
            duration_type = HttpDuration | None if NoneType in _members(field.type) else HttpDuration
            changed.append((field.name, duration_type, default))
        elif field.type == Json:
            changed.append((field.name, msgspec.Raw, default))
        elif field.type == dict[str, Json]:
            changed.append((field.name, dict[str, msgspec.Raw], default))
        elif field.type in _LISTS and operation.parts is Operation.parts:
            changed.append((field.name, _RawList if operation.max_bytes else list[msgspec.Raw], default))
    derived = msgspec.defstruct(
        name, changed, bases=(operation,), frozen=True, kw_only=True, module=operation.__module__
    )
    derived.__doc__ = operation.__doc__
    return cast("type[Operation[Any]]", derived)


def _members(type: Any) -> tuple[Any, ...]:
    return get_args(type) if get_origin(type) in (Union, UnionType) else ()
