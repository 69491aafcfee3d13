"""Operations over HTTP: parameters in, one call, its answer out. One handler for all reads, one for all writes.

A read answers with the object, with ``{"items", "cursor", "event_cursor"}`` for a list, with ``{"result"}`` for a single
value. ``event_cursor`` (of an object: the header ``Event-Cursor``) was read before the data: the events after it and the
data leave no gap between them. A list's ``cursor`` leads to the next page, as the parameter ``after``. What names the events that can give it
an answer may ``wait``: it is repeated whenever such an event passes, until there is an answer or the time is over.

With ``Idempotency-Key`` a write and the record of its answer are one transaction: a repetition with the same key, in the
same project, gets the recorded answer for a day; one with other parameters is a conflict; one that comes while the first
is under way waits for it. What failed is not recorded, and a repetition tries anew.
"""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from functools import cache
from typing import Any, get_args, get_origin

import anyio
import msgspec

from coordinator.api.admission import Admission
from coordinator.api.endpoint import Duration, Endpoint, decode_hook
from coordinator.api.filter import Filter
from coordinator.api.gateway import Gateway
from coordinator.api.problems import PreconditionFailed
from coordinator.api.request import Request
from coordinator.api.response import Response
from coordinator.db.database import Database, Transaction
from coordinator.errors import Conflict, InvalidArgument
from coordinator.model.operation import Operation, Shape
from coordinator.model.page import page_of, place_of
from coordinator.operations.events import POLL_S, Head
from coordinator.operations.idempotency import Claim, Store

__all__ = ["Calls", "duration_of"]

_encode = msgspec.json.Encoder().encode
_ENTITY_TAG = re.compile(r'"([0-9]{1,18})"')
_VERSION_CONFLICT = "ZC301"


class _List(msgspec.Struct):
    items: Any
    cursor: str | None
    event_cursor: str


class _Value(msgspec.Struct):
    result: Any


class _Tagged(msgspec.Struct):
    version: int


class Calls:
    """Runs operations for requests; made once, by the application."""

    def __init__(self, database: Database, gateway: Gateway) -> None:
        self._database = database
        self._gateway = gateway
        self._config = gateway.config
        self._admission = Admission(gateway.config)

    async def run(self, operation: Operation[Any]) -> Any:
        """Run an operation when it is its turn.

        Raises: ``Overloaded``, and what the operation raises.
        """
        async with self._admission:
            return await self._database.run(operation)

    async def read(self, endpoint: Endpoint, request: Request) -> Response:
        """Respond to a GET."""
        request.caller.check_role(endpoint.operation)  # before anything is looked at
        operation, wait_s = self._parameters(endpoint, request)
        operation = await request.caller.permit(operation)
        # Behind the log's end by a moment, never before it: what happened in between is seen twice, not missed.
        event_cursor = self._gateway.cursor or await self.run(Head())
        if wait_s and operation.woken_by:
            result = await self._wait(operation, wait_s, request)
        else:
            result = await self.run(operation)
        if endpoint.shape is Shape.MANY:
            rows = request.caller.confine(operation, result)
            return Response(200, _encode(_List(rows, page_of(operation, result).cursor, event_cursor)))
        headers = [(b"event-cursor", event_cursor.encode())]
        if endpoint.shape is Shape.SCALAR:
            return Response(200, _encode(_Value(result)), headers)
        if endpoint.versioned:
            tag = b'"%d"' % result.version
            headers.append((b"etag", tag))
            if request.header("if-none-match") == tag.decode():
                return Response(304, b"", headers)
        return Response(200, _encode(result), headers)

    async def write(self, endpoint: Endpoint, request: Request) -> Response:
        """Respond to a POST."""
        request.caller.check_role(endpoint.operation)  # before anything is looked at
        operation = await request.decode(endpoint.parameters, self._config.http_body_bytes)
        operation, conditional = _conditions(endpoint, request, operation)
        operation = await request.caller.permit(operation)
        key = request.header("idempotency-key")
        wait_s = self._wait_of(endpoint, request)
        try:
            if wait_s:
                return _answer(endpoint, await self._wait(operation, wait_s, request))
            if key is None:
                return _answer(endpoint, await self.run(operation))
            async with self._admission, self._database.transaction() as transaction:
                return await self._write_once(endpoint, operation, key, transaction)
        except Conflict as error:
            if conditional and error.code == _VERSION_CONFLICT:
                raise PreconditionFailed(
                    error.message, hint=error.hint, detail=error.detail, code=error.code
                ) from error
            raise

    async def _write_once(
        self, endpoint: Endpoint, operation: Operation[Any], key: str, executor: Transaction
    ) -> Response:
        project = _project(operation) or ""
        request = msgspec.json.encode((operation.function, operation), enc_hook=timedelta.total_seconds)
        digest = hashlib.sha256(request).hexdigest()
        recorded = await executor.run(
            Claim(project=project, key=key, request=digest, ttl=self._config.idempotency_retention)
        )
        if recorded is not None:
            body = recorded.encode()
            headers = [(b"idempotency-replayed", b"true")]
            if endpoint.versioned:
                headers.append((b"etag", b'"%d"' % msgspec.json.decode(body, type=_Tagged).version))
            return Response(200, body, headers)
        answer = _answer(endpoint, await executor.run(operation))
        await executor.run(Store(project=project, key=key, response=answer.body.decode()))
        return answer

    def _wait_of(self, endpoint: Endpoint, request: Request) -> float:
        """Read the query of a POST: how long to wait, and nothing else."""
        wait_s = 0.0
        for name, text in request.query():
            if name != "wait" or not endpoint.operation.woken_by:
                raise InvalidArgument(f'there is no parameter "{name[:100]}"', hint="Parameters are in the body.")
            wait_s = duration_of(text, self._config.http_wait_s)
        return wait_s

    async def _wait(self, operation: Operation[Any], wait_s: float, request: Request) -> Any:
        """Repeat a read until it has an answer, the time is over, or the client has gone."""
        deadline = anyio.current_time() + wait_s
        project = _project(operation)
        wanted = Filter((project,) if project else (), operation.woken_by)
        result: Any = []
        with (
            self._gateway.connection(),
            self._gateway.watch(wanted, operation.concerned_by) as wake,
            request.caller.watching(wake.set),
        ):
            async with request.while_connected():
                while True:
                    result = await self.run(operation)
                    left_s = deadline - anyio.current_time()
                    if operation.answered(result) or left_s <= 0 or self._gateway.closing:
                        break
                    await wake.wait(min(left_s, POLL_S))
                    await request.caller.confirm()
        return result

    def _parameters(self, endpoint: Endpoint, request: Request) -> tuple[Operation[Any], float]:
        """Read the parameters of a GET from its path and query."""
        values: dict[str, Any] = {}
        wait_s = 0.0
        kinds = _kinds(endpoint.parameters)
        if endpoint.parameter is not None:
            values[endpoint.parameter] = request.argument
        for name, text in request.query():
            if name == "wait" and endpoint.operation.woken_by:
                wait_s = duration_of(text, self._config.http_wait_s)
            elif name not in kinds or name == endpoint.parameter:
                raise InvalidArgument(
                    f'there is no parameter "{name[:100]}"', hint="See /schema for those that there are."
                )
            elif kinds[name] == "list" and not (name == "after" and endpoint.pages):
                values.setdefault(name, []).append(text)
            elif name in values:
                raise InvalidArgument(f'the parameter "{name}" is there twice', hint="Give it once.")
            elif name == "after" and endpoint.pages:
                values[name] = place_of(endpoint.operation, text)
            elif text.lower() == "null" and kinds[name] != "text":
                raise InvalidArgument(f'the parameter "{name}" cannot be null', hint="Leave it away.")
            else:
                values[name] = text
        try:
            return msgspec.convert(values, endpoint.parameters, strict=False, dec_hook=decode_hook), wait_s
        except msgspec.ValidationError as error:
            raise InvalidArgument(
                f"the query does not fit: {error}", hint="See /schema for what is expected."
            ) from None


