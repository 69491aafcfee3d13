"""Operations over HTTP, through a daemon or a sidecar: an ``Executor``, as PostgreSQL is one.

Guarantees: an operation goes where ``model.route`` says, its answer comes back as the same Struct, and a problem as the
same error of the tree, with code, hint and detail. Everything ends in time. A read whose connection turns out to be
dead before the first byte of an answer is tried once more on a new one, and so is a write with an ``idempotency_key``;
another write never is: a lost answer may have been a done deed.

On failure: no answer, or one of a proxy, is ``DatabaseUnavailable``, as if the database were away: the caller can do no
more about it. A stream of hints comes back by itself and wakes its reader, who then looks at the log.

What it deliberately does not do: follow redirects, use a proxy or a netrc file: the token goes to the address that was
given, and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, cast
from urllib.parse import urlencode

import anyio
import structlog

from coordinator.backoff import Backoff
from coordinator.client.http_connection import HungUp, NotAnswered
from coordinator.client.http_pool import HttpPool, NotReached
from coordinator.client.problem import error_of
from coordinator.client.wire import Message, decoded, message_of, result_of
from coordinator.config import Config
from coordinator.db.session import SessionWake
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable, InvalidArgument
from coordinator.model.operation import Operation
from coordinator.model.route import STREAM_PATH

__all__ = ["HttpExecutor"]

OK = 200
SILENT_S = 45.0  # a stream without a sign of life for so long is dead; they come every 15 seconds

log = structlog.get_logger()
R = TypeVar("R")


class HttpExecutor:
    """Runs operations through a daemon or a sidecar."""

    def __init__(self, pool: HttpPool, address: str, timeout_s: float) -> None:
        self._pool = pool
        self._address = address
        self._timeout_s = timeout_s

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, config: Config) -> AsyncIterator[HttpExecutor]:
        """Open ``http://…``, ``https://…`` or ``unix:///path``; nothing is connected before the first call.

        Raises: ``ConfigurationError`` for an address that is none, or a token that is none.
        """
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if config.token is not None:
            headers["authorization"] = f"Bearer {config.token}"
        try:
            pool = HttpPool(url, headers)
        except ValueError as error:
            raise ConfigurationError(
                f"that cannot be sent to: {error}", hint="Give an address like https://coordinator.example:7420."
            ) from None
        try:
            yield cls(pool, url, config.call_timeout_s)
        finally:
            with anyio.CancelScope(shield=True):
                await pool.close()

    async def run(self, operation: Operation[R], *, idempotency_key: str | None = None) -> R:
        """Run one operation.

        Raises: what the operation raises; ``DatabaseUnavailable`` when there was no answer.
        """
        repeatable = operation.reads or idempotency_key is not None
        return cast("R", result_of(operation, await self._send(message_of(operation), idempotency_key, repeatable)))

    async def get(self, path: str, type: type[R]) -> R:
        """Read what is no operation.

        Raises: as ``run``.
        """
        return decoded(await self._send(Message("GET", path, None), None, repeatable=True), type)

    @asynccontextmanager
    async def wake(self, *, project: str | None = None, topics: Sequence[str] = ()) -> AsyncIterator[SessionWake]:
        """Listen to the events of a project, and of topics, as hints that the log has grown.

        Raises: ``DatabaseUnavailable``; ``PermissionDenied`` where the token is not for them.
        """
        query = [("after", "now"), *(("topic", topic) for topic in topics)]
        if project is not None:
            query.append(("project", project))
        path = f"{STREAM_PATH}?{urlencode(query)}"
        wake = SessionWake()
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # No task group: readers yield from within, and a generator must not hold a cancel scope open.
        listening = asyncio.create_task(self._listen(path, wake, opened))
        try:
            await opened
            yield wake
        finally:
            listening.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([listening])

    async def _listen(self, path: str, wake: SessionWake, opened: asyncio.Future[None]) -> None:
        """Hand on hints for ever; the first connection's failure goes to ``opened``, and ends it."""
        backoff = Backoff()

        def heard(piece: bytes) -> None:
            if piece.strip(b":\n"):  # more than a sign of life
                if not opened.done():
                    opened.set_result(None)
                backoff.reset()
                wake.set()

        while True:
            try:
                await self._follow(path, heard)
                log.debug("wake.ended", address=self._address)
            except CoordinatorError as error:
                if not opened.done():
                    opened.set_exception(error)
                    return
                log.warning("wake.interrupted", error=error.message, retry_s=backoff.next_s)
            await backoff.wait()

    async def _follow(self, path: str, heard: Callable[[bytes], None]) -> None:
        try:
            answer = await self._pool.follow(path, heard, SILENT_S)
        except (NotReached, NotAnswered) as error:
            raise self._unavailable(error) from error
        if answer.status != OK:
            raise error_of(answer.status, answer.body)

    async def _send(self, message: Message, idempotency_key: str | None, repeatable: bool) -> bytes:
        """Send a message, and once more where the connection turned out to be dead and that can do no harm."""
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        ends_at = time.monotonic() + self._timeout_s
        try:
            try:
                answer = await self._pool.ask(*message, headers, self._timeout_s)
            except HungUp:
                if not repeatable:
                    raise
                answer = await self._pool.ask(*message, headers, ends_at - time.monotonic(), fresh=True)
        except (NotReached, NotAnswered) as error:
            raise self._unavailable(error) from error
        except ValueError as error:
            raise InvalidArgument(str(error), hint="Give printable ASCII.") from None
        if answer.status != OK:
            raise error_of(answer.status, answer.body)
        return answer.body

    def _unavailable(self, error: NotReached | NotAnswered) -> DatabaseUnavailable:
        hint = "A call that changes something may or may not have been done."
        if isinstance(error, NotReached):
            hint = error.hint
        return DatabaseUnavailable(f"no answer from {self._address}: {error}", hint=hint)
