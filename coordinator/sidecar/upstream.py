"""A daemon in place of the database, with the interface that the sidecar's HTTP API needs of either.

One stream from the daemon serves all streams of the sidecar. The sidecar passes an ``Idempotency-Key`` on: the daemon
records the response, and answers a repeated request.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import structlog
from msgspec.structs import replace

from coordinator.backoff import Backoff
from coordinator.client.http import HttpExecutor
from coordinator.db.session import SessionWake
from coordinator.errors import CoordinatorError, PermissionDenied, Unauthenticated
from coordinator.model.operation import Operation, Scope
from coordinator.operations.events import POLL_S, Head
from coordinator.progress import Progress

__all__ = ["Upstream"]

log = structlog.get_logger()
R = TypeVar("R")


class Upstream:
    """Runs operations through a daemon, as the database would.

    ``confined``: the token is only for ``project``, so the sidecar can read only the events of that project.
    ``trouble``: why the daemon did not respond last, or how it refused; None if it responded.
    """

    def __init__(self, executor: HttpExecutor, project: str) -> None:
        self.executor = executor
        self.project = project
        self.confined = False
        self.trouble: CoordinatorError | None = None

    async def run(self, operation: Operation[R]) -> R:
        """Run an operation."""
        if self.confined and operation.reads and operation.scope is Scope.IN_PROJECT and operation.about() is None:
            operation = replace(operation, project=self.project)
        return await self.executor.run(operation)

    def obstacle(self) -> str | None:
        """Return why no call can be made, or None."""
        return None if self.trouble is None else self.trouble.message

    @asynccontextmanager
    async def transaction(self, idempotency_key: str | None = None) -> AsyncIterator[_Keyed]:
        """Run one operation under an idempotency key."""
        yield _Keyed(self.executor, idempotency_key)

    def session(self, *_channels: str, awaited: Callable[[], bool] = lambda: True) -> Any:  # noqa: ARG002
        """Return the replacement for a direct connection."""
        return _Stream(self)


class _Keyed:
    """Runs the operations of a request with a key, except for the internal ones, which the daemon runs."""

    def __init__(self, executor: HttpExecutor, key: str | None) -> None:
        self._executor = executor
        self._key = key

    async def run(self, operation: Operation[R]) -> R:
        if operation.internal:
            return cast("R", None)
        return await self._executor.run(operation, idempotency_key=self._key)


class _Stream:
    """A stream of hints in place of a session."""

    def __init__(self, upstream: Upstream) -> None:
        self.connected = False
        self.heard_at = 0.0
        self._upstream = upstream
        self._wakes: list[SessionWake] = []
        self._progress = Progress()

    def wake(self, _channel: str) -> SessionWake:
        wake = SessionWake()
        wake.set()
        self._wakes.append(wake)
        return wake

    async def run(self, operation: Operation[R]) -> R:
        return await self._upstream.run(operation)

    def obstacle(self, tolerated_s: float) -> str | None:
        return self._progress.obstacle(tolerated_s)

    async def run_forever(self) -> None:
        upstream = self._upstream
        backoff = Backoff()
        progress = self._progress
        while True:
            try:
                project = upstream.project if upstream.confined else None
                async with upstream.executor.wake(project=project) as hints:
                    while True:
                        await upstream.run(Head())  # whether the database behind the stream responds
                        if progress.made():
                            log.info("upstream.reconnected")
                        self.connected = True
                        upstream.trouble = None
                        self.heard_at = time.monotonic()
                        backoff.reset()
                        for wake in self._wakes:
                            wake.set()
                        await hints.wait(POLL_S)
            except CoordinatorError as error:
                self.connected = False
                if isinstance(error, PermissionDenied) and not upstream.confined:
                    upstream.confined = True
                    continue
                if not self.heard_at and isinstance(error, (PermissionDenied, Unauthenticated)):
                    raise  # at the start, no waiting helps; later, somebody may give the token its rights back
                upstream.trouble = error
                if progress.failed(error):
                    log.warning("upstream.lost", error=error.message)
            await backoff.wait()