def duration_of(text: str, most_s: float) -> float:
    """Read how long to wait, at most ``most_s`` seconds.

    Raises: ``InvalidArgument``.
    """
    try:
        seconds: float = msgspec.convert(text, Duration, dec_hook=decode_hook).total_seconds()
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"wait does not fit: {error}", hint="Write it like 30s.") from None
    if not 0 <= seconds <= most_s:
        raise InvalidArgument(f"a wait of {text[:50]} is out of range", hint=f"It can be 0 to {most_s:g} seconds.")
    return seconds


def _answer(endpoint: Endpoint, result: Any) -> Response:
    if endpoint.shape is Shape.MANY:
        return Response(200, _encode({"items": result}))
    if endpoint.shape is Shape.SCALAR:
        return Response(200, _encode(_Value(result)))
    return Response(200, _encode(result), [(b"etag", b'"%d"' % result.version)] if endpoint.versioned else [])


def _conditions(endpoint: Endpoint, request: Request, operation: Any) -> tuple[Any, bool]:
    """Take the expected version from the headers, if it is there; tells whether it was."""
    match, none_match = request.header("if-match"), request.header("if-none-match")
    if match is None and none_match is None:
        return operation, False
    if not endpoint.conditional:
        raise InvalidArgument("nothing here has a version", hint="Leave If-Match and If-None-Match away.")
    tag = _ENTITY_TAG.fullmatch(match or "")
    if operation.expect is not None or (match is None) == (none_match is None):
        raise InvalidArgument(
            "the expected version is there twice", hint="Say it once: expect, If-Match or If-None-Match."
        )
    if (match is not None and not (tag and int(tag[1]))) or (none_match is not None and none_match != "*"):
        raise InvalidArgument(
            "that is no version",
            hint='Give an ETag as it came, If-Match: "12", or If-None-Match: * for what is not there.',
        )
    return msgspec.structs.replace(operation, expect=int(tag[1]) if tag else 0), True


def _project(operation: Operation[Any]) -> str | None:
    about = operation.about()
    return about if isinstance(about, str) else None


@cache
def _kinds(parameters: type[Any]) -> dict[str, str]:
    """Tell of each parameter whether it is text, a list of values, or one value."""
    kinds = {}
    for field in msgspec.structs.fields(parameters):
        members = get_args(field.type) or (field.type,)
        is_list = get_origin(field.type) is list or any(get_origin(member) is list for member in members)
        kinds[field.name] = "list" if is_list else "text" if str in members else "value"
    return kinds
