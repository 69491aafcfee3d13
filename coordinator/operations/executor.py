"""Executors run operations: directly on PostgreSQL, or through a daemon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

from coordinator.model.operation import Operation
from coordinator.operations.positions import Included

if TYPE_CHECKING:  # commands do not import a driver before they connect
    from coordinator.db.session import ServerSession

__all__ = ["AtLeastRunner", "Executor", "Runner", "Source", "Wake"]

R = TypeVar("R")


class Wake(Protocol):
    """Wakes a reader of the log when it may have grown."""

    topics: frozenset[str]
    """The types of the events that ended the last wait; empty if they are not known."""

    async def wait(self, timeout_s: float) -> bool:
        """Return true at the next hint, false after ``timeout_s`` seconds. Hints may be lost: they only make a reader faster."""


class Runner(Protocol):
    """Runs operations: one call, one round trip, one transaction."""

    async def run(self, operation: Operation[R]) -> R:
        """Run one operation.

        Raises: the ``CoordinatorError`` that the operation documents; ``DatabaseUnavailable`` if the response was lost, in
        which case a write may have succeeded.
        """


class AtLeastRunner(Runner, Protocol):
    """Runs operations, including reads that include a position."""

    async def run_at_least(self, included: Included, operation: Operation[R]) -> R:
        """Run a read on a server that includes a position, and wait until there is one.

        Raises: as ``run``; ``WaitTimedOut`` after ``AT_LEAST_S``; what ``Included`` raises.
        """


class Executor(AtLeastRunner, Protocol):
    """Runs operations, and wakes readers of the log."""

    def wake(self, *, project: str | None = None, topics: Sequence[str] = ()) -> AbstractAsyncContextManager[Wake]:
        """Listen for growth of the event log while the context lasts.

        ``project`` and ``topics`` select the events that matter. Hints may also come for others.
        """


class Source(Runner, Protocol):
    """The backend of a process: the database, or a daemon in its place."""

    def obstacle(self) -> str | None:
        """Return why no call can be made, or None if calls are possible as far as is known."""

    def transaction(self, idempotency_key: str | None = None) -> AbstractAsyncContextManager[Runner]:
        """Run several operations in one transaction; a daemon in place of the database runs one, under the idempotency key."""

    def session(self, *channels: str, awaited: Callable[[], bool] = lambda: True) -> ServerSession:
        """Return a direct connection that listens on channels; ``awaited`` returns whether anybody waits for them."""
