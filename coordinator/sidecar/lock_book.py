"""The locks that the agent acquired through the sidecar, renewed while the agent lives.

Guarantees: each lock has a lease (see ``client.lease``), whose state the book reports. Locks of one owner are renewed
together, as many per call as the server allows. A lost lock stays in the report for a while, so that its holder can
learn of it.

What it deliberately does not do: acquire anything again, or track locks that the agent acquired elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Any
from uuid import UUID

import anyio
import msgspec
import structlog

from coordinator.client.lease import ATTEMPT_MAX_S, Lease, LeaseState, is_refusal, now_s
from coordinator.db.session import ServerSession
from coordinator.errors import CoordinatorError
from coordinator.model.catalogue import LIMITS
from coordinator.model.lease import LeaseChange, LeaseStep
from coordinator.model.operation import Operation
from coordinator.operations import locks

__all__ = ["LockBook", "LockReport"]

TICK_S = 0.2
LOST_SHOWN = 1000  # lost locks that stay in the report
WAITS = 10_000  # tickets that are remembered

_Key = tuple[str, str, str]  # project, owner, resource

log = structlog.get_logger()


class LockReport(msgspec.Struct, frozen=True):
    """The state of a lock: HELD, UNKNOWN or LOST; it can be trusted for ``remaining_s`` without a renewal."""

    project: str
    resource: str
    fencing_token: int
    state: str
    remaining_s: float
    owner: str


class _Entry(msgspec.Struct):
    """A lock. ``doubtful``: it may have been released, under another spelling or as often as acquired; its next renewal shows this."""

    token: int
    lease: Lease
    expires_at: datetime | None
    uses: int = 1  # acquisitions by a named owner, each of which is released
    doubtful: bool = False
    logged: bool = False  # whether its loss was logged

    def renewed(self, asked_at: float, ttl_s: float | None, expires_at: datetime | None) -> None:
        """Record a response. If the lock still ends when it did before, the response has extended nothing."""
        if expires_at != self.expires_at:
            self.lease.answered(asked_at, ttl_s)
        elif ttl_s is not None:
            self.lease.renew_for(ttl_s)
        self.expires_at = expires_at


class LockBook:
    """Made once, by the sidecar. Renews over ``session``, which other calls do not keep busy.

    ``answers`` returns whether the other side can be reached now; ``agent`` is set once it is known, with its ``name`` and ``project``.
    """

    def __init__(self, session: ServerSession, answers: Callable[[], bool]) -> None:
        self.agent: UUID | None = None
        self.name = self.project = ""
        self._session = session
        self._answers = answers
        self._entries: dict[_Key, _Entry] = {}
        self._waits: dict[int | None, tuple[float, str]] = {}  # TTL in seconds, and owner, by ticket

    def note(self, operation: Operation[Any], result: Any, asked_at: float) -> None:
        """Record an operation's changes to the agent's leases."""
        changes = [
            change
            for change in operation.leases(result)
            if change.holder == self.agent or (change.project, change.holder) == (self.project, self.name)
        ]
        for change in changes:
            self._note(change, asked_at)
        for change in changes:
            if change.step is not LeaseStep.WAITING:
                self._waits.pop(change.ticket, None)

    def report(self) -> list[LockReport]:
        """Return the state of each lock, without a call to the server."""
        return [
            LockReport(key[0], key[2], entry.token, self._state(entry).name, round(entry.lease.remaining_s, 3), key[1])
            for key, entry in sorted(self._entries.items(), key=itemgetter(0))
        ]

    async def run_forever(self) -> None:
        """Renew until cancelled."""
        while True:
            await anyio.sleep(TICK_S)
            await self.renew()
            self._tidy()

    async def renew(self) -> None:
        """Renew locks that are due, together with those that will soon be due."""
        for holder in {key[:2] for key, entry in self._entries.items() if entry.lease.due}:
            soon = {key: entry for key, entry in self._entries.items() if key[:2] == holder and entry.lease.nearly_due}
            for batch in _batches(soon, LIMITS["lock_resources"]):
                await self._renew(batch)

    def _note(self, change: LeaseChange, asked_at: float) -> None:
        key, entry = self._find(change)
        ttl_s, owner = self._waits.get(change.ticket, (None, change.owner or ""))
        if change.ttl is not None:
            ttl_s = change.ttl.total_seconds()
        match change.step:
            case LeaseStep.WAITING if ttl_s is not None:
                if len(self._waits) >= WAITS:
                    del self._waits[next(iter(self._waits))]
                self._waits[change.ticket] = ttl_s, owner
            case LeaseStep.GRANTED | LeaseStep.RENEWED if entry is not None:
                entry.renewed(asked_at, ttl_s, change.expires_at)
                entry.uses += change.step is LeaseStep.GRANTED and owner != "" and change.ticket is None
            case LeaseStep.GRANTED if ttl_s is not None and change.token is not None:
                key = change.project, owner, change.name or ""
                self._entries[key] = _Entry(change.token, Lease(ttl_s, asked_at), change.expires_at)
            case LeaseStep.ENDED if key is not None and entry is not None and entry.uses == 1:
                del self._entries[key]
            case LeaseStep.ENDED:
                for other_key, other in self._entries.items():
                    if (other_key[0], other.token) == (change.project, change.token):
                        other.uses = max(other.uses - (other is entry), 1)
                        other.doubtful = True
                        other.lease.hurry()

    def _find(self, change: LeaseChange) -> tuple[_Key | None, _Entry | None]:
        """Return the lock that a change concerns, if it is known: a token is granted to one owner only."""
        likely = change.project, change.owner or "", change.name or ""
        if likely in self._entries and self._entries[likely].token == change.token:
            return likely, self._entries[likely]
        for key, entry in self._entries.items():
            if (key[0], key[2], entry.token) == (change.project, change.name, change.token):
                return key, entry
        return None, None

    def _state(self, entry: _Entry) -> LeaseState:
        state = entry.lease.state
        return LeaseState.UNKNOWN if state is LeaseState.HELD and not self._answers() else state

    async def _renew(self, entries: dict[_Key, _Entry]) -> None:
        """Renew locks of one owner in one call. If the call is refused, split it in halves until the lost ones are known."""
        # Locks that were released meanwhile are gone, and a resource may have been acquired again.
        entries = {key: entry for key, entry in entries.items() if self._entries.get(key) is entry}
        if not entries or self.agent is None:
            return
        project, owner, _ = next(iter(entries))
        asked_at = now_s()
        try:
            with anyio.fail_after(ATTEMPT_MAX_S):
                renewals = await self._session.run(
                    locks.Renew(
                        project=project,
                        resources=[resource for _, _, resource in entries],
                        agent=self.agent,
                        tokens=[entry.token for entry in entries.values()],
                    )
                )
        except (CoordinatorError, TimeoutError) as error:
            if not isinstance(error, CoordinatorError) or not is_refusal(error):
                log.warning("lock.renew_failed", project=project, count=len(entries), error=str(error) or "no answer")
                for entry in entries.values():
                    entry.lease.unanswered()
            elif len(entries) > 1:
                for half in _batches(entries, (len(entries) + 1) // 2):
                    await self._renew(half)
            else:
                ((key, entry),) = entries.items()
                self._lose(key, entry, error)
        else:
            for renewal in renewals:
                entry = entries[project, owner, renewal.resource]
                entry.doubtful = False
                entry.renewed(asked_at, None, renewal.expires_at)

    def _lose(self, key: _Key, entry: _Entry, error: CoordinatorError) -> None:
        if self._entries.get(key) is not entry:  # released meanwhile, or acquired again
            return
        if entry.doubtful:
            del self._entries[key]
        else:
            entry.lease.refused()
            entry.logged = True
            log.error("lock.lost", project=key[0], resource=key[2], token=entry.token, error=error.message)

    def _tidy(self) -> None:
        """Log which locks were not renewed in time, and forget the oldest ones if many are lost."""
        lost = [key for key, entry in self._entries.items() if entry.lease.state is LeaseState.LOST]
        for key in lost:
            entry = self._entries[key]
            if not entry.logged:
                entry.logged = True
                log.error("lock.lost", project=key[0], resource=key[2], token=entry.token, error="not renewed in time")
        for key in lost[: max(0, len(lost) - LOST_SHOWN)]:
            del self._entries[key]


def _batches(entries: dict[_Key, _Entry], size: int) -> Iterator[dict[_Key, _Entry]]:
    items = iter(entries.items())
    while batch := dict(islice(items, size)):
        yield batch
