"""A lock that is held: renewed in the background, trusted no longer than this machine's clock allows.

Guarantees: what ``state`` says was true at the server a moment ago, or is said to be ``UNKNOWN``; from the local deadline on,
which comes before the server's, it is ``LOST``, for good, whatever the server would say. The deadline is counted from before
the request was sent, less a margin for clocks that differ in speed, so no answer that took long can stretch it. It is
compared at every look, and not by a timer that a paused process would not see fire.

On failure: while the server cannot be reached the lock is renewed again and again until the deadline. When the server says
that the lock is gone, ``lost`` is set at once. A lost lock is never acquired again by itself.

It deliberately does not fence: only ``coordinator.assert_fence`` with ``token``, in the transaction that writes, does. A
process can be paused between any check of ours and what it does next.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from uuid import UUID

import anyio
import msgspec
import structlog

from coordinator.client.caller import Caller
from coordinator.errors import Conflict, CoordinatorError
from coordinator.operations import locks

__all__ = ["Handle", "Held", "LockLost", "LockState", "now_s"]

RENEWALS_A_TTL = 3
RETRY_S = 0.5
RENEW_TIMEOUT_S = 5.0
TICK_S = 1.0  # timers of the event loop do not count suspended time: look at the clock that does
MARGIN_MOST_S = 5.0

log = structlog.get_logger()


class LockLost(Conflict):
    """The lock is not held any more: broken, expired, or ended with its agent. Stop what it was for."""

    sqlstate = "ZC311"


class LockState(Enum):
    """What is known of a lock without asking."""

    HELD = "held, as the last answer said"
    UNKNOWN = "the server does not answer; held until the local deadline"
    LOST = "not held any more"
    RELEASED = "given back"


class Handle(msgspec.Struct, frozen=True):
    """What a lock can be gone on with, in this process or another: holder and tokens. Goes through JSON unharmed."""

    project: str
    agent: UUID
    tokens: dict[str, int]
    ttl: timedelta


def now_s() -> float:
    """Read a clock that never goes back and goes on while the machine is suspended, as the database's does."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Held:
    """Locks of one request. ``handle`` is what to store; ``lost`` is set when they are lost."""

    def __init__(self, caller: Caller, handle: Handle, asked_at: float) -> None:
        self.handle = handle
        self.renew_for = handle.ttl  # longer where the agent uses one of the locks elsewhere with a longer TTL
        self.lost = anyio.Event()
        self.on_lost: Callable[[], None] | None = None
        self._caller = caller
        self._ttl_s = handle.ttl.total_seconds()
        self._deadline = self._trusted_until(asked_at)
        self._renew_at = asked_at + self._interval_s()
        self._answered = True
        self._released = False
        self._error: LockLost | None = None
        self._look = anyio.Event()
        self._keeping = anyio.CancelScope()

    @property
    def state(self) -> LockState:
        """What is known now. Past the local deadline it is lost, even if nothing had the time to notice before."""
        if self._released:
            return LockState.RELEASED
        if self._error is None and now_s() >= self._deadline:
            self._lose(
                f"the lock on {self._names()} could not be renewed within its TTL of {self._ttl_s:g} seconds",
                'Stop what it was for; "coordinator lock show" says who holds it now. Then acquire it anew.',
            )
        if self._error is not None:
            return LockState.LOST
        return LockState.HELD if self._answered else LockState.UNKNOWN

    @property
    def remaining_s(self) -> float:
        """For how many seconds the lock can be trusted without another renewal."""
        return max(self._deadline - now_s(), 0.0) if self.state in (LockState.HELD, LockState.UNKNOWN) else 0.0

    def check(self) -> None:
        """Go on only if the lock is held, by all that can be known without asking.

        Raises: ``LockLost``.
        """
        match self.state:
            case LockState.RELEASED:
                raise LockLost(f"the lock on {self._names()} was released", hint="Acquire it anew.")
            case LockState.LOST if self._error is not None:
                raise LockLost(
                    self._error.message, hint=self._error.hint, detail=self._error.detail, code=self._error.code
                )

    @property
    def token(self) -> int:
        """The fencing token; of locks with several, that of the newest grant.

        Raises: ``LockLost``.
        """
        self.check()
        return max(self.handle.tokens.values())

    @property
    def tokens(self) -> dict[str, int]:
        """The fencing token of each resource, under its one spelling.

        Raises: ``LockLost``.
        """
        self.check()
        return dict(self.handle.tokens)

    def look(self) -> None:
        """Renew now rather than later: there is a hint that the lock was taken away."""
        self._look.set()

    async def keep(self) -> None:
        """Renew until the lock is lost or ``end`` is called."""
        with self._keeping:
            while self.state in (LockState.HELD, LockState.UNKNOWN):
                pause_s = min(self._renew_at, self._deadline) - now_s()
                if pause_s > 0 and not self._look.is_set():
                    with anyio.move_on_after(min(pause_s, TICK_S)):
                        await self._look.wait()
                    continue
                self._look = anyio.Event()
                await self._renew()

    def end(self) -> None:
        """Renew no more; the lock is being given back."""
        self._keeping.cancel()
        if self.state is not LockState.LOST:
            self._released = True

    def lose(self, error: CoordinatorError) -> None:
        """Take the server's word that the lock is gone."""
        self._released = False
        self._lose(error.message, error.hint, detail=error.detail, code=error.code)

    async def _renew(self) -> None:
        asked_at = now_s()
        try:
            with anyio.fail_after(max(min(self._deadline - asked_at, RENEW_TIMEOUT_S), 0)):
                await self._caller.run(
                    locks.Renew(
                        project=self.handle.project,
                        resources=list(self.handle.tokens),
                        agent=self.handle.agent,
                        tokens=list(self.handle.tokens.values()),
                        ttl=self.renew_for,
                    )
                )
        except (CoordinatorError, TimeoutError) as error:
            if isinstance(error, CoordinatorError) and error.code.startswith(("ZC2", "ZC3")):
                self.lose(error)
                return
            log.warning("lock.renew_failed", resources=list(self.handle.tokens), error=str(error) or "no answer")
            self._answered = False
            self._renew_at = now_s() + min(RETRY_S, self._ttl_s / 10) * random.uniform(0.5, 1.0)  # noqa: S311
        else:
            self._answered = True
            self._deadline = self._trusted_until(asked_at)
            self._renew_at = asked_at + self._interval_s()

    def _lose(self, message: str, hint: str | None, *, detail: str | None = None, code: str | None = None) -> None:
        if self._error is not None:
            return
        self._error = LockLost(message, hint=hint, detail=detail, code=code)
        log.error("lock.lost", resources=list(self.handle.tokens), error=message)
        self.lost.set()
        if self.on_lost is not None:
            self.on_lost()

    def _trusted_until(self, asked_at: float) -> float:
        return asked_at + self._ttl_s - min(self._ttl_s / 10, MARGIN_MOST_S)

    def _interval_s(self) -> float:
        return self._ttl_s / RENEWALS_A_TTL * random.uniform(0.8, 1.0)  # noqa: S311

    def _names(self) -> str:
        names = [f'"{name}"' for name in self.handle.tokens]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
