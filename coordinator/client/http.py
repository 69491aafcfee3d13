"""Operations over HTTP, through a daemon or a sidecar: an ``Executor``, like the one for PostgreSQL.

Guarantees: ``model.route`` determines where an operation is sent. Its result is returned as the same Struct, and a
problem is raised as the same error, with code, hint and detail. Every call ends in time. If a connection is lost before
the first byte of a response, a read is repeated once on a new connection, and so is a write with an
``idempotency_key``. No other write is repeated: a lost response may mean that the write succeeded.

On failure: no response, or a response from a proxy, raises ``DatabaseUnavailable``, as if the database were
unavailable, since the caller can do nothing else about it. A stream of hints reconnects automatically and wakes its
reader, who then reads the log.

What it deliberately does not do: follow redirects, or use a proxy or a netrc file. The token is sent only to the given
address.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar, cast
from urllib.parse import urlencode

import anyio

from coordinator.backoff import Backoff
from coordinator.client.http_pool import Disconnected, HttpPool, HttpResponse, NoResponse, NotSent
from coordinator.client.problem import error_of
from coordinator.client.request_span import outgoing, request_span, status_of
from coordinator.client.wire import Message, decoded, including, message_of, result_of
from coordinator.config import Config, current
from coordinator.db.session import SessionWake
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable, InvalidArgument
from coordinator.model.operation import Operation
from coordinator.model.position import report
from coordinator.model.route import STREAM_PATH
from coordinator.operations.positions import Included
from coordinator.telemetry import tracing

__all__ = ["HttpExecutor"]

OK = 200
SILENT_S = 45.0  # a stream that is silent for this long is dead; keep-alives come every 15 seconds

_TOPIC = re.compile(rb"^event: (.*)\n(?=data: )", re.MULTILINE)  # of an event whose frame begins in this piece

R = TypeVar("R")


class HttpExecutor:
    """Runs operations through a daemon or a sidecar."""

    def __init__(self, pool: HttpPool, address: str, timeout_s: float, token: str | None = None) -> None:
        self._pool = pool
        self._address = address
        self._timeout_s = timeout_s
        self._token = token

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, config: Config) -> AsyncIterator[HttpExecutor]:
        """Open ``http://…``, ``https://…`` or ``unix:///path``; the first call connects.

        Raises: ``ConfigurationError`` for a token that cannot be sent.
        """
        headers = {"accept": "application/json", "accept-encoding": "identity", **_authorization(config.token)}
        async with AsyncExitStack() as stack:
            try:
                pool = await stack.enter_async_context(HttpPool.open(url, headers))
            except ValueError as error:
                raise ConfigurationError(str(error), hint="Copy the whole token, and nothing else.") from None
            yield cls(pool, url, config.call_timeout_s, config.token)

    async def run(self, operation: Operation[R], *, idempotency_key: str | None = None) -> R:
        """Run one operation.

        Raises: what the operation raises; ``DatabaseUnavailable`` if no response came.
        """
        repeatable = operation.reads or idempotency_key is not None
        with tracing.operation(operation):
            return cast("R", result_of(operation, await self._send(message_of(operation), idempotency_key, repeatable)))

    async def run_at_least(self, included: Included, operation: Operation[R]) -> R:
        """Run a read that includes a position; the server waits for it.

        Raises: as ``run``.
        """
        with tracing.operation(operation):
            message = including(message_of(operation), included.position)
            return cast("R", result_of(operation, await self._send(message, None, repeatable=True)))

    async def get(self, path: str, type: type[R], *, statuses: Collection[int] = (OK,)) -> R:
        """Read a path that belongs to no operation; in responses with these statuses, the body has the given type.

        Raises: as ``run``.
        """
        body = await self._send(Message("GET", path, None), None, repeatable=True, statuses=statuses)
        return decoded(body, type)

    @asynccontextmanager
    async def wake(self, *, project: str | None = None, topics: Sequence[str] = ()) -> AsyncIterator[SessionWake]:
        """Listen to the events of a project or of topics, as hints that the log has grown.

        Raises: ``DatabaseUnavailable``; ``PermissionDenied`` if the token does not allow it.
        """
        query = [("after", "now"), *(("topic", topic) for topic in topics)]
        if project is not None:
            query.append(("project", project))
        path = f"{STREAM_PATH}?{urlencode(query)}"
        wake = SessionWake()
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Not a task group: readers yield inside it, and a generator must not hold a cancel scope open.
        listening = asyncio.create_task(self._listen(path, wake, opened))
        try:
            await asyncio.wait((opened, listening), return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                await listening  # raises what ended it
            yield wake
        finally:
            listening.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([listening])

    async def _listen(self, path: str, wake: SessionWake, opened: asyncio.Future[None]) -> None:
        """Pass on hints forever, once ``opened``; raise if the first connection fails.

        An interruption is a hint as well: the reader finds out what is wrong, and reports it.
        """
        backoff = Backoff()
        interrupted = False

        def heard(piece: bytes) -> None:
            nonlocal interrupted
            if piece.strip(b":\n"):  # more than a keep-alive
                if not opened.done():
                    opened.set_result(None)
                interrupted = False
                backoff.reset()
                topics = [topic.decode() for topic in _TOPIC.findall(piece)]
                # "ready" and "reset" are not events.
                wake.set(*(topics if all("." in topic for topic in topics) else ()))

        while True:
            try:
                await self._follow(path, heard)
            except CoordinatorError:
                if not opened.done():
                    raise
            if not interrupted:
                interrupted = True
                wake.set()
            await backoff.wait()

    async def _follow(self, path: str, heard: Callable[[bytes], None]) -> None:
        try:
            response = await self._pool.follow(path, heard, SILENT_S, _authorization(self._token))
        except (NotSent, NoResponse) as error:
            raise self._unavailable(error, repeatable=True) from error
        if response.status != OK:
            raise error_of(response.status, response.body)

    async def _send(
        self, message: Message, idempotency_key: str | None, repeatable: bool, statuses: Collection[int] = (OK,)
    ) -> bytes:
        """Send a message; repeat it once if its connection was dead and repeating it does no harm."""
        headers = _authorization(self._token)  # a token from a file may have been replaced
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
        ends_at = time.monotonic() + self._timeout_s
        try:
            try:
                response = await self._attempt(message, headers, self._timeout_s)
            except Disconnected as error:
                if error.sent and not repeatable:
                    raise
                response = await self._attempt(message, headers, ends_at - time.monotonic(), fresh=True)
        except (NotSent, NoResponse) as error:
            raise self._unavailable(error, repeatable=repeatable) from error
        except ValueError as error:
            raise InvalidArgument(str(error), hint="Use printable ASCII characters.") from None
        if response.status not in statuses:
            raise error_of(response.status, response.body)
        report(response.position)
        return response.body

    async def _attempt(
        self, message: Message, headers: dict[str, str], timeout_s: float, *, fresh: bool = False
    ) -> HttpResponse:
        with request_span(message, self._address, again=fresh) as span:
            response = await self._pool.send(*message, headers | outgoing(), timeout_s, fresh=fresh)
            status_of(span, response.status)
        return response

    def _unavailable(self, error: NotSent | NoResponse, *, repeatable: bool) -> DatabaseUnavailable:
        unknown = "Try again." if repeatable else "A write may or may not have succeeded."
        hint = error.hint if isinstance(error, NotSent) else unknown
        return DatabaseUnavailable(f"no response from {self._address}: {error}", hint=hint)


def _authorization(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {current(token)}"}
