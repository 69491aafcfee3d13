"""The locks that the agent acquired through the sidecar: renewed as long as it lives, and honest about what is known.

Guarantees: a lock is renewed every third of its TTL, those of a project in one call; its state is as in
``client.held``: held as the last answer said, unknown while nobody answers, and lost when the server says so or from a
deadline on that comes before the server's, for good. A lost lock is shown for a while, so that its holder can learn of
it.

What it deliberately does not do: acquire anything again; know locks that the agent acquired elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import anyio
import msgspec
import structlog

from coordinator.client.held import LockState, now_s
from coordinator.db.session import Session
from coordinator.errors import Conflict, CoordinatorError, InvalidArgument, NotFound
from coordinator.model.lock import Grant
from coordinator.model.operation import Operation
from coordinator.operations import locks

__all__ = ["LockBook", "LockReport"]

RENEWALS_A_TTL = 3
TICK_S = 0.2
RETRY_S = 0.5
RENEW_TIMEOUT_S = 5.0
MARGIN_MOST_S = 5.0
PAGE = 1000  # locks that are renewed in one call
LOST_SHOWN = 1000  # lost locks that are remembered

log = structlog.get_logger()


class LockReport(msgspec.Struct, frozen=True):
    """What is known of a lock: ``state`` HELD, UNKNOWN or LOST, ``remaining_s``: trusted so long without a renewal."""

    project: str
    resource: str
    fencing_token: int
    state: str
    remaining_s: float


class _Kept(msgspec.Struct):
    """A lock. ``renewed_at`` and ``tried_at``: when it was last asked for, with an answer and without.

    ``released``: it may have been given back, under another spelling of its name.
    """

    token: int
    ttl_s: float
    renewed_at: float
    tried_at: float
    answered: bool = True
    lost: bool = False
    released: bool = False

    @property
    def deadline(self) -> float:
        return self.renewed_at + self.ttl_s - min(self.ttl_s / 10, MARGIN_MOST_S)

    def due(self, now: float) -> bool:
        if self.lost:
            return False
        if not self.answered and now - self.tried_at < min(RETRY_S, self.ttl_s / 10):
            return False
        return self.released or now - self.renewed_at >= self.ttl_s / RENEWALS_A_TTL


class LockBook:
    """Made once, by the sidecar. It renews over ``session``, which no other call keeps busy.

    ``answers`` tells whether the other side can be reached now; ``agent`` is set once it is known.
    """

    def __init__(self, session: Session, answers: Callable[[], bool]) -> None:
        self.agent: UUID | None = None
        self._session = session
        self._answers = answers
        self._locks: dict[tuple[str, str], _Kept] = {}
        self._waits: dict[int, float] = {}  # TTL of those who wait, by ticket

    def note(self, operation: Operation[Any], result: Any, asked_at: float) -> None:
        """Take down what an operation of the agent changed."""
        if self.agent is None or getattr(operation, "agent", None) != self.agent:
            return
        match operation:
            case locks.Acquire():
                self._granted(operation.project, result, operation.ttl.total_seconds(), asked_at)
            case locks.Poll():
                self._granted(operation.project, result, self._waits.get(operation.ticket, 0), asked_at)
            case locks.Cancel():
                self._waits.pop(operation.ticket, None)
            case locks.Renew():
                for renewal in result:
                    kept = self._locks.get((operation.project, renewal.resource))
                    if kept is not None and kept.token == renewal.fencing_token:
                        kept.renewed_at, kept.answered = asked_at, True
                        kept.ttl_s = kept.ttl_s if operation.ttl is None else operation.ttl.total_seconds()
            case locks.Release():
                self._forget(operation.project, set(operation.tokens), operation.resources)

    def report(self) -> list[LockReport]:
        """Tell what is known of each lock now, without asking."""
        return [
            LockReport(
                project,
                resource,
                kept.token,
                self._state(kept).name,
                0.0 if self._state(kept) is LockState.LOST else round(max(kept.deadline - now_s(), 0), 3),
            )
            for (project, resource), kept in sorted(self._locks.items())
        ]

    async def run_forever(self) -> None:
        """Renew until cancelled."""
        while True:
            await anyio.sleep(TICK_S)
            now = now_s()
            due: dict[str, list[str]] = {}
            for (project, resource), kept in self._locks.items():
                if self._state(kept) is not LockState.LOST and kept.due(now):
                    due.setdefault(project, []).append(resource)
            for project, resources in due.items():
                for place in range(0, len(resources), PAGE):
                    await self._renew(project, resources[place : place + PAGE])

    def _granted(self, project: str, grants: Sequence[Grant], ttl_s: float, asked_at: float) -> None:
        for grant in grants:
            if not grant.granted or grant.fencing_token is None:
                if grant.ticket is not None:
                    self._waits[grant.ticket] = ttl_s
                continue
            if grant.ticket is not None:
                self._waits.pop(grant.ticket, None)
            if not ttl_s and grant.acquired_at is not None:  # the request was not seen: as the server says
                ttl_s = (grant.expires_at - grant.acquired_at).total_seconds()
            self._locks[project, grant.resource] = _Kept(grant.fencing_token, ttl_s, asked_at, asked_at)

    def _forget(self, project: str, tokens: set[int], resources: Sequence[str]) -> None:
        """Forget what was given back; where a name is spelled otherwise than the grant did, the next renewal tells."""
        own = {key: kept for key, kept in self._locks.items() if key[0] == project and kept.token in tokens}
        known = [key for key in own if key[1] in resources]
        for key in known:
            del self._locks[key]
        if len(known) < len(set(resources)):
            for kept in own.values():
                kept.released = True

    def _state(self, kept: _Kept) -> LockState:
        if not kept.lost and now_s() >= kept.deadline:
            kept.lost = True
            log.error("lock.lost", token=kept.token, error="it could not be renewed within its TTL")
        if kept.lost:
            return LockState.LOST
        return LockState.HELD if kept.answered and self._answers() else LockState.UNKNOWN

    async def _renew(self, project: str, resources: Sequence[str]) -> None:
        held = {
            resource: self._locks[project, resource] for resource in resources if (project, resource) in self._locks
        }
        if not held or self.agent is None:
            return
        asked_at = now_s()
        operation = locks.Renew(
            project=project, resources=list(held), agent=self.agent, tokens=[kept.token for kept in held.values()]
        )
        try:
            with anyio.fail_after(RENEW_TIMEOUT_S):
                await self._session.run(operation)
        except (Conflict, NotFound, InvalidArgument) as error:
            if len(held) > 1:  # all or none: find out which
                for resource in held:
                    await self._renew(project, [resource])
                return
            self._lose(project, held, error)
        except (CoordinatorError, TimeoutError) as error:
            log.warning("lock.renew_failed", project=project, count=len(held), error=str(error) or "no answer")
            for kept in held.values():
                kept.answered, kept.tried_at = False, asked_at
        else:
            for kept in held.values():
                kept.answered, kept.released, kept.renewed_at = True, False, max(kept.renewed_at, asked_at)

    def _lose(self, project: str, held: Iterable[str], error: CoordinatorError) -> None:
        for resource in held:
            kept = self._locks.get((project, resource))
            if kept is not None and kept.released:
                del self._locks[project, resource]
            elif kept is not None and not kept.lost:
                kept.lost = True
                log.error("lock.lost", project=project, resource=resource, token=kept.token, error=error.message)
        gone = [key for key, kept in self._locks.items() if kept.lost]
        for key in gone[: max(0, len(gone) - LOST_SHOWN)]:
            del self._locks[key]
