"""Acquiring locks: at once, or with a ticket that waits in the queue.

Guarantees: if the response to a request is lost, the request is repeated with its id. The event of the grant wakes the
waiter; it also polls every few seconds, because a grant that nobody claims passes to the next waiter. If a waiter stops
for any reason except the death of its process, it leaves the queue and releases what it was granted in the meantime.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup

from coordinator.client.caller import Caller
from coordinator.client.events import Events
from coordinator.client.finish import finish
from coordinator.client.held import Handle
from coordinator.client.lease import now_s
from coordinator.client.lock_keeper import LockKeeper
from coordinator.errors import CoordinatorError, DatabaseUnavailable
from coordinator.model.lock import Grant
from coordinator.operations import locks
from coordinator.operations.waiting import concerns

__all__ = ["LockWait"]

POLL_S = locks.Poll.look_s
POLL_MIN_S = 0.05
WITHDRAW_S = 3.0


class LockWait:
    """Requests of one client, whose locks ``keeper`` keeps."""

    def __init__(self, caller: Caller, events: Events, keeper: LockKeeper, tasks: TaskGroup) -> None:
        self._caller = caller
        self._events = events
        self._keeper = keeper
        self._tasks = tasks

    async def obtain(
        self, request: locks.Acquire, on_wait: Callable[[int], object] | None = None
    ) -> tuple[list[Grant], float]:
        """Acquire, and wait if necessary; also return when the request was sent, from which the TTL counts.

        ``on_wait`` is called with the ticket if it has to wait.

        Raises: ``Conflict``; ``WaitTimedOut``; ``DatabaseUnavailable``.
        """
        ticket: int | None = None
        try:
            asked_at = now_s()
            grants = await self._caller.run(request, again=True)
            if grants[0].granted:
                return grants, asked_at
            ticket = grants[0].ticket
            assert ticket is not None  # noqa: S101 - without a grant, there is one
            if on_wait is not None:
                on_wait(ticket)
            return await self._served(request, ticket, asked_at + request.wait.total_seconds() if request.wait else 0.0)
        except (anyio.get_cancelled_exc_class(), Exception) as error:
            refused = isinstance(error, CoordinatorError) and not isinstance(error, DatabaseUnavailable)
            if ticket is not None or not refused:
                await finish(self._tasks, self._withdraw, request, ticket)
            raise

    async def _served(self, request: locks.Acquire, ticket: int, until: float) -> tuple[list[Grant], float]:
        """Wait for a ticket's turn; ``until`` comes before the end of its time on the server."""
        stream = self._events.stream(topics=locks.Poll.woken_by, after=await self._events.head())
        poll = locks.Poll(project=request.project, ticket=ticket, agent=request.agent)
        while True:
            asked_at = now_s()
            grants = await self._caller.run(poll, again=True)
            if grants[0].granted:
                return grants, asked_at
            with anyio.move_on_after(max(min(POLL_S, until - now_s()), POLL_MIN_S)):
                async for event in stream:
                    if concerns(poll, event):
                        break

    async def _withdraw(self, request: locks.Acquire, ticket: int | None) -> None:
        """Leave the queue, and release what was granted. If a request had no response, repeat it to learn what to undo."""
        with anyio.move_on_after(WITHDRAW_S), suppress(CoordinatorError):
            grants: list[Grant] = []
            if ticket is None:
                grants = await self._caller.run(request, again=True)
                ticket = grants[0].ticket
            if ticket is not None:
                cancel = locks.Cancel(project=request.project, ticket=ticket, agent=request.agent)
                poll = locks.Poll(project=request.project, ticket=ticket, agent=request.agent)
                while not await self._caller.run(cancel, again=True):
                    grants = await self._caller.run(poll, again=True)
                    if grants[0].granted:  # claimed by a poll whose response was lost
                        break
                else:
                    return
            await self._keeper.release(Handle.of(request, grants))
