"""What a function knows of its job, and what it can do while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from uuid import UUID

from coordinator.client import Client
from coordinator.errors import Conflict
from coordinator.model.job import JobGrant
from coordinator.model.operation import Json
from coordinator.operations import jobs
from coordinator.worker.output import JobOutput

__all__ = ["JobContext", "StopReason"]


class StopReason(Enum):
    """Why a worker cancels a function."""

    LOST = "the job is no longer the worker's"
    CANCELLED = "its cancellation was requested"
    RELEASED = "the worker ends"


class JobContext:
    """One attempt of a job. ``client`` is the worker's own; through it, calls speak in the name of the worker's agent."""

    __slots__ = ("_grant", "_output", "_stop", "checkpoint", "client")

    def __init__(self, grant: JobGrant, client: Client, stop: Callable[[StopReason], None]) -> None:
        self.client = client
        self.checkpoint: Json = grant.checkpoint
        """What an earlier attempt saved, or this one; None: nothing."""
        self._grant = grant
        self._output: JobOutput | None = None
        self._stop = stop

    @property
    def id(self) -> UUID:
        """Id of the job."""
        return self._grant.id

    @property
    def fence(self) -> int:
        """Number of this claim, greater than those of all earlier claims. Other systems can refuse what has a smaller one."""
        return self._grant.fence

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._grant.attempt or 1

    @property
    def type(self) -> str:
        """Type of the job."""
        return self._grant.type or ""

    @property
    def queue(self) -> str:
        """Queue of the job."""
        return self._grant.queue or ""

    @property
    def key(self) -> str | None:
        """Key of the job."""
        return self._grant.key

    @property
    def payload(self) -> Json:
        """Payload as plain JSON, before it was converted to the type of the function."""
        return self._grant.payload

    @property
    def deadline_at(self) -> datetime | None:
        """When the attempt ends at the latest, by the clock of the database."""
        return self._grant.deadline_at

    @property
    def guard(self) -> jobs.Assert:
        """The condition that this attempt still has its job: ``client.transactions.run(…, conditions=[context.guard])``."""
        return jobs.Assert(project=self.client.project, job=self.id, fence=self.fence)

    @property
    def environment(self) -> dict[str, str]:
        """The environment for a process that the function starts: that of the worker, with the job, its fence and the agent."""
        return {
            **os.environ,
            "COORDINATOR_PROJECT": self.client.project,
            "COORDINATOR_AGENT_ID": str(self.client.agent.id),
            "COORDINATOR_JOB_ID": str(self.id),
            "COORDINATOR_JOB_FENCE": str(self.fence),
        }

    async def progress(
        self, percent: float | None = None, message: str | None = None, *, checkpoint: Json = None
    ) -> None:
        """Report progress, and in ``checkpoint`` what a next attempt can continue from. A job with a stall time needs it.

        Raises: ``Conflict`` if the job is no longer the worker's; the function is also cancelled.
        """
        try:
            lease = await self.client.jobs.progress(self._grant, percent, message, checkpoint=checkpoint)
        except Conflict:
            self._stop(StopReason.LOST)
            raise
        if checkpoint is not None:
            self.checkpoint = checkpoint
        if lease.cancel_at is not None:
            self._stop(StopReason.CANCELLED)

    async def save(self, checkpoint: Json) -> None:
        """Save what a next attempt can continue from: a new value of ``checkpoint``.

        Raises: ``Conflict`` if the job is no longer the worker's; the function is also cancelled.
        """
        await self.progress(checkpoint=checkpoint)

    async def output(self, chunk: Json) -> None:
        """Append a chunk to the output of the job, for readers who do not wait for its end: ``client.jobs.follow(job)``.

        Chunks are written together, at the latest 50 ms after the first of them, and before the job ends.

        Raises: ``TypeError`` if it is not JSON; ``Conflict`` if the job is no longer the worker's; ``InvalidArgument`` if the output
        becomes too large.
        """
        if self._output is None:
            self._output = JobOutput(self._grant, self.client)
        await self._output.add(chunk)

    async def finish_output(self, *, drop: bool = False) -> None:
        """Write what is left of the output, or drop it.

        Raises: what ``output`` raises.
        """
        if self._output is not None:
            if drop:
                self._output.drop()
            else:
                await self._output.flush()
