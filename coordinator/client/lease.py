"""The local clock of a lease: whether it can be trusted, for how long, and when to renew it.

Its owner calls the server and reports each outcome: renewed, no response, or refused. What is leased does not matter
here: locks and the registration of an agent both end at their TTL unless they are renewed.

Guarantees: the local deadline comes before the server's. It counts from before the request was sent, minus a margin for
clocks that differ in speed, so a slow response cannot extend it. Every check compares it with a clock that includes the
time during which the machine was suspended; a timer would not fire in a paused process. A lost lease stays lost,
whatever response arrives later.

A ``revivable`` lease is one that the server may keep beyond its TTL. After the deadline, it is UNKNOWN instead of LOST,
and the next response decides.

What it deliberately does not do: call the server, or acquire anything again.
"""

from __future__ import annotations

import random
import time
from enum import Enum

import anyio

from coordinator.errors import CoordinatorError

__all__ = ["Lease", "LeaseState", "is_refusal", "now_s"]

RENEWALS_PER_TTL = 3
RENEW_WITH_OTHERS = 0.5  # of the interval: after it, a renewal joins others that are due
RETRIES_PER_TTL = 10
RETRY_MAX_S = 1.0
ATTEMPT_MAX_S = 5.0
MARGIN_MAX_S = 5.0
TICK_S = 1.0  # the event loop's timers do not count suspended time, so check the clock at least this often


class LeaseState(Enum):
    """The state of a lease, as far as it is known without a call to the server."""

    HELD = "held, as the last response said"
    UNKNOWN = "the server does not answer; trusted until the local deadline"
    LOST = "no longer held"
    RELEASED = "released by its owner"


def now_s() -> float:
    """Return the time of a clock that never goes back and includes suspended time, like the database's clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def is_refusal(error: CoordinatorError) -> bool:
    """Return whether an error means that the server has ended the lease, not only that an attempt to renew it failed."""
    return error.code.startswith(("ZC2", "ZC3"))


class Lease:
    """The clock of one lease, granted for ``ttl_s`` by the response to a request that was sent at ``asked_at``."""

    def __init__(self, ttl_s: float, asked_at: float, *, revivable: bool = False) -> None:
        self._revivable = revivable
        self._ended: LeaseState | None = None
        self._known = True
        self._ttl_s = ttl_s
        self._asked_at = self._deadline = self._renew_at = 0.0
        self._count_from(asked_at)

    @property
    def state(self) -> LeaseState:
        """The current state."""
        if self._ended is None and self._past_deadline and not self._revivable:
            self._ended = LeaseState.LOST
        if self._ended is not None:
            return self._ended
        return LeaseState.HELD if self._known and not self._past_deadline else LeaseState.UNKNOWN

    @property
    def live(self) -> bool:
        """Whether the lease is neither lost nor released."""
        return self.state in (LeaseState.HELD, LeaseState.UNKNOWN)

    @property
    def remaining_s(self) -> float:
        """Seconds for which the lease can be trusted without another renewal."""
        return max(self._deadline - now_s(), 0.0) if self.live else 0.0

    @property
    def renew_in_s(self) -> float:
        """Seconds until the next renewal; not beyond the deadline, so that a loss is noticed."""
        at = self._renew_at if self._revivable else min(self._renew_at, self._deadline)
        return max(at - now_s(), 0.0)

    @property
    def due(self) -> bool:
        """Whether it is time to renew."""
        return self.live and self.renew_in_s == 0

    @property
    def nearly_due(self) -> bool:
        """Whether to renew if another lease is due: one call can renew many leases, and leases that are renewed together stay together."""
        early_s = self._ttl_s / RENEWALS_PER_TTL * (1 - RENEW_WITH_OTHERS)
        return self.live and (self.renew_in_s <= early_s or not self._known)

    @property
    def attempt_s(self) -> float:
        """How long one attempt to renew may take."""
        return ATTEMPT_MAX_S if self._revivable else min(self.remaining_s, ATTEMPT_MAX_S)

    def answered(self, asked_at: float, ttl_s: float | None = None) -> None:
        """Record that the server renewed the lease, for another TTL if one is given."""
        if not self.live or asked_at < self._asked_at:
            return
        self._known = True
        self._ttl_s = self._ttl_s if ttl_s is None else ttl_s
        self._count_from(asked_at)

    def unanswered(self) -> None:
        """Record that an attempt to renew had no response, and try again soon."""
        self._known = False
        self._renew_at = now_s() + min(self._ttl_s / RETRIES_PER_TTL, RETRY_MAX_S) * _jitter(0.5)

    def renew_for(self, ttl_s: float) -> None:
        """Record that the server will renew the lease for another TTL; it has not done so yet."""
        self._ttl_s = ttl_s
        self._renew_at = min(self._renew_at, now_s() + ttl_s / RENEWALS_PER_TTL)

    def refused(self) -> None:
        """Record that the server reported the lease as ended."""
        self._ended = LeaseState.LOST

    def release(self) -> None:
        """Record that the owner releases the lease; a lost one stays lost."""
        if self.live:
            self._ended = LeaseState.RELEASED

    def hurry(self) -> None:
        """Renew now: there is a hint that the lease has ended."""
        self._renew_at = now_s()

    async def wait_due(self, hint: anyio.Event) -> None:
        """Wait until it is time to renew, the lease has ended, or there is a hint."""
        while self.live and self.renew_in_s > 0 and not hint.is_set():
            with anyio.move_on_after(min(self.renew_in_s, TICK_S)):
                await hint.wait()

    @property
    def _past_deadline(self) -> bool:
        return now_s() >= self._deadline

    def _count_from(self, asked_at: float) -> None:
        self._asked_at = asked_at
        self._deadline = asked_at + self._ttl_s - min(self._ttl_s / 10, MARGIN_MAX_S)
        self._renew_at = asked_at + self._ttl_s / RENEWALS_PER_TTL * _jitter(0.8)


def _jitter(least: float) -> float:
    return random.uniform(least, 1.0)  # noqa: S311 - spreads calls, not security-relevant
