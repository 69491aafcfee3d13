"""Operations over HTTP, through a daemon or a sidecar: an ``Executor``, as PostgreSQL is one.

Guarantees: an operation goes where ``model.route`` says, its answer comes back as the same Struct, and a problem as the
same error of the tree, with code, hint and detail. Everything ends in time. A read whose connection turns out to be
dead is tried once more; a write never is, unless it was not sent: a lost answer may have been a done deed. With an
``idempotency_key`` it may be repeated by whoever has the key.

On failure: no answer, or one of a proxy, is ``DatabaseUnavailable``, as if the database were away: the caller can do no
more about it. A stream of hints comes back by itself and wakes its reader, who then looks at the log.

What it deliberately does not do: follow redirects, use a proxy or a netrc file: the token goes to the address that was
given, and nowhere else.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, cast
from urllib.parse import urlencode, urlsplit

import anyio
import httpx
import structlog

from coordinator.client.problem import error_of
from coordinator.client.wire import Message, decoded, message_of, result_of
from coordinator.config import Config
from coordinator.db.session import SessionWake
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable
from coordinator.model.operation import Operation
from coordinator.model.route import STREAM_PATH

__all__ = ["HttpExecutor"]

CONNECT_TIMEOUT_S = 10.0
SILENT_S = 45.0  # a stream without a sign of life for so long is dead; they come every 15 seconds
KEEP_ALIVE_S = 60.0  # less than the server's, so that it is not the one who hangs up
CONNECTIONS = 100
BACKOFF_FIRST_S = 0.05
BACKOFF_MOST_S = 2.0

log = structlog.get_logger()
R = TypeVar("R")


class HttpExecutor:
    """Runs operations through a daemon or a sidecar."""

    def __init__(self, client: httpx.AsyncClient, address: str) -> None:
        self._client = client
        self._address = address

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, config: Config) -> AsyncIterator[HttpExecutor]:
        """Open ``http://…``, ``https://…`` or ``unix:///path``; nothing is connected before the first call.

        Raises: ``ConfigurationError`` for an address that is none.
        """
        parts = urlsplit(url)
        path = parts.path if parts.scheme == "unix" else None
        limits = httpx.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S
        )
        headers = {"accept": "application/json"}
        if config.token is not None:
            headers["authorization"] = f"Bearer {config.token}"
        try:
            client = httpx.AsyncClient(
                base_url="http://localhost" if path else url,
                headers=headers,
                timeout=httpx.Timeout(config.call_timeout_s, connect=min(CONNECT_TIMEOUT_S, config.call_timeout_s)),
                transport=httpx.AsyncHTTPTransport(verify=_verify(parts.scheme), uds=path, limits=limits),
                trust_env=False,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError(
                f"that is no address: {error}", hint="Give one like https://coordinator.example:7420."
            ) from None
        try:
            yield cls(client, url)
        finally:
            with anyio.CancelScope(shield=True):
                await client.aclose()

    async def run(self, operation: Operation[R], *, idempotency_key: str | None = None) -> R:
        """Run one operation.

        Raises: what the operation raises; ``DatabaseUnavailable`` when there was no answer.
        """
        message = message_of(operation)
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        try:
            answer = await self._send(message, headers)
        except DatabaseUnavailable as error:
            # Nothing was sent, or nothing was changed: the connection had been closed, as after a restart.
            if not isinstance(error.__cause__, httpx.RemoteProtocolError) or not operation.reads:
                raise
            answer = await self._send(message, headers)
        return cast("R", result_of(operation, answer))

    async def get(self, path: str, type: type[R]) -> R:
        """Read what is no operation.

        Raises: as ``run``.
        """
        return decoded(await self._send(Message("GET", path, None), {}), type)

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
        delay_s = BACKOFF_FIRST_S
        while True:
            try:
                async for _ in self._hints(path):
                    if not opened.done():
                        opened.set_result(None)
                    delay_s = BACKOFF_FIRST_S
                    wake.set()
                log.debug("wake.ended", address=self._address)
            except CoordinatorError as error:
                if not opened.done():
                    opened.set_exception(error)
                    return
                log.warning("wake.interrupted", error=error.message, retry_s=round(delay_s, 2))
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311
            delay_s = min(delay_s * 2, BACKOFF_MOST_S)

    async def _hints(self, path: str) -> AsyncIterator[None]:
        """Yield once when a stream stands, then for each piece of it that holds more than a sign of life."""
        timeout = httpx.Timeout(SILENT_S, connect=CONNECT_TIMEOUT_S)
        try:
            async with self._client.stream("GET", path, timeout=timeout) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise error_of(answer.status_code, await answer.aread())
                async for piece in answer.aiter_raw():
                    if piece.strip(b":\n"):
                        yield
        except (httpx.HTTPError, OSError) as error:
            raise self._unavailable(error) from error

    async def _send(self, message: Message, headers: dict[str, str]) -> bytes:
        if message.content is not None:
            headers = {"content-type": "application/json", **headers}
        try:
            answer = await self._client.request(message.method, message.path, content=message.content, headers=headers)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise self._unavailable(error) from error
        if answer.status_code != httpx.codes.OK:
            raise error_of(answer.status_code, answer.content)
        return answer.content

    def _unavailable(self, error: Exception) -> DatabaseUnavailable:
        hint = "Does it run, and is the address right?"
        if not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
            hint = "A call that changes something may or may not have been done."
        reason = str(error) or type(error).__name__
        return DatabaseUnavailable(f"no answer from {self._address}: {reason}", hint=hint)


def _verify(scheme: str) -> ssl.SSLContext | bool:
    """Trust who the system trusts; SSL_CERT_FILE names other authorities."""
    return ssl.create_default_context() if scheme == "https" else False
