"""A worker as a program defines it: its functions by job type, and how it runs them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio
import structlog
from msgspec.structs import replace

from coordinator.backoff import Backoff
from coordinator.client import Client, connect
from coordinator.client.agents import DEFAULT_TTL_S
from coordinator.client.caller import Duration
from coordinator.client.connection import settings_for
from coordinator.config import Config
from coordinator.errors import ConfigurationError, DatabaseUnavailable
from coordinator.lifetime import Lifetime, run_until_shutdown
from coordinator.telemetry import tracing
from coordinator.worker.handler import Function, Handler
from coordinator.worker.shift import Shift

__all__ = ["Worker"]

MAX_CONNECTIONS = 10
GRACE_S = 10.0

F = TypeVar("F", bound=Function)

log = structlog.get_logger()


class Worker:
    """Runs jobs of the types that have a function, at most ``concurrency`` at once, and only from ``queues`` if any are given.

    It registers an agent with ``name`` (by default derived from host and process) and ``labels``. The agent is reaped
    after ``ttl`` without a heartbeat. When the worker ends, functions have ``grace`` to finish.
    """

    def __init__(
        self,
        *,
        concurrency: int = 10,
        queues: Sequence[str] = (),
        labels: Sequence[str] = (),
        name: str | None = None,
        ttl: Duration = DEFAULT_TTL_S,
        grace: Duration = GRACE_S,
    ) -> None:
        self.concurrency = concurrency
        self.queues = list(queues)
        self.labels = list(labels)
        self.name = name
        self.ttl = ttl
        self.grace = grace
        self.logs_jobs = False
        """Whether the log has a line for each job that starts, and for each that completes."""
        self.handlers: dict[str, Handler] = {}
        self.stuck: set[asyncio.Task[None]] = set()
        """Functions that ignore their cancellation; each still counts towards the concurrency."""
        self._stop: anyio.Event | None = None

    def job(self, type: str) -> Callable[[F], F]:
        """Register a function for the jobs of a type: ``@worker.job("summarize")``.

        Its second parameter is the payload, converted to its annotation by msgspec; a payload that does not fit fails the job. Its
        return value is the result, encoded by msgspec. An exception ends the attempt with the traceback as its error; ``FailJob``,
        ``RetryJob`` and ``SnoozeJob`` determine more precisely what happens next.

        Raises: ``ConfigurationError`` for a function that cannot run jobs, or a second function for the type.
        """

        def register(function: F) -> F:
            if type in self.handlers:
                raise ConfigurationError(
                    f'two functions run jobs of type "{type}"', hint="Give each of them a type of its own."
                )
            self.handlers[type] = Handler(type, function)
            return function

        return register

    def stop(self) -> None:
        """Shut ``run`` down gracefully, as SIGTERM does."""
        if self._stop is not None:
            self._stop.set()

    async def run(
        self,
        url: str | None = None,
        *,
        project: str | None = None,
        token: str | None = None,
        config: Config | None = None,
        signals: bool = True,
    ) -> None:
        """Work until ``stop`` or, with ``signals``, until SIGTERM or SIGINT; a second signal ends it at once.

        The parameters are those of ``coordinator.connect``: the address of a database, a daemon or a sidecar. It waits up to
        ``connect_limit_s`` for the first response, and without limit for later ones.

        Raises: ``ConfigurationError`` without a function; ``DatabaseUnavailable``; what ``connect`` raises; ``PermissionDenied``,
        ``Unauthenticated`` and ``SchemaMismatch`` at any time.
        """
        if not self.handlers:
            raise ConfigurationError(
                "the worker has no function for any type of jobs",
                hint='Register one: @worker.job("TYPE") before an async function of a context and a payload.',
            )
        if self.concurrency < 1:
            raise ConfigurationError("the concurrency is less than 1", hint="Give the number of jobs to run at once.")
        for handler in self.handlers.values():
            handler.resolve()
        url, config = settings_for(url, config)
        if config.tracing == "on":
            tracing.start("coordinator-worker")
        self._stop = anyio.Event()

        @asynccontextmanager
        async def connected() -> AsyncIterator[Client]:
            async with connect(
                url,
                project=project,
                agent=self.name or f"{socket.gethostname()[:180]}-{os.getpid()}",
                job_types=list(self.handlers),
                labels=self.labels,
                ttl=self.ttl,
                token=token,
                config=replace(config, max_connections=MAX_CONNECTIONS),
            ) as client:
                yield client

        if not signals:
            await self._work(connected, config.connect_limit_s, self._stop, anyio.Event())
            return

        async def until_shutdown(lifetime: Lifetime) -> None:
            self._stop = lifetime.stop
            await self._work(connected, config.connect_limit_s, lifetime.stop, lifetime.up)

        await run_until_shutdown("worker", until_shutdown)

    async def _work(
        self,
        connected: Callable[[], AbstractAsyncContextManager[Client]],
        limit_s: float,
        stop: anyio.Event,
        up: anyio.Event,
    ) -> None:
        """Work as one agent after another, each until it is reaped."""
        begun = time.monotonic()
        backoff = Backoff(max_s=5.0)
        while not stop.is_set():
            try:
                async with connected() as client:
                    up.set()
                    backoff.reset()
                    await Shift(self, client, stop).work()
            except DatabaseUnavailable as error:
                if not up.is_set() and time.monotonic() - begun + backoff.next_s > limit_s:
                    raise
                log.warning(
                    "worker.connect_failed", error=error.message, hint=error.hint, retry_s=round(backoff.next_s, 1)
                )
                await backoff.wait(partial(_until, stop))


async def _until(event: anyio.Event, timeout_s: float) -> None:
    """Wait for an event, at most this long."""
    with anyio.move_on_after(timeout_s):
        await event.wait()
