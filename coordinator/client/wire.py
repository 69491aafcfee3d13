"""Operations as HTTP messages: writes the request of an operation, and reads its result from the response."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, quote_plus, urlencode

import msgspec

from coordinator.errors import ConfigurationError, DatabaseUnavailable, InvalidArgument, SchemaMismatch
from coordinator.model.embedding import pack
from coordinator.model.event import Event
from coordinator.model.fields import fields_of
from coordinator.model.json import encode, exactly_decoded, fault_of, readable
from coordinator.model.lag import MAX_LAG, tolerated
from coordinator.model.operation import Json, Operation, Shape
from coordinator.model.page import Page, cursor_of
from coordinator.model.password import Password
from coordinator.model.route import route_of

__all__ = ["Message", "decoded", "including", "message_of", "result_of"]

R = TypeVar("R")


class Message(NamedTuple):
    """What to send: ``content`` is JSON; ``path`` includes the query."""

    method: str
    path: str
    content: bytes | None


class _LogPage(msgspec.Struct):
    """A page of events; see coordinator/api/subscriptions.py."""

    items: list[Event]
    cursor: str


class _EncodedEvent(Event, frozen=True):
    """An event whose data is still encoded."""

    data: msgspec.Raw  # type: ignore[assignment]


class _EncodedLogPage(msgspec.Struct):
    """A page of events that cannot be decoded as a whole."""

    items: list[_EncodedEvent]
    cursor: str


def message_of(operation: Operation[Any]) -> Message:
    """Write an operation as a message.

    Raises: ``ConfigurationError`` for an operation without a route; ``InvalidArgument`` for invalid text or JSON.
    """
    if operation.internal:
        raise ConfigurationError(
            f"{operation.function} is not available over HTTP", hint="Connect to the database: postgresql://…"
        )
    route = route_of(type(operation))
    try:
        if route.method == "POST":
            return Message("POST", route.path, encode(operation, _sent))
        path = route.path
        query = _query(operation)
        if route.parameter is not None:
            (value,) = (text for name, text in query if name == route.parameter)
            query = [(name, text) for name, text in query if name != route.parameter]
            # Dots as well, so that the key ".." does not lead to the parent path.
            path = path.partition("{")[0] + quote(value, safe="").replace(".", "%2E")
        if operation.page_by and (max_lag_s := tolerated()):
            query = [*query, (MAX_LAG, f"{max_lag_s:f}s")]
        encoded = "&".join([f"{name}={quote_plus(text)}" for name, text in query])
    except (TypeError, UnicodeEncodeError, msgspec.MsgspecError, OverflowError) as error:
        raise InvalidArgument(f"cannot encode the arguments: {error}", hint="Use valid UTF-8 text and JSON.") from error
    return Message("GET", f"{path}?{encoded}" if encoded else path, None)


def including(message: Message, position: str) -> Message:
    """Return the message of a read that includes a position; the server waits for it."""
    query = urlencode({"at_least": position})
    return message._replace(path=f"{message.path}{'&' if '?' in message.path else '?'}{query}")


def result_of(operation: Operation[Any], body: bytes) -> Any:
    """Read the result of an operation from the body of its response.

    Raises: for a body that does not match the operation, ``SchemaMismatch`` if it reads, because another attempt would meet it
    again; otherwise ``DatabaseUnavailable``, because it may have succeeded.
    """
    if operation.reads_log:
        page = _log_page(body)
        return operation.of_page(page.items, page.cursor)
    shape, kind = _response(type(operation))
    try:
        response = decoded(body, kind)
    except SchemaMismatch as error:
        if operation.reads:
            raise
        raise DatabaseUnavailable(error.message, hint="The write may or may not have succeeded.") from error
    match shape:
        case Shape.ONE:
            return response
        case Shape.MANY if operation.page_by:
            rows = Page(response.items)
            rows.cut = response.cursor is not None
            return rows
        case Shape.MANY:
            return response.items
        case Shape.SCALAR:
            return response.result


def decoded(body: bytes, type: type[R]) -> R:
    """Decode a body.

    Raises: ``SchemaMismatch`` for a body that does not match the type.
    """
    try:
        return exactly_decoded(body, type)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SchemaMismatch(
            f"cannot decode the response: {error}", hint="Is that the address of a coordinator of this version?"
        ) from error


@cache
def _response(operation: type[Operation[Any]]) -> tuple[Shape, type[Any]]:
    """Make the type of an operation's response over HTTP."""
    shape, result = operation.answer()
    if shape is Shape.ONE:
        return shape, result
    name, field = ("items", list[result]) if shape is Shape.MANY else ("result", result)  # type: ignore[valid-type]
    further = [("cursor", str | None, None)] if operation.page_by else []
    return shape, msgspec.defstruct(f"{operation.function}_response", [(name, field), *further])


@cache
def _fields(operation: type[Operation[Any]]) -> list[tuple[str, str, object, bool]]:
    """Return name, name in the query, default, and whether it is JSON, for each field of an operation. Cached."""
    names = operation.query_names
    fields = fields_of(operation)
    return [
        (f.name, sent, f.default, f.type == Json) for f in fields if (sent := names.get(f.name, f.name)) is not None
    ]


def _query(operation: Operation[Any]) -> list[tuple[str, str]]:
    """Write a read's parameters as a query, and omit those with their default value."""
    query: list[tuple[str, str]] = []
    for field, name, default, is_json in _fields(type(operation)):
        value = getattr(operation, field)
        if value is None or value == default:
            continue
        if name == "after" and operation.page_by:
            value = cursor_of(type(operation), value)
        if is_json or isinstance(value, msgspec.Raw):  # a sidecar passes it on as it came
            value = encode(value).decode()
        elif name == "embedding":
            value = pack(value)
        for one in value if isinstance(value, list) else [value]:
            plain = one if type(one) is str else msgspec.to_builtins(one, enc_hook=timedelta.total_seconds)
            query.append((name, str(plain).lower() if isinstance(plain, bool) else str(plain)))
    return query


def _sent(value: Any) -> Any:
    """Return a value that msgspec does not know in its form for a body."""
    return value.reveal() if isinstance(value, Password) else timedelta.total_seconds(value)


def _log_page(body: bytes) -> _LogPage:
    """Decode a page of events. If the data of an event cannot be decoded, a placeholder replaces it: see ``model.json``."""
    try:
        return msgspec.json.decode(body, type=_LogPage)
    except (msgspec.DecodeError, RecursionError):
        page = decoded(body, _EncodedLogPage)
    return _LogPage([_event(item) for item in page.items], page.cursor)


def _event(item: _EncodedEvent) -> Event:
    fields = {name: getattr(item, name) for name in Event.__struct_fields__}
    data = readable(item.data)
    if fault := fault_of(data):
        _count_unreadable(fault)
    return Event(**{**fields, "data": data})


def _count_unreadable(fault: str) -> None:
    from coordinator.telemetry import metrics  # noqa: PLC0415 - slow to import, and rarely needed

    metrics.VALUE_UNREADABLE.labels(fault).inc()
