"""Keeping locks: the tasks that run beside the code that holds them, and their release.

One task for each block renews its locks. Another task watches the log for locks that were broken or that ended with
their agent, so that the holder learns of it within about a second instead of at the next renewal.

On failure: a release is retried for a few seconds; after that, the locks expire. If a lock turns out to have been lost
before its release, this is reported: the work was not under the lock until its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import structlog
from anyio.abc import TaskGroup

from coordinator.backoff import Backoff
from coordinator.client.caller import Caller
from coordinator.client.events import Events
from coordinator.client.finish import finish
from coordinator.client.held import Handle, Held
from coordinator.client.lease import LeaseState, is_refusal
from coordinator.errors import CoordinatorError, DatabaseUnavailable
from coordinator.operations import locks
from coordinator.operations.log_reader import LogReader
from coordinator.telemetry import tracing

__all__ = ["LockKeeper"]

RELEASE_S = 5.0
WATCH_S = 1.0  # minimum between two reads of the log, however busy it is
TOPICS = ["lock.broken", "lock.ended"]

log = structlog.get_logger()


class LockKeeper:
    """The locks that one client holds."""

    def __init__(self, caller: Caller, events: Events, tasks: TaskGroup) -> None:
        self._caller = caller
        self._events = events
        self._tasks = tasks
        self._held: set[Held] = set()
        self._watching = anyio.CancelScope()

    @asynccontextmanager
    async def kept(self, held: Held, on_lost: Literal["cancel", "keep"], *, release: bool) -> AsyncIterator[Held]:
        """Keep locks within the context, then release them.

        Raises: ``LockLost`` at the end, unless ``on_lost`` is ``keep``.
        """
        if not self._held:
            self._watching = anyio.CancelScope()
            with tracing.apart():
                self._tasks.start_soon(self._watch, self._watching)
        self._held.add(held)
        try:
            with tracing.apart():
                self._tasks.start_soon(held.keep)
            with anyio.CancelScope() as body:
                if on_lost == "cancel":
                    held.on_lost = body.cancel
                yield held
        finally:
            held.end()
            self._held.discard(held)
            if not self._held:
                self._watching.cancel()
            if release:
                await finish(self._tasks, self._release, held.handle, held.lose)
        if on_lost == "cancel" and held.state is LeaseState.LOST:
            held.check()

    async def release(self, handle: Handle) -> None:
        """Release the locks of a request that was cancelled, or failed, before its block began."""
        await self._release(handle, lambda _: None)

    async def _release(self, handle: Handle, lost: Callable[[CoordinatorError], None]) -> None:
        with anyio.move_on_after(RELEASE_S) as scope:
            await self._try_release(handle, handle.tokens, lost)
        if scope.cancelled_caught:
            log.warning(
                "lock.release_failed", resources=list(handle.tokens), error="no answer in time", hint="They expire."
            )

    async def _try_release(
        self, handle: Handle, tokens: dict[str, int], lost: Callable[[CoordinatorError], None]
    ) -> None:
        """Release locks together; if this is refused because one of them is lost, release the others one by one."""
        asked = False
        backoff = Backoff()
        while True:
            try:
                await self._caller.run(
                    locks.Release(
                        project=handle.project,
                        resources=list(tokens),
                        agent=handle.agent,
                        tokens=list(tokens.values()),
                        request_id=handle.request_id,
                    )
                )
            except DatabaseUnavailable:
                asked = True  # so they may already be released
                await backoff.wait()
                continue
            except CoordinatorError as error:
                if not is_refusal(error):
                    log.warning("lock.release_failed", resources=list(tokens), error=str(error))
                elif not asked:
                    lost(error)
                    for resource, token in tokens.items() if len(tokens) > 1 else ():
                        await self._try_release(handle, {resource: token}, lost)
            return

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """Immediately renew locks that were taken away according to the log. The log is only a hint: the renewal decides."""
        reader = LogReader(project=self._caller.project, topics=TOPICS, outlasts=(CoordinatorError,))
        with scope:
            await anyio.sleep(WATCH_S)  # most locks are released by then
            wake = self._events.wake()
            reader.after = await reader.head(self._caller)
            for held in self._held:
                held.look()  # something may have happened before that position
            while True:
                for event in await reader.next(self._caller, wake):
                    for held in self._held:
                        if held.handle.tokens.get(event.key or "") == event.data.get("fencing_token", 0):
                            held.look()
                await anyio.sleep(WATCH_S)
