"""Keeping locks: what runs beside the code that holds them, and giving them back.

One task a lock renews it; one for all of them watches the log for locks that were broken or ended with their agent, so that
their holder learns of it within a second or so rather than at its next renewal.

Giving back is tried for a few seconds and left to the TTL then. What turns out to have been lost before it was given back
is lost: the work was not under the lock to its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Literal

import anyio
import structlog
from anyio.abc import TaskGroup

from coordinator.client.caller import Caller
from coordinator.client.events import Events
from coordinator.client.held import Handle, Held
from coordinator.client.lease import LeaseState
from coordinator.errors import Conflict, CoordinatorError, DatabaseUnavailable
from coordinator.operations import locks
from coordinator.operations.events import Since

__all__ = ["LockKeeper"]

GIVE_BACK_S = 5.0
RETRY_S = 0.2
WATCH_S = 1.0  # one look so often at the most, however busy the log is
PAGE = 500
TOPICS = ["lock.broken", "lock.ended"]

log = structlog.get_logger()


class LockKeeper:
    """The locks that one client holds."""

    def __init__(self, caller: Caller, events: Events, tasks: TaskGroup) -> None:
        self._caller = caller
        self._events = events
        self._tasks = tasks
        self._held: set[Held] = set()
        self._uses: Counter[tuple[str, int]] = Counter()
        self._watching = False

    @asynccontextmanager
    async def kept(self, held: Held, on_lost: Literal["cancel", "keep"], *, release: bool) -> AsyncIterator[Held]:
        """Keep locks as long as the context lasts, then give them back.

        Raises: ``LockLost`` at the end, unless ``on_lost`` is ``keep``.
        """
        held.renew_for = self.renew_for(held.handle)
        for other in self._sharing(held.handle):
            other.renew_for = max(other.renew_for, held.handle.ttl)
        self._uses.update(held.handle.tokens.items())
        self._held.add(held)
        if not self._watching:
            self._watching = True
            self._tasks.start_soon(self._watch)
        try:
            self._tasks.start_soon(held.keep)
            with anyio.CancelScope() as body:
                if on_lost == "cancel":
                    held.on_lost = body.cancel
                yield held
        finally:
            held.end()
            self._held.discard(held)
            mine = self._unused(held)
            if release and mine:
                await self._give_back(held, mine)
        if on_lost == "cancel" and held.state is LeaseState.LOST:
            held.check()

    def renew_for(self, handle: Handle) -> timedelta:
        """Tell for how long to renew locks: no shorter than any other block of this agent that uses one relies on."""
        return max([handle.ttl, *(other.renew_for for other in self._sharing(handle))])

    def _sharing(self, handle: Handle) -> list[Held]:
        return [other for other in self._held if other.handle.tokens.items() & handle.tokens.items()]

    def _unused(self, held: Held) -> dict[str, int]:
        """Count a use less, and give what no other block of this agent uses."""
        self._uses.subtract(held.handle.tokens.items())
        mine = {resource: token for resource, token in held.handle.tokens.items() if self._uses[resource, token] <= 0}
        for key in mine.items():
            del self._uses[key]
        return mine

    async def _give_back(self, held: Held, tokens: dict[str, int]) -> None:
        asked = False
        with anyio.move_on_after(GIVE_BACK_S, shield=True):
            while True:
                try:
                    await self._release(held, tokens)
                except DatabaseUnavailable:
                    asked = True  # and perhaps done
                    await anyio.sleep(RETRY_S)
                except Conflict as error:
                    if not asked:
                        held.lose(error)
                        await self._give_back_each(held, tokens)
                    return
                except CoordinatorError as error:
                    log.warning("lock.release_failed", resources=list(tokens), error=str(error))
                    return
                else:
                    return
        log.warning("lock.release_failed", resources=list(tokens), error="no answer in time", hint="They expire.")

    async def _give_back_each(self, held: Held, tokens: dict[str, int]) -> None:
        """Give back what is left of locks of which one is lost: together they are refused."""
        for resource, token in tokens.items() if len(tokens) > 1 else ():
            try:
                await self._release(held, {resource: token})
            except Conflict:
                continue

    async def _release(self, held: Held, tokens: dict[str, int]) -> None:
        await self._caller.run(
            locks.Release(
                project=held.handle.project,
                resources=list(tokens),
                agent=held.handle.agent,
                tokens=list(tokens.values()),
            )
        )

    async def _watch(self) -> None:
        """Let those locks be looked at that the log says were taken away. Only hints: renewals say what is true."""
        cursor: str | None = None
        while True:
            hint = self._events.listen()
            try:
                cursor = await self._look(cursor) if self._held else None
            except CoordinatorError as error:
                log.warning("lock.unwatched", error=str(error))
            await hint.wait()
            await anyio.sleep(WATCH_S)

    async def _look(self, cursor: str | None) -> str:
        """Read the log after a cursor, to its end; answer with where that was."""
        if cursor is None:
            return await self._events.head()
        while True:
            page = await self._caller.run(
                Since(after=cursor, project=self._caller.project, topics=TOPICS, limit=PAGE, bookmarks=True)
            )
            for event in page:
                cursor = event.cursor
                for held in self._held:
                    if held.handle.tokens.get(event.key or "") == event.data.get("fencing_token", 0):
                        held.look()
            if not page:
                return cursor
