"""Steps of jobs, durable waits, and questions that managers answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict
from uuid import UUID

from coordinator.client.caller import Duration, as_duration
from coordinator.client.job_history import JobHistory
from coordinator.client.listing import PAGE, Listing
from coordinator.errors import InvalidArgument
from coordinator.model.agent_ref import AgentRef
from coordinator.model.job import JobGrant
from coordinator.model.job_history import JobStep
from coordinator.model.job_wait import JobQuestion, JobSuspension
from coordinator.model.operation import Json
from coordinator.operations import job_waits

__all__ = ["JobWaits"]


class _AttemptFields(TypedDict):
    project: str
    job: UUID
    agent: UUID
    fence: int


class JobWaits(JobHistory):
    """Steps that a worker stores, and waits of its jobs."""

    async def _attempt(self, job: JobGrant | UUID, fence: int | None, agent: AgentRef | None) -> _AttemptFields:
        """Return the fields of an operation that identify an attempt.

        Raises: ``InvalidArgument`` if the fence or the agent is missing; ``NotFound``.
        """
        own, known = (job, None) if isinstance(job, UUID) else (job.id, job.fence)
        number = known if fence is None else fence
        if number is None:
            raise InvalidArgument(
                "the fence of the job is missing", hint="Pass what claim returned, or fence=… with the id."
            )
        return {
            "project": self._caller.project,
            "job": own,
            "agent": await self._caller.acting(agent),
            "fence": number,
        }

    async def step(
        self,
        job: JobGrant | UUID,
        step: str,
        result: Json = None,
        *,
        ordinal: int = 1,
        fence: int | None = None,
        agent: AgentRef | None = None,
    ) -> JobStep:
        """Store the result of a step, for this attempt and the next ones, which read it with ``steps``.

        ``ordinal`` distinguishes steps with one name, from 1. A repetition with the same result changes nothing.

        Raises: ``Conflict`` if the job is no longer the worker's, or the step has finished with another result.
        """
        return await self._caller.run(
            job_waits.FinishStep(step=step, result=result, ordinal=ordinal, **await self._attempt(job, fence, agent))
        )

    async def suspend(
        self,
        job: JobGrant | UUID,
        step: str,
        conditions: Iterable[Mapping[str, Json]],
        *,
        ttl: Duration | None = None,
        ordinal: int = 1,
        after: str | None = None,
        fence: int | None = None,
        agent: AgentRef | None = None,
    ) -> JobSuspension:
        """Suspend a job until the first of several conditions is met. Meanwhile, it holds no worker, slots or locks. No attempt is used up.

        A condition is ``{"at": instant}``, ``{"delay": "10m"}``, ``{"signal": key}`` (optionally with a ``value``),
        ``{"event": topic}`` (optionally with a ``key``), ``{"jobs": [ids]}`` (all, or with ``"mode": "any"``), or
        ``{"directive": id}``. The outcome becomes the result of the step: ``met`` is the index of the condition, or
        None after ``ttl``. If a condition is already met, the status is running, and ``result`` is the outcome. Events
        after the cursor ``after`` count; by default, events since the job first started.

        Raises: ``Conflict`` if the job is no longer the worker's.
        """
        return await self._caller.run(
            job_waits.Suspend(
                step=step,
                conditions=[dict(condition) for condition in conditions],
                ttl=None if ttl is None else as_duration(ttl),
                ordinal=ordinal,
                after=after,
                **await self._attempt(job, fence, agent),
            )
        )

    async def ask(
        self,
        job: JobGrant | UUID,
        step: str,
        question: str,
        *,
        options: Sequence[str] | None = None,
        ttl: Duration | None = None,
        fallback: Json = None,
        ordinal: int = 1,
        fence: int | None = None,
        agent: AgentRef | None = None,
    ) -> JobSuspension:
        """Ask managers a question, and let the job wait for the answer, without its worker. No attempt is used up.

        After ``ttl``, the answer is ``fallback``. The outcome becomes the result of the step: ``answer``, and ``by``,
        who gave it, or None.

        Raises: ``Conflict`` if the job is no longer the worker's.
        """
        return await self._caller.run(
            job_waits.Ask(
                step=step,
                question=question,
                options=None if options is None else list(options),
                ttl=None if ttl is None else as_duration(ttl),
                fallback=fallback,
                ordinal=ordinal,
                **await self._attempt(job, fence, agent),
            )
        )

    async def answer(
        self,
        job: UUID,
        value: Json,
        *,
        reason: str | None = None,
        step: str | None = None,
        ordinal: int | None = None,
    ) -> JobStep:
        """Answer the question of a job; with ``step``, only if this is its question. The agent that asked may not answer.

        Raises: ``NotFound`` if it asks nothing; ``Conflict`` if the question is closed; ``PermissionDenied``.
        """
        return await self._caller.run(
            job_waits.Answer(
                job=job, value=value, reason=reason, step=step, ordinal=ordinal, **await self._caller.author()
            )
        )

    def questions(self, *, after: str | None = None, limit: int = PAGE) -> Listing[JobQuestion]:
        """List the questions of jobs that wait for an answer, in the order of the jobs."""
        return Listing(self._caller, job_waits.ListQuestions(project=self._caller.project, limit=limit), after)
