"""The jobs that the agent claimed through the sidecar, compared at least at each heartbeat with the jobs that the server knows.

Guarantees: if a claim had no response, because the connection to the server broke or the agent disconnected, its jobs
are released. Jobs that no longer belong to the agent, or whose cancellation was requested, are in the report. A lost
job stays there for a while, so that the agent can learn of it.

What it deliberately does not do: track jobs that the agent claimed elsewhere. If the agent claims some jobs through the
sidecar, it must claim all of them there: jobs that the book does not know are released.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import anyio
import msgspec
import structlog

from coordinator.client.jobs import GRACE_S, NOTICE_S
from coordinator.client.lease import RENEWALS_PER_TTL, LeaseState, is_refusal
from coordinator.db.session import ServerSession
from coordinator.errors import CoordinatorError
from coordinator.model.catalogue import LIMITS
from coordinator.model.operation import Operation
from coordinator.operations import jobs
from coordinator.progress import Progress

__all__ = ["JobBook", "JobReport"]

LOST_SHOWN = 1000  # lost jobs that stay in the report

log = structlog.get_logger()


class JobReport(msgspec.Struct, frozen=True):
    """The state of a job: HELD, UNKNOWN (no response), CANCELLED (a cancellation was requested: stop) or LOST.

    The agent stops the work on a lost job, and drops its result.
    """

    project: str
    job: UUID
    fence: int
    state: str


class JobBook:
    """Made once, by the sidecar. ``agent`` is set once it is known, with its ``name`` and ``project``."""

    def __init__(self, session: ServerSession) -> None:
        self.agent: UUID | None = None
        self.name = self.project = ""
        self._session = session
        self._claims = False
        self._jobs: dict[int, UUID] = {}  # by fence
        self._told: dict[int, str] = {}  # the states of jobs that are not simply held
        self._progress = Progress()

    def expect(self, operation: Operation[Any]) -> None:
        """Record that an operation begins: with or without a response, the agent may then have jobs."""
        self._claims = self._claims or (isinstance(operation, jobs.Claim) and self._is_own(operation))

    def note(self, operation: Operation[Any], result: Any) -> None:
        """Record an operation's changes to the agent's jobs."""
        match operation:
            case jobs.Claim() if self._is_own(operation):
                for fence in operation.fences:
                    self._forget(fence)
                self._jobs.update({grant.fence: grant.id for grant in result if not grant.stale})
            case jobs.Complete() | jobs.Fail() | jobs.Snooze() | jobs.Release() if self._is_own(operation):
                self._forget(operation.fence)
        for part in operation.parts():
            self.note(part, None)

    def report(self, agent: LeaseState) -> list[JobReport]:
        """Return the state of each job, given the state of the agent, without a call to the server."""
        held = agent.name if agent in (LeaseState.UNKNOWN, LeaseState.LOST) else LeaseState.HELD.name
        return [
            JobReport(self.project, job, fence, held if agent is LeaseState.LOST else self._told.get(fence, held))
            for fence, job in sorted(self._jobs.items())
        ]

    async def run_forever(self, ttl_s: float) -> None:
        """Reconcile with each heartbeat, and often enough to notice a cancellation in time, until cancelled."""
        while True:
            await anyio.sleep(min(ttl_s / RENEWALS_PER_TTL, NOTICE_S))
            if self._claims:
                await self.reconcile()

    async def reconcile(self) -> None:
        """Compare the jobs with those that the server knows."""
        if self.agent is None:
            return
        held = [fence for fence in self._jobs if self._told.get(fence) != "LOST"]
        grace = timedelta(seconds=GRACE_S)
        fences = held[-LIMITS["job_fences"] :]
        try:
            verdicts = await self._session.run(
                jobs.Reconcile(project=self.project, agent=self.agent, fences=fences, grace=grace)
            )
        except CoordinatorError as error:
            if is_refusal(error):
                self._claims = False  # the agent has ended
            elif self._progress.failed(error):
                log.warning("job.reconcile_failed", error=error.message)
            return
        self._progress.made()
        for verdict in verdicts:
            if verdict.verdict == "released":
                log.warning("job.released", job=str(verdict.id), reason="the answer of its claim was lost")
            elif verdict.fence in self._jobs:
                state = "LOST" if verdict.verdict == "lost" else "CANCELLED"
                if self._told.get(verdict.fence) != state:
                    self._told[verdict.fence] = state
                    log.warning(f"job.{state.lower()}", job=str(self._jobs[verdict.fence]), fence=verdict.fence)  # noqa: G004
        lost = [fence for fence, state in self._told.items() if state == "LOST"]
        for fence in lost[: max(0, len(lost) - LOST_SHOWN)]:
            self._forget(fence)

    def _is_own(self, operation: jobs.Claim | jobs.Complete | jobs.Fail | jobs.Snooze | jobs.Release) -> bool:
        return operation.agent == self.agent or (operation.project, operation.agent) == (self.project, self.name)

    def _forget(self, fence: int) -> None:
        self._jobs.pop(fence, None)
        self._told.pop(fence, None)
