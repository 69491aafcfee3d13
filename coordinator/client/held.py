"""A lock that is held: renewed in the background, and trusted no longer than its lease.

Guarantees: ``state`` is the state in the last response, or ``UNKNOWN`` while the server does not respond. After the
local deadline, which comes before the server's, the lock is permanently ``LOST``; ``client.lease`` explains how the
deadline is computed.

On failure: while the server cannot be reached, renewal is tried again and again until the deadline. When the server
reports that the lock is gone, ``lost`` is set at once. A lost lock is never acquired again automatically.

What it deliberately does not do: fence. Only ``coordinator.assert_fence`` with ``token``, called in the transaction
that writes, does that. A process can be paused between any check here and its next action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID

import anyio
import msgspec
import structlog

from coordinator.client.caller import Caller
from coordinator.client.lease import Lease, LeaseState, is_refusal, now_s
from coordinator.errors import Conflict, CoordinatorError
from coordinator.model.lock import Grant
from coordinator.operations import locks

__all__ = ["Handle", "Held", "LockLost"]

log = structlog.get_logger()


class LockLost(Conflict):
    """The lock is no longer held: it was broken, it expired, or it ended with its agent. Stop the work that it protected."""

    sqlstate = "ZC311"


class Handle(msgspec.Struct, frozen=True):
    """What this or another process needs to resume locks: holder, tokens and request. It can be stored as JSON."""

    project: str
    agent: UUID
    tokens: dict[str, int]
    ttl: timedelta
    owner: str = ""
    request_id: UUID | None = None

    @classmethod
    def of(cls, request: locks.Acquire, grants: Sequence[Grant]) -> Handle:
        """Return the handle of what a request was granted."""
        tokens = {grant.resource: grant.fencing_token or 0 for grant in grants}
        return cls(request.project, cast("UUID", request.agent), tokens, request.ttl, request.owner, request.request_id)


class Held:
    """The locks of one request. Store ``handle``; ``lost`` is set when the locks are lost."""

    def __init__(self, caller: Caller, handle: Handle, asked_at: float) -> None:
        self.handle = handle
        self.lost = anyio.Event()
        self.on_lost: Callable[[], None] | None = None
        self._caller = caller
        self._lease = Lease(handle.ttl.total_seconds(), asked_at)
        self._error: LockLost | None = None
        self._hint = anyio.Event()
        self._keeping = anyio.CancelScope()

    @property
    def state(self) -> LeaseState:
        """The current state. After the local deadline, the locks are lost, even if no task has noticed it yet."""
        state = self._lease.state
        if state is LeaseState.LOST and self._error is None:
            ttl_s = self.handle.ttl.total_seconds()
            self._lose(
                f"the lock on {self._names()} could not be renewed within its TTL of {ttl_s:g} seconds",
                'Stop the work that needed it. "coordinator lock show" says who holds it now.',
            )
        return state

    @property
    def remaining_s(self) -> float:
        """Seconds for which the locks can be trusted without another renewal."""
        return self._lease.remaining_s

    def check(self) -> None:
        """Return if the locks are held, as far as that can be known without asking the server.

        Raises: ``LockLost``.
        """
        match self.state:
            case LeaseState.RELEASED:
                raise LockLost(f"the lock on {self._names()} was released", hint="Acquire it again.")
            case LeaseState.LOST if self._error is not None:
                raise LockLost(
                    self._error.message, hint=self._error.hint, detail=self._error.detail, code=self._error.code
                )

    @property
    def token(self) -> int:
        """The fencing token, also after the release; if the locks have several, that of the newest grant.

        Raises: ``LockLost`` if they were lost.
        """
        return max(self.tokens.values())

    @property
    def owner(self) -> str:
        """The owner that holds the locks, below the agent. Pass it to another block that may use them, or pass ``f"{owner}/part"``."""
        return self.handle.owner

    @property
    def tokens(self) -> dict[str, int]:
        """The fencing token of each resource, under the resource's canonical spelling.

        Raises: ``LockLost`` if they were lost.
        """
        if self.state is LeaseState.LOST:
            self.check()
        return dict(self.handle.tokens)

    def look(self) -> None:
        """Renew now: there is a hint that the lock was taken away."""
        self._hint.set()

    async def keep(self) -> None:
        """Renew until the lock is lost or ``end`` is called."""
        with self._keeping:
            while self.state in (LeaseState.HELD, LeaseState.UNKNOWN):
                await self._lease.wait_due(self._hint)
                self._hint = anyio.Event()
                if self._lease.live:
                    await self._renew()

    def end(self) -> None:
        """Stop renewing; the lock is being released."""
        self._keeping.cancel()
        if self.state is not LeaseState.LOST:
            self._lease.release()

    def lose(self, error: CoordinatorError) -> None:
        """Record that the server reported the lock as lost."""
        self._lease.refused()
        self._lose(error.message, error.hint, detail=error.detail, code=error.code)

    async def _renew(self) -> None:
        asked_at = now_s()
        try:
            with anyio.fail_after(self._lease.attempt_s):
                await self._caller.run(
                    locks.Renew(
                        project=self.handle.project,
                        resources=list(self.handle.tokens),
                        agent=self.handle.agent,
                        tokens=list(self.handle.tokens.values()),
                        ttl=self.handle.ttl,
                    )
                )
        except (CoordinatorError, TimeoutError) as error:
            if isinstance(error, CoordinatorError) and is_refusal(error):
                self.lose(error)
                return
            log.warning("lock.renew_failed", resources=list(self.handle.tokens), error=str(error) or "no answer")
            self._lease.unanswered()
        else:
            self._lease.answered(asked_at)

    def _lose(self, message: str, hint: str | None, *, detail: str | None = None, code: str | None = None) -> None:
        if self._error is not None:
            return
        self._error = LockLost(message, hint=hint, detail=detail, code=code)
        log.error("lock.lost", resources=list(self.handle.tokens), error=message)
        self.lost.set()
        if self.on_lost is not None:
            self.on_lost()

    def _names(self) -> str:
        names = [f'"{name}"' for name in self.handle.tokens]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
