"""Locks: leases with fencing tokens over files, names and slots, held while a block of code runs.

    async with client.lock("src/app.py", ttl=30, wait=10) as held:
        ...  # renewed in the background; cancelled when the lock is lost

The holder is an owner below the agent: each block is one, so two blocks of one client exclude each other. Blocks share locks if
they name the same ``owner``; a block may also use what the owners above it hold (``session/subagent``: what ``session``
holds). What ``acquire`` gets without an owner belongs to the agent itself, and all its owners may use it. See ``lock_wait`` for waiting, and ``held`` for what is known of a held lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Literal
from uuid import UUID, uuid4

import anyio
from anyio.abc import TaskGroup

from coordinator.client.caller import Caller, Duration, as_duration
from coordinator.client.events import Events
from coordinator.client.finish import finish
from coordinator.client.held import Handle, Held, LockLost
from coordinator.client.lease import Lease, now_s
from coordinator.client.listing import PAGE, Listing
from coordinator.client.lock_keeper import LockKeeper
from coordinator.client.lock_wait import LockWait
from coordinator.errors import Conflict, InvalidArgument
from coordinator.model.agent_ref import AgentRef
from coordinator.model.lock import Grant, Lock, LockBlocker, PathCheck, Renewal, Waiter
from coordinator.operations import locks

__all__ = ["Locks"]

DEFAULT_TTL_S = 30.0
AROUND = 100  # number of innermost enclosing blocks that are searched for a deadlock


class Locks:
    """The locks of the client's project. ``agent`` is a name or an id, by default the client's own."""

    def __init__(self, caller: Caller, events: Events, tasks: TaskGroup) -> None:
        self._caller = caller
        self._keeper = LockKeeper(caller, events, tasks)
        self._wait = LockWait(caller, events, self._keeper, tasks)
        self._tasks = tasks
        self._blocks: dict[
            tuple[int, UUID], list[str]
        ] = {}  # owners of the blocks around a task's next step, by task and agent

    @asynccontextmanager
    async def hold(
        self,
        *resources: str,
        ttl: Duration = DEFAULT_TTL_S,
        wait: Duration | None = None,
        shared: bool = False,
        slots: int | None = None,
        delay: Duration = 0.0,
        agent: AgentRef | None = None,
        owner: str | None = None,
        on_wait: Callable[[int], object] | None = None,
        on_lost: Literal["cancel", "keep"] = "cancel",
        release: bool = True,
    ) -> AsyncIterator[Held]:
        """Hold locks, all or none, within the context; this is ``client.lock``.

        When a lock is lost, the body is cancelled and the context raises. With ``on_lost="keep"``, the body continues
        and has to check ``held.state``. ``release=False`` keeps the locks for a process that resumes ``held.handle``.
        ``owner`` is by default this block alone. ``on_wait`` is called with the ticket if the locks are not free. A
        task that waits within a block also delays that block; a deadlock through it is detected.

        Raises: ``Conflict`` that names the holder, or the cycle; ``WaitTimedOut`` after ``wait``; ``LockLost``.
        """
        own = await self._caller.acting(agent)
        request = locks.Acquire(
            project=self._caller.project,
            resources=list(resources),
            agent=own,
            shared=shared,
            slots=slots,
            ttl=as_duration(ttl),
            wait=None if wait is None else as_duration(wait),
            delay=as_duration(delay),
            request_id=uuid4(),
            owner=uuid4().hex if owner is None else owner,
            within=[*self._around(own)],
        )
        grants, asked_at = await self._wait.obtain(request, on_wait)
        handle = Handle.of(request, grants)
        if not Lease(
            request.ttl.total_seconds(), asked_at
        ).renew_in_s:  # after a slow response, most of the TTL may be over
            try:
                asked_at = await self._renewed(handle)
            except (anyio.get_cancelled_exc_class(), Exception):
                await finish(self._tasks, self._keeper.release, handle)
                raise
        async with self._keeper.kept(Held(self._caller, handle, asked_at), on_lost, release=release) as held:
            with self._within(handle):
                yield held

    @asynccontextmanager
    async def resume(
        self, handle: Handle, *, on_lost: Literal["cancel", "keep"] = "cancel", release: bool = True
    ) -> AsyncIterator[Held]:
        """Resume locks that this or another process has kept. Their agent must have stayed alive.

        Raises: ``LockLost`` if the agent no longer holds them.
        """
        if handle.project != self._caller.project:
            raise InvalidArgument(
                f'the locks are in project "{handle.project}", not "{self._caller.project}"',
                hint="Connect to the project of the handle.",
            )
        asked_at = await self._renewed(handle)
        async with self._keeper.kept(Held(self._caller, handle, asked_at), on_lost, release=release) as held:
            with self._within(handle):
                yield held

    async def acquire(
        self,
        *resources: str,
        ttl: Duration = DEFAULT_TTL_S,
        wait: Duration | None = None,
        shared: bool = False,
        slots: int | None = None,
        delay: Duration = 0.0,
        agent: AgentRef | None = None,
        request_id: UUID | None = None,
        owner: str = "",
    ) -> list[Grant]:
        """Acquire locks, all or none, and leave renewal and release to the caller; ``hold`` does both for you.

        Without an ``owner`` the agent itself holds them: a repetition is harmless, and all its owners may use them. A named
        owner releases them as often as it acquired them.

        Raises: ``Conflict`` that names the holder; ``WaitTimedOut`` after ``wait``.
        """
        own = await self._caller.acting(agent)
        grants, _ = await self._wait.obtain(
            locks.Acquire(
                project=self._caller.project,
                resources=list(resources),
                agent=own,
                shared=shared,
                slots=slots,
                ttl=as_duration(ttl),
                wait=None if wait is None else as_duration(wait),
                delay=as_duration(delay),
                request_id=request_id or uuid4(),
                owner=owner,
                within=[*self._around(own)],
            )
        )
        return grants

    async def renew(
        self, *resources: str, tokens: Sequence[int], agent: AgentRef | None = None, ttl: Duration | None = None
    ) -> list[Renewal]:
        """Renew locks, all or none, for their TTL or another one. ``tokens`` is one for all resources, or one for each.

        Raises: ``Conflict``: one of them is lost.
        """
        return await self._caller.run(
            locks.Renew(
                project=self._caller.project,
                resources=list(resources),
                agent=await self._caller.acting(agent),
                tokens=list(tokens),
                ttl=None if ttl is None else as_duration(ttl),
            )
        )

    async def release(
        self, *resources: str, tokens: Sequence[int], agent: AgentRef | None = None, request_id: UUID | None = None
    ) -> int:
        """Release locks, all or none. ``tokens`` is one for all resources, or one for each.

        With ``request_id``, only what that request acquired is released.

        Raises: ``Conflict``: one of them is lost.
        """
        return await self._caller.run(
            locks.Release(
                project=self._caller.project,
                resources=list(resources),
                agent=await self._caller.acting(agent),
                tokens=list(tokens),
                request_id=request_id,
            )
        )

    async def resize(self, resource: str, slots: int) -> int:
        """Change the number of slots of a counted lock while it is held; return the former number.

        Raises: ``NotFound``: no agent holds it. ``Conflict``: it has no slots.
        """
        return await self._caller.run(locks.Resize(resource=resource, slots=slots, **await self._caller.author()))

    async def break_(
        self,
        resource: str,
        reason: str,
        *,
        agent: AgentRef | None = None,
        token: int | None = None,
        delay: Duration | None = None,
    ) -> int:
        """Take a lock from all its holders, or from the holder with ``agent`` and ``token``; return from how many.

        Raises: ``NotFound``: no agent holds it. ``Conflict``: that agent does not hold it.
        """
        return await self._caller.run(
            locks.Break(
                resource=resource,
                reason=reason,
                agent=agent,
                token=token,
                delay=None if delay is None else as_duration(delay),
                **await self._caller.author(),
            )
        )

    async def check(self, *paths: str, agent: AgentRef | None = None) -> list[PathCheck]:
        """Return for each path whether an agent may write it: free, mine or held."""
        own = await self._caller.agent_id() if agent is None else agent
        return await self._caller.run(locks.Check(project=self._caller.project, paths=list(paths), agent=own))

    async def show(self, resource: str) -> list[Lock]:
        """List the holders of a resource and of what overlaps it.

        Raises: ``NotFound``: no agent holds it.
        """
        return await self._caller.run(locks.Show(project=self._caller.project, resource=resource))

    def waiting(self, resource: str, *, after: str | None = None, limit: int = PAGE) -> Listing[Waiter]:
        """List the requests that wait for a resource or for what overlaps it, in order."""
        operation = locks.ListWaiting(project=self._caller.project, resource=resource, limit=limit)
        return Listing(self._caller, operation, after)

    async def chains(self) -> list[LockBlocker]:
        """List which tickets wait for which holders: the oldest 200."""
        return await self._caller.run(locks.Chains(project=self._caller.project))

    def list(
        self, *, under: str | None = None, agent: AgentRef | None = None, after: str | None = None, limit: int = PAGE
    ) -> Listing[Lock]:
        """List locks in byte order: all of the project, those of an agent, or those that overlap the directory ``under``."""
        operation = locks.List(project=self._caller.project, under=under, agent=agent, limit=limit)
        return Listing(self._caller, operation, after)

    def _around(self, agent: UUID) -> Sequence[str]:
        """Return the owners of the agent's blocks around this task; tasks that it starts may outlive them."""
        return self._blocks.get((anyio.get_current_task().id, agent), [])[-AROUND:]

    @contextmanager
    def _within(self, handle: Handle) -> Iterator[None]:
        """Record for ``_around`` that this task is in a block."""
        key = anyio.get_current_task().id, handle.agent
        around = self._blocks.setdefault(key, [])
        around.append(handle.owner)
        try:
            yield
        finally:
            around.remove(handle.owner)
            if not around:
                del self._blocks[key]

    async def _renewed(self, handle: Handle) -> float:
        """Renew now; return when the request was sent."""
        asked_at = now_s()
        try:
            await self.renew(*handle.tokens, tokens=[*handle.tokens.values()], agent=handle.agent, ttl=handle.ttl)
        except Conflict as error:
            raise LockLost(error.message, hint=error.hint, detail=error.detail, code=error.code) from error
        return asked_at
