"""The finished steps of a job, across its attempts: by name and, for steps of one name, by order.

A function that runs again asks for the same steps in the same order, and receives the stored results. So its sequence
of steps must not depend on anything that differs between two attempts.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import anyio

from coordinator.client import Client
from coordinator.model.job import JobGrant
from coordinator.model.job_history import JobStep
from coordinator.worker.end import FailJob

__all__ = ["Journal"]


class Journal:
    """The finished steps of a job, read at the first question if the claim reported any."""

    __slots__ = ("_client", "_finished", "_job", "_names", "_reading")

    def __init__(self, grant: JobGrant, client: Client) -> None:
        self._client = client
        self._job: UUID = grant.id
        self._names: Counter[str] = Counter()
        self._finished: dict[tuple[str, int], JobStep] | None = None if grant.steps else {}
        self._reading = anyio.Lock()

    async def next(self, name: str, kind: str) -> tuple[int, JobStep | None]:
        """Return the ordinal of the next step of this name, and the step if it is finished.

        Raises: ``FailJob`` if it is of another kind.
        """
        self._names[name] += 1
        ordinal = self._names[name]
        if self._finished is None:
            async with self._reading:
                if self._finished is None:
                    self._finished = {
                        (step.name, step.ordinal): step async for step in self._client.jobs.steps(self._job)
                    }
        step = self._finished.get((name, ordinal))
        if step is not None and step.kind != kind:
            raise FailJob(f'step "{name}" ({ordinal}) has finished as a {step.kind}, and is a {kind} now')
        return ordinal, step
