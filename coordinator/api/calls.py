"""Operations over HTTP: one handler for all reads, one for all writes.

A read responds with the object, a list with ``{"items", "cursor", "event_cursor"}``, a single value with
``{"result"}``. ``cursor`` leads to the next page, as the parameter ``after``. ``event_cursor`` (for an object: the
header ``Event-Cursor``) was read before the data, so no event between the two is missed.

The header ``Position`` of a response to a POST is the position of the write. A GET with ``at_least`` waits until it
includes that position.

An operation that can be waited for is repeated after each event that may give it a result, until it has one or the time
is over.

A list or search with ``max_lag`` comes from the replica, if there is one whose lag is not greater and which includes
``at_least``. Then the header ``Replica-Lag`` has the lag, and the event cursor is also read there. Otherwise, or if
that fails, it comes from the primary.

With ``Idempotency-Key``, a write and the record of its response are one transaction. For a day, a repetition with the
same key from the same token in the same project gets the recorded response. A request with the same key and other
parameters is a conflict; one that arrives while the first is in progress waits for it. Failures are not recorded, so a
repetition tries again.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, cast

import anyio
import msgspec
import structlog

from coordinator.api.admission import Admission
from coordinator.api.endpoint import Endpoint
from coordinator.api.filter import Filter
from coordinator.api.following import END, HEADERS, following, wants_events
from coordinator.api.gateway import Gateway
from coordinator.api.parameters import at_least_of, expecting, from_body, from_query, max_lag_of, wait_of
from coordinator.api.problems import unmet
from coordinator.api.request import Request
from coordinator.api.response import PartStream, Response
from coordinator.errors import Conflict, CoordinatorError, InvalidArgument
from coordinator.model.json import encode
from coordinator.model.operation import Conditional, Operation, Shape, complete
from coordinator.model.page import page_of, place_of
from coordinator.model.position import AT_LEAST_S, not_included, report, reported
from coordinator.objects import ObjectStore
from coordinator.operations.events import POLL_S, Head
from coordinator.operations.executor import Runner, Source
from coordinator.operations.idempotency import Claim, Position, Store
from coordinator.operations.positions import Included
from coordinator.replica import Replica
from coordinator.telemetry import metrics

__all__ = ["Calls"]

LOOK_S = 0.2  # for a position whose transaction may have no event

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class _ListBody(msgspec.Struct):
    items: Any
    cursor: str | None
    event_cursor: str


class _ValueBody(msgspec.Struct):
    result: Any


class _Tagged(msgspec.Struct):
    version: int
    epoch: str | None = None


class Calls:
    """Runs operations for requests; made once, by the application."""

    def __init__(self, database: Source, gateway: Gateway, replica: Replica | None = None) -> None:
        self._database = database
        self._replica = replica
        self._gateway = gateway
        self._config = gateway.config
        self._admission = Admission(gateway.config)
        # A request that waits for the replica takes no turn at the primary.
        self._replica_admission = Admission(gateway.config)
        self._objects = ObjectStore(gateway.config)

    async def run(self, operation: Operation[Any]) -> Any:
        """Run an operation when it is its turn.

        Raises: ``Overloaded``, and what the operation raises.
        """
        if operation.prepares:  # this takes time without the database, so do it before taking a turn
            return await self._database.run(operation)
        return await self._in_turn(operation, self._database, self._admission)

    async def _in_turn(self, operation: Operation[Any], server: Runner, admission: Admission) -> Any:
        project = _project(operation)
        await admission.enter(project)
        try:
            result = await server.run(operation)
        finally:
            admission.leave(project)
        return await complete(operation, result, self._objects)

    async def read(self, endpoint: Endpoint, request: Request) -> Response | PartStream:
        """Respond to a GET; with a stream if the list grows and the client asks for one."""
        request.principal.check_role(endpoint.operation)  # before anything is looked at
        operation = await request.principal.permit(from_query(endpoint, request))
        if operation.grows and wants_events(request):
            return await self._follow(endpoint, operation, request)
        wait_s = wait_of(endpoint, request, self._config.http_wait_s)
        max_lag_s = max_lag_of(request)
        if endpoint.result_cost:
            await request.hold.reserve(endpoint.result_cost)
        if max_lag_s and not wait_s and (found := await self._replicated(operation, request, max_lag_s)):
            result, event_cursor, lag = found
        else:
            await self.include(request, at_least_of(request), in_log=endpoint.operation.of_log)
            # Before the data: changes in between are seen twice, instead of being missed.
            event_cursor = await self._gateway.cursor(self)
            result, lag = await self._result(operation, wait_s, request), []
        if endpoint.shape is Shape.MANY:
            rows = request.principal.confine(operation, result)
            cursor = page_of(operation, result, waited=bool(wait_s)).cursor
            return Response(200, _encode(_ListBody(rows, cursor, event_cursor)), lag)
        headers = [(b"event-cursor", event_cursor.encode()), *_etag(endpoint, result)]
        if (b"etag", (request.header("if-none-match") or "").encode()) in headers:
            return Response(304, b"", headers)
        return Response(200, _body(endpoint, result), headers)

    async def _replicated(
        self, operation: Operation[Any], request: Request, max_lag_s: float
    ) -> tuple[Any, str, list[tuple[bytes, bytes]]] | None:
        """Return the result of a list from the replica, the event cursor there, and a header with the lag; None: ask the primary."""
        if self._replica is None or (replica := self._replica.within(max_lag_s)) is None:
            return None
        lag_s = self._replica.lag_s or 0.0
        at_least = at_least_of(request)
        turns = self._replica_admission
        reason = "it no longer answers"
        try:
            with self._replica.reading():
                included = Included(position=at_least or "", in_log=operation.of_log)
                if at_least and not await self._in_turn(included, replica, turns):
                    metrics.REPLICA_READS.labels("behind").inc()
                    return None
                event_cursor = await self._in_turn(Head(), replica, turns)
                result = await self._in_turn(operation, replica, turns)
                metrics.REPLICA_READS.labels("served").inc()
                return result, event_cursor, [(b"replica-lag", b"%.3f" % lag_s)]
        except CoordinatorError as error:  # such as a project that does not exist there yet, or a conflict with replay
            reason = error.message
        metrics.REPLICA_READS.labels("failed").inc()
        log.debug("replica.failed", function=operation.function, error=reason)
        return None

    async def _follow(self, endpoint: Endpoint, operation: Operation[Any], request: Request) -> Response | PartStream:
        resumed = request.header("last-event-id")
        if resumed == END:
            return Response(204, b"")
        if resumed is not None:
            operation = msgspec.structs.replace(operation, after=place_of(type(operation), resumed))
        else:
            await self.include(request, at_least_of(request), in_log=endpoint.operation.of_log)
        frames = following(self, self._gateway, operation, request)
        return PartStream(200, HEADERS, frames, _nothing, self._config.http_write_deadline_s)

    async def include(self, request: Request, at_least: str | None, *, in_log: bool) -> None:
        """Wait until what is read from now on includes a position.

        Raises: ``WaitTimedOut``; what ``Included`` raises.
        """
        if at_least is None:
            return
        included = Included(position=at_least, in_log=in_log)
        if await self.run(included) or await self._result(included, AT_LEAST_S, request, LOOK_S):
            return
        raise not_included(at_least)

    async def write(self, endpoint: Endpoint, request: Request) -> Response:
        """Respond to a POST."""
        with reported() as positions:
            response = await self._write(endpoint, request)
        response.raw_headers += [(b"position", position.encode()) for position in positions[-1:]]
        return response

    async def _write(self, endpoint: Endpoint, request: Request) -> Response:
        request.principal.check_role(endpoint.operation)  # before anything is looked at
        operation = await from_body(endpoint, request, endpoint.max_bytes or self._config.http_body_bytes)
        expected = expecting(endpoint, request)
        if expected:
            if cast("Conditional", operation).expect is not None:
                raise InvalidArgument("the expected version is in the body and a header", hint="Send it once.")
            operation = msgspec.structs.replace(operation, **expected)
        operation = await request.principal.permit(operation)
        operation.check_settings(self._config)
        wait_s = wait_of(endpoint, request, self._config.http_wait_s)
        key = request.header("idempotency-key")
        if key is not None and operation.prepares:  # the record would contain a fast hash of the password
            raise InvalidArgument("a request with a password has no idempotency key", hint="Omit Idempotency-Key.")
        try:
            if key is None or wait_s:
                result = await self._result(operation, wait_s, request)
                return Response(200, _body(endpoint, result), _etag(endpoint, result))
            project = _project(operation)
            await self._admission.enter(project)
            try:
                async with self._database.transaction(key) as transaction:
                    return await self._write_once(endpoint, operation, (request.principal.caller, key), transaction)
            finally:
                self._admission.leave(project)
        except Conflict as error:
            if not expected:
                raise
            raise unmet(error) from None

    async def _write_once(
        self, endpoint: Endpoint, operation: Operation[Any], caller_key: tuple[str, str], transaction: Runner
    ) -> Response:
        project = _project(operation) or ""
        caller, key = caller_key
        request = encode((operation.function, operation), timedelta.total_seconds)
        digest = hashlib.sha256(request).hexdigest()
        recorded = await transaction.run(
            Claim(project=project, caller=caller, key=key, request=digest, ttl=self._config.idempotency_retention)
        )
        if recorded is not None:
            report(await transaction.run(Position(project=project, caller=caller, key=key)))
            tagged = msgspec.json.decode(recorded, type=_Tagged) if endpoint.operation.versioned else None
            headers = [(b"idempotency-replayed", b"true"), *_etag(endpoint, tagged)]
            return Response(200, recorded.encode(), headers)
        result = await transaction.run(operation)
        body = _body(endpoint, result)
        await transaction.run(Store(project=project, caller=caller, key=key, response=body.decode()))
        return Response(200, body, _etag(endpoint, result))

    async def _result(
        self, operation: Operation[Any], wait_s: float, request: Request, poll_s: float | None = None
    ) -> Any:
        """Run an operation; with a wait, repeat it until it has a result or the time is over, even while the object does not exist yet."""
        if not wait_s:
            return await self.run(operation)
        poll_s = poll_s or operation.look_s or POLL_S
        deadline = anyio.current_time() + wait_s
        project = _project(operation)
        wanted = Filter((project,) if project else (), operation.woken_by)

        def over() -> bool:
            return anyio.current_time() >= deadline or self._gateway.closing

        async with self._gateway.connection():
            with self._gateway.watch(wanted, operation.concerned_by) as wake, request.principal.watching(wake.set):
                while True:
                    try:
                        result = await self.run(operation)
                    except CoordinatorError as error:
                        if over() or not operation.awaits(error):
                            raise
                    else:
                        if over() or operation.answered(result):
                            return result
                    await wake.wait(max(min(deadline - anyio.current_time(), poll_s), 0))
                    await request.principal.confirm()


def _nothing() -> None:
    """Do nothing."""


def _body(endpoint: Endpoint, result: Any) -> bytes:
    match endpoint.shape:
        case Shape.ONE:
            return _encode(result)
        case Shape.MANY:
            return _encode({"items": result})
        case Shape.SCALAR:
            return _encode(_ValueBody(result))


def _etag(endpoint: Endpoint, result: Any) -> list[tuple[bytes, bytes]]:
    if not endpoint.operation.versioned:
        return []
    epoch = getattr(result, "epoch", None)  # of what is numbered without gaps
    return [(b"etag", f'"{epoch}.{result.version}"'.encode() if epoch else b'"%d"' % result.version)]


def _project(operation: Operation[Any]) -> str | None:
    about = operation.about()
    return about if isinstance(about, str) else None
