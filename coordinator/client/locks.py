"""Locks: fenced leases over files, names and slots; held as long as a block of code runs.

    async with client.lock("src/app.py", ttl=30, wait=10) as held:
        ...  # renewed in the background; cancelled when the lock is lost

The holder is the agent. Two tasks of one agent do not keep each other out: they share the lock, and it is given back when
the last of them leaves. See ``lock_wait`` for waiting, ``held`` for what is known of a lock that is held.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal
from uuid import UUID, uuid4

from anyio.abc import TaskGroup

from coordinator.client.caller import Caller, Duration, as_duration
from coordinator.client.events import Events
from coordinator.client.held import Handle, Held, LockLost
from coordinator.client.lease import Lease, now_s
from coordinator.client.listing import PAGE, Listing
from coordinator.client.lock_keeper import LockKeeper
from coordinator.client.lock_wait import LockWait
from coordinator.errors import Conflict, InvalidArgument
from coordinator.model.lock import Grant, Lock, PathCheck, Renewal, Waiter
from coordinator.operations import locks

__all__ = ["Locks"]

DEFAULT_TTL_S = 30.0


class Locks:
    """The locks of the client's project. Where no ``agent`` is given, the client's own is meant."""

    def __init__(self, caller: Caller, events: Events, tasks: TaskGroup) -> None:
        self._caller = caller
        self._wait = LockWait(caller, events)
        self._keeper = LockKeeper(caller, events, tasks)

    @asynccontextmanager
    async def hold(
        self,
        *resources: str,
        ttl: Duration = DEFAULT_TTL_S,
        wait: Duration | None = None,
        shared: bool = False,
        slots: int | None = None,
        delay: Duration = 0.0,
        agent: UUID | None = None,
        on_lost: Literal["cancel", "keep"] = "cancel",
        release: bool = True,
    ) -> AsyncIterator[Held]:
        """Hold locks, all or none, as long as the context lasts; this is ``client.lock``.

        When they are lost the body is cancelled and the context raises; with ``on_lost="keep"`` the body goes on and looks
        at ``held.state`` itself. ``release=False`` leaves them to whoever resumes ``held.handle``.

        Raises: ``Conflict`` naming who is in the way; ``WaitTimedOut`` after ``wait``; ``LockLost``.
        """
        request = locks.Acquire(
            project=self._caller.project,
            resources=list(resources),
            agent=await self._agent(agent),
            shared=shared,
            slots=slots,
            ttl=as_duration(ttl),
            wait=None if wait is None else as_duration(wait),
            delay=as_duration(delay),
            request_id=uuid4(),
        )
        grants, asked_at = await self._wait.obtain(request)
        tokens = {grant.resource: grant.fencing_token or 0 for grant in grants}
        handle = Handle(request.project, request.agent, tokens, request.ttl)
        if not Lease(request.ttl.total_seconds(), asked_at).renew_in_s:  # the response took so long that much is over
            asked_at = await self._renewed(handle)
        async with self._keeper.kept(Held(self._caller, handle, asked_at), on_lost, release=release) as held:
            yield held

    @asynccontextmanager
    async def resume(
        self, handle: Handle, *, on_lost: Literal["cancel", "keep"] = "cancel", release: bool = True
    ) -> AsyncIterator[Held]:
        """Go on with locks that were held before, in this process or another; their agent must have been kept alive.

        Raises: ``LockLost`` where they are somebody else's, or nobody's, by now.
        """
        if handle.project != self._caller.project:
            raise InvalidArgument(
                f'the locks are in project "{handle.project}", not "{self._caller.project}"',
                hint="Connect with the project of the handle.",
            )
        asked_at = await self._renewed(handle)
        async with self._keeper.kept(Held(self._caller, handle, asked_at), on_lost, release=release) as held:
            yield held

    async def acquire(
        self,
        *resources: str,
        ttl: Duration = DEFAULT_TTL_S,
        wait: Duration | None = None,
        shared: bool = False,
        slots: int | None = None,
        delay: Duration = 0.0,
        agent: UUID | None = None,
        request_id: UUID | None = None,
    ) -> list[Grant]:
        """Acquire locks that the caller renews and releases itself, all or none; ``hold`` does it for you.

        Raises: ``Conflict`` naming who is in the way; ``WaitTimedOut`` after ``wait``.
        """
        grants, _ = await self._wait.obtain(
            locks.Acquire(
                project=self._caller.project,
                resources=list(resources),
                agent=await self._agent(agent),
                shared=shared,
                slots=slots,
                ttl=as_duration(ttl),
                wait=None if wait is None else as_duration(wait),
                delay=as_duration(delay),
                request_id=request_id or uuid4(),
            )
        )
        return grants

    async def renew(
        self, tokens: Mapping[str, int], *, agent: UUID | None = None, ttl: Duration | None = None
    ) -> list[Renewal]:
        """Keep locks for their TTL (``ttl``: another one) from now on, all or none; ``tokens`` by resource.

        Raises: ``Conflict``: one is lost.
        """
        return await self._caller.run(
            locks.Renew(
                project=self._caller.project,
                resources=list(tokens),
                agent=await self._agent(agent),
                tokens=list(tokens.values()),
                ttl=None if ttl is None else as_duration(ttl),
            )
        )

    async def release(self, tokens: Mapping[str, int], *, agent: UUID | None = None) -> int:
        """Give locks back, all or none; ``tokens`` by resource.

        Raises: ``Conflict``: one is lost already.
        """
        return await self._caller.run(
            locks.Release(
                project=self._caller.project,
                resources=list(tokens),
                agent=await self._agent(agent),
                tokens=list(tokens.values()),
            )
        )

    async def break_(
        self,
        resource: str,
        reason: str,
        *,
        agent: UUID | None = None,
        token: int | None = None,
        delay: Duration | None = None,
    ) -> int:
        """Take a lock from its holders, or from the one with ``agent`` and ``token``; answers from how many.

        Raises: ``NotFound``: nobody holds it. ``Conflict``: not this one.
        """
        return await self._caller.run(
            locks.Break(
                project=self._caller.project,
                resource=resource,
                reason=reason,
                agent=agent,
                token=token,
                delay=None if delay is None else as_duration(delay),
                actor=await self._caller.actor(),
            )
        )

    async def check(self, *paths: str, agent: UUID | None = None) -> list[PathCheck]:
        """Tell for each path whether an agent may write it: free, mine or held."""
        own = await self._caller.agent_id() if agent is None else agent
        return await self._caller.run(locks.Check(project=self._caller.project, paths=list(paths), agent=own))

    async def show(self, resource: str) -> list[Lock]:
        """Tell who holds a resource or what overlaps it.

        Raises: ``NotFound``: nobody.
        """
        return await self._caller.run(locks.Show(project=self._caller.project, resource=resource))

    def waiting(self, resource: str, *, after: str | None = None, limit: int = PAGE) -> Listing[Waiter]:
        """List who waits for a resource or what overlaps it, in order."""
        operation = locks.ListWaiting(project=self._caller.project, resource=resource, limit=limit)
        return Listing(self._caller, operation, after)

    def list(
        self, *, under: str | None = None, agent: UUID | None = None, after: str | None = None, limit: int = PAGE
    ) -> Listing[Lock]:
        """List locks in byte order: of the project, of an agent, or all that overlap the directory ``under``."""
        operation = locks.List(project=self._caller.project, under=under, agent=agent, limit=limit)
        return Listing(self._caller, operation, after)

    async def _agent(self, agent: UUID | None) -> UUID:
        """Give the id of the agent that is meant."""
        own = await self._caller.agent_id() if agent is None else agent
        if own is None:
            raise InvalidArgument("no agent is named", hint='Give agent=ID here, or connect with agent="…" to be one.')
        return own

    async def _renewed(self, handle: Handle) -> float:
        """Renew at once; answer with when it was asked for."""
        asked_at = now_s()
        try:
            await self.renew(handle.tokens, agent=handle.agent, ttl=self._keeper.renew_for(handle))
        except Conflict as error:
            raise LockLost(error.message, hint=error.hint, detail=error.detail, code=error.code) from error
        return asked_at
