"""Parameters: the operation of a request, parsed from its path, query, body and headers.

A GET has its parameters in path and query, a POST in a JSON body. Both can have ``wait`` in the query if the operation
can be waited for. Each GET can have ``at_least``, even several times: the positions that it includes; and ``max_lag``:
how old a response from the replica may be. A conditional write takes the expected version from ``expect``, ``If-Match``
or ``If-None-Match: *``.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, get_args, get_origin

import msgspec

from coordinator.api.endpoint import Endpoint, HttpDuration, decode_hook
from coordinator.api.request import Request
from coordinator.api.shape import fields_hint, shape_hint
from coordinator.errors import InvalidArgument
from coordinator.model.embedding import unpack
from coordinator.model.fields import fields_of
from coordinator.model.lag import MAX_LAG, MAX_LAG_S
from coordinator.model.operation import Operation
from coordinator.model.page import place_of

__all__ = ["AT_LEAST", "at_least_of", "duration_of", "expecting", "from_body", "from_query", "max_lag_of", "wait_of"]

AT_LEAST = "at_least"
_CONTENT_TAG = re.compile(r'"([0-9a-f]{64})"')
_ENTITY_TAG = re.compile(r'"(?:([0-9a-f]{8})\.)?([0-9]{1,18})"')


def from_query(endpoint: Endpoint, request: Request) -> Operation[Any]:
    """Read the operation of a GET from its path and query.

    Raises: ``InvalidArgument``.
    """
    values: dict[str, Any] = {}
    kinds = _kinds(endpoint.parameters)
    further = [*(["wait"] if endpoint.operation.woken_by else []), *([MAX_LAG] if endpoint.pages else []), AT_LEAST]
    if endpoint.parameter is not None:
        values[endpoint.parameter] = request.argument
    for name, text in request.query():
        if name in further:
            continue
        if name not in kinds or name == endpoint.parameter:
            known = [*(kind for kind in kinds if kind != endpoint.parameter), *further]
            raise InvalidArgument(f'unknown parameter "{name[:100]}"', hint=fields_hint(known, unknown=name))
        is_cursor = name == "after" and endpoint.pages
        if kinds[name] == "list" and not is_cursor:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise InvalidArgument(f'the parameter "{name}" is repeated', hint="Send it once.")
        elif is_cursor:
            values[name] = place_of(endpoint.operation, text)
        elif kinds[name] == "json":
            values[name] = _json(name, text)
        elif kinds[name] == "numbers":
            values[name] = unpack(text)
        elif text.lower() == "null" and kinds[name] != "text":
            raise InvalidArgument(f'the parameter "{name}" cannot be null', hint="Omit it.")
        else:
            values[name] = text
    try:
        operation: Operation[Any] = msgspec.convert(values, endpoint.parameters, strict=False, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid query: {error}", hint=shape_hint(endpoint.parameters, error)) from None
    return operation


async def from_body(endpoint: Endpoint, request: Request, max_bytes: int) -> Operation[Any]:
    """Read the operation of a POST from its body.

    Raises: ``InvalidArgument``, and what ``Request.decode`` raises.
    """
    for name, _ in request.query():
        if name != "wait" or not endpoint.operation.woken_by:
            raise InvalidArgument(f'unknown parameter "{name[:100]}"', hint="Send the parameters in the body.")
    limit = endpoint.operation.max_bytes or "the setting http_body_bytes of the daemon"
    operation: Operation[Any] = await request.decode(endpoint.parameters, max_bytes, endpoint.body_copies, limit)
    return operation


def at_least_of(request: Request) -> str | None:
    """Parse which positions the response to a GET includes."""
    if b"at_least" not in request.scope["query_string"]:  # the usual case
        return None
    return ",".join(text for name, text in request.query() if name == AT_LEAST) or None


def wait_of(endpoint: Endpoint, request: Request, max_s: float) -> float:
    """Read for how many seconds a request waits for a result.

    Raises: ``InvalidArgument``.
    """
    given = [text for name, text in request.query() if name == "wait"] if endpoint.operation.woken_by else []
    return duration_of(given[-1], max_s) if given else 0.0


def max_lag_of(request: Request) -> float:
    """Read how old a response from the replica may be, in seconds; 0: the primary responds.

    Raises: ``InvalidArgument``.
    """
    if b"max_lag" not in request.scope["query_string"]:  # the usual case
        return 0.0
    given = [text for name, text in request.query() if name == MAX_LAG]
    return duration_of(given[-1], MAX_LAG_S, MAX_LAG) if given else 0.0


def duration_of(text: str, max_s: float, name: str = "wait") -> float:
    """Read a duration, by default a wait, in seconds.

    Raises: ``InvalidArgument``.
    """
    try:
        seconds: float = msgspec.convert(text, HttpDuration, dec_hook=decode_hook).total_seconds()
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid {name}: {error}", hint="Write it like 30s.") from None
    if not 0 <= seconds <= max_s:
        raise InvalidArgument(f"a {name} of {text[:50]} is out of range", hint=f"Give 0 to {max_s:g} seconds.")
    return seconds


def expecting(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """Read the version that a write expects, and its epoch, or the hash of a content, from its headers: the fields ``expect`` and ``epoch``, if they name any.

    Raises: ``InvalidArgument``.
    """
    match, none_match = request.header("if-match"), request.header("if-none-match")
    if match is None and none_match is None:
        return {}
    if not endpoint.operation.conditional:
        raise InvalidArgument("this operation has no version to compare", hint="Omit If-Match and If-None-Match.")
    if match is not None and none_match is not None:
        raise InvalidArgument("the request has If-Match and If-None-Match", hint="Send one of them.")
    if "sha256" in endpoint.operation.__struct_fields__:
        content = _CONTENT_TAG.fullmatch(match or "")
        if content is None and none_match != "*":
            raise InvalidArgument(
                "If-Match or If-None-Match holds no content",
                hint="Send an ETag as you received it in If-Match, or If-None-Match: * for an artifact that must not exist.",
            )
        return {"expect": content[1] if content else "0"}
    tag = _ENTITY_TAG.fullmatch(match or "")
    if tag and tag[1] and "epoch" not in endpoint.operation.__struct_fields__:
        tag = None
    if (match is not None and not (tag and int(tag[2]))) or (none_match is not None and none_match != "*"):
        raise InvalidArgument(
            "If-Match or If-None-Match holds no version",
            hint='Send an ETag as you received it, If-Match: "12", or If-None-Match: * for a key that must not exist.',
        )
    if tag is None:
        return {"expect": 0}
    return {"expect": int(tag[2]), **({"epoch": tag[1]} if tag[1] else {})}


def _json(name: str, text: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidArgument(
            f'the parameter "{name}" is not JSON', hint='Write it like {"key": "value"}, with strings in quotes.'
        ) from None
    return msgspec.Raw(text.encode())


@cache
def _kinds(parameters: type[msgspec.Struct]) -> dict[str, str]:
    """Return for each parameter whether it is JSON, text, an embedding, a list of values, or one value."""
    return {field.name: _kind(field.type) for field in fields_of(parameters)}


def _kind(type: Any) -> str:
    members = get_args(type) if get_origin(type) is not list else (type,)
    if type is msgspec.Raw:
        return "json"
    if list[float] in members:
        return "numbers"
    if any(get_origin(member) is list for member in members):
        return "list"
    return "text" if str in (type, *members) else "value"
