"""The backend of the sidecar's HTTP API: the database or a daemon. The books of locks and jobs observe the calls of its agent.

Everything that needs a direct connection shares one: it listens, holds the liveness lock, and carries heartbeats and
renewals. An operation without a speaker runs in the name of the sidecar's agent. Agents that join through the sidecar,
such as the session of a tool whose hooks it serves, end with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from coordinator.api.tokens import TOKEN_CHANNEL
from coordinator.client.lease import now_s
from coordinator.client.presence import Presence
from coordinator.db.database import HEAD_CHANNEL
from coordinator.db.session import ServerSession
from coordinator.model.operation import Operation
from coordinator.operations.executor import Runner, Source
from coordinator.sidecar.job_book import JobBook
from coordinator.sidecar.lock_book import LockBook

__all__ = ["Backend"]

R = TypeVar("R")


class Backend:
    """Runs the operations of the HTTP API."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._session = source.session(HEAD_CHANNEL, TOKEN_CHANNEL)
        self.book = LockBook(self._session, lambda: self._session.connected)
        self.jobs = JobBook(self._session)
        self.actor: str | None = None
        self.process: Callable[[], int | None] = lambda: None

    def session(self, *_channels: str, awaited: Callable[[], bool] = lambda: True) -> ServerSession:  # noqa: ARG002
        """Return the direct connection; the agent's life depends on it."""
        return self._session

    def serve(self, agent: Presence, project: str) -> None:
        """Run calls in the name of this agent from now on, and keep the books of its locks and jobs."""
        self.actor = agent.name
        for book in (self.book, self.jobs):
            book.agent, book.name, book.project = agent.id, agent.name, project

    def obstacle(self) -> str | None:
        """Return why no call can be made, or None if calls are possible as far as is known."""
        return self._source.obstacle()

    async def run(self, operation: Operation[R]) -> R:
        """Run an operation, and record its changes to the agent's leases and jobs."""
        return await self._run(self._source, operation)

    @asynccontextmanager
    async def transaction(self, idempotency_key: str | None = None) -> AsyncIterator[Runner]:
        """Run several operations in one transaction."""
        async with self._source.transaction(idempotency_key) as transaction:
            yield _Through(self, transaction)

    async def _run(self, runner: Runner, operation: Operation[R]) -> R:
        asked_at = now_s()
        operation = operation.spoken_by(self.actor).ending_with(self.process())
        self.jobs.expect(operation)
        result = await runner.run(operation)
        self.book.note(operation, result, asked_at)
        self.jobs.note(operation, result)
        return result


class _Through:
    def __init__(self, backend: Backend, runner: Runner) -> None:
        self._backend = backend
        self._runner = runner

    async def run(self, operation: Operation[R]) -> R:
        return await self._backend._run(self._runner, operation)  # noqa: SLF001 - the two classes belong together
