"""The context of a function: its job, and what the function can do while it runs.

Steps and waits are durable: a function starts from the beginning at each attempt, and receives the results of the steps
that are already finished. A wait whose condition is not yet met ends the attempt and frees the worker's place: the
function is cancelled there, and the next attempt continues past that point.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any, Literal, TypeVar, cast
from uuid import UUID

import anyio
import msgspec

from coordinator.backoff import Backoff
from coordinator.client import Client
from coordinator.client.caller import Duration, as_duration
from coordinator.errors import Conflict, DatabaseUnavailable, WaitTimedOut
from coordinator.model.job import JobCharge, JobGrant
from coordinator.model.job_history import JobStep
from coordinator.model.job_wait import JobSuspension
from coordinator.model.operation import Json
from coordinator.operations import jobs
from coordinator.telemetry import tracing
from coordinator.worker.journal import Journal
from coordinator.worker.output import JobOutput
from coordinator.worker.step import DurableStep

__all__ = ["JobContext", "StopReason"]


R = TypeVar("R")


class StopReason(Enum):
    """Why a worker cancels a function."""

    LOST = "the job is no longer the worker's"
    CANCELLED = "its cancellation was requested"
    RELEASED = "the worker ends"
    SUSPENDED = "the job waits without a worker"


class JobContext:
    """One attempt of a job. ``client`` is the worker's client; its calls act in the name of the worker's agent."""

    __slots__ = ("_grant", "_journal", "_output", "_stop", "checkpoint", "client")

    def __init__(self, grant: JobGrant, client: Client, stop: Callable[[StopReason], None]) -> None:
        self.client = client
        self.checkpoint: Json = grant.checkpoint
        """The value that this or an earlier attempt saved; None if none did."""
        self._grant = grant
        self._journal: Journal | None = None
        self._output: JobOutput | None = None
        self._stop = stop

    @property
    def id(self) -> UUID:
        """Id of the job."""
        return self._grant.id

    @property
    def fence(self) -> int:
        """Number of this claim, greater than those of all earlier claims. Other systems can reject requests with a smaller number."""
        return self._grant.fence

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
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
        """Payload as plain JSON, before its conversion to the type of the function."""
        return self._grant.payload

    @property
    def deadline_at(self) -> datetime | None:
        """When the attempt ends at the latest, by the clock of the database."""
        return self._grant.deadline_at

    @property
    def guard(self) -> jobs.Assert:
        """The condition that the job still belongs to this attempt: ``client.transactions.run(…, conditions=[context.guard])``."""
        return jobs.Assert(project=self.client.project, job=self.id, fence=self.fence)

    @property
    def environment(self) -> dict[str, str]:
        """The environment for a process that the function starts: the worker's, with the job, its fence, the agent, and TRACEPARENT."""
        return {
            **os.environ,
            **{name.upper(): value for name, value in tracing.headers().items()},
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

    async def spend(self, budget: str, amount: int) -> JobCharge:
        """Add ``amount`` to the job's spending of a budget. If this exhausts a budget with on_exhausted cancel, the function is cancelled.

        Raises: ``Conflict`` if the job is no longer the worker's; the function is also cancelled. ``NotFound`` if there is no such limit.
        """
        try:
            charge = await self.client.jobs.spend(self._grant, budget, amount)
        except Conflict:
            self._stop(StopReason.LOST)
            raise
        if charge.cancel_at is not None:
            self._stop(StopReason.CANCELLED)
        return charge

    async def save(self, checkpoint: Json) -> None:
        """Save a new ``checkpoint``, from which the next attempt can continue.

        Raises: ``Conflict`` if the job is no longer the worker's; the function is also cancelled.
        """
        await self.progress(checkpoint=checkpoint)

    async def output(self, chunk: Json) -> None:
        """Append a chunk to the output of the job. Readers can follow it while the job runs: ``client.jobs.follow(job)``.

        Chunks are written in batches, at most 50 ms after the first chunk of a batch, and before the job ends.

        Raises: ``TypeError`` if it is not JSON; ``Conflict`` if the job is no longer the worker's; ``InvalidArgument`` if the output
        becomes too large.
        """
        if self._output is None:
            self._output = JobOutput(self._grant, self.client)
        await self._output.add(chunk)

    @property
    def has_output(self) -> bool:
        """Whether the function has written any output."""
        return self._output is not None

    async def finish_output(self) -> None:
        """Write the rest of the output.

        Raises: what ``output`` raises.
        """
        if self._output is not None:
            await self._output.flush()

    def drop_output(self) -> None:
        """Discard the rest of the output."""
        if self._output is not None:
            self._output.drop()

    async def _finished(self, name: str, kind: str) -> tuple[int, JobStep | None]:
        """Return the ordinal of the next step with this name and kind, and the step if it is finished."""
        if self._journal is None:  # most jobs have no steps
            self._journal = Journal(self._grant, self.client)
        return await self._journal.next(name, kind)

    def step(
        self, name: str, function: Callable[..., Any] | None = None, *arguments: Any, type: Any = Any
    ) -> DurableStep:
        """Do a part of the work only once: ``await`` it with a function, or use it as a block, ``async with``.

        If an earlier attempt has stored a result, that is the result. Otherwise, it is what ``function(*arguments)`` returns or the
        block sets. It is stored as JSON, and converted to ``type`` by msgspec when it is read. In a loop, steps with one name are
        distinguished by their order. If a worker dies after the work and before the result is stored, the work is repeated.

        Raises: what the function raises; ``FailJob`` for a result that is not JSON; ``Conflict`` if the job is no longer the worker's.
        """

        async def store(ordinal: int, result: Json) -> JobStep:
            return await self._insist(lambda: self.client.jobs.step(self._grant, name, result, ordinal=ordinal))

        work = None if function is None else partial(function, *arguments)
        return DurableStep(name, partial(self._finished, name, "step"), store, work, type)

    async def first(
        self, name: str, *conditions: Mapping[str, Json], ttl: Duration | None = None, after: str | None = None
    ) -> dict[str, Any]:
        """Wait, without occupying the worker, for the first of several conditions (see ``client.jobs.suspend``); return the outcome.

        ``met`` is the index of the condition, from 0. Another key has what met it: ``at``, ``signal``, ``event``, ``jobs`` or ``directive``.

        Raises: ``WaitTimedOut`` if ``ttl`` has passed, again in each attempt; ``Conflict`` if the job is no longer the worker's.
        """
        ordinal, step = await self._finished(name, "wait")
        outcome = (
            step.result
            if step
            else await self._outcome(
                lambda: self.client.jobs.suspend(self._grant, name, conditions, ttl=ttl, ordinal=ordinal, after=after)
            )
        )
        found = cast("dict[str, Any]", outcome)
        if found["met"] is None:
            raise WaitTimedOut(
                f'the wait "{name}" is over, and nothing that it waited for happened', hint="Handle it, or wait longer."
            )
        return found

    async def sleep(self, name: str, time: Duration | datetime) -> None:
        """Wait, without occupying the worker, for a duration or until an instant."""
        at = isinstance(time, datetime)
        await self.first(name, {"at": time.isoformat()} if at else {"delay": as_duration(time).total_seconds()})  # type: ignore[union-attr, arg-type]

    async def wait_for_signal(
        self, name: str, key: str, *, value: Json | msgspec.UnsetType = msgspec.UNSET, ttl: Duration | None = None
    ) -> Json:
        """Wait, without occupying the worker, until a signal is set, or set to ``value``; return its value.

        Raises: ``WaitTimedOut``.
        """
        condition: dict[str, Json] = {"signal": key}
        if value is not msgspec.UNSET:
            condition["value"] = value
        return cast("Json", (await self.first(name, condition, ttl=ttl))["signal"]["value"])

    async def wait_for_event(
        self, name: str, topic: str, *, key: str | None = None, ttl: Duration | None = None, after: str | None = None
    ) -> dict[str, Any]:
        """Wait, without occupying the worker, for an event; return its type, key, actor, instant and data.

        Events count from the first start of the job, from the end of the previous wait with this name, or from a cursor.

        Raises: ``WaitTimedOut``.
        """
        condition: dict[str, Json] = {"event": topic} if key is None else {"event": topic, "key": key}
        return cast("dict[str, Any]", (await self.first(name, condition, ttl=ttl, after=after))["event"])

    async def wait_for_jobs(
        self, name: str, others: Iterable[UUID], *, mode: Literal["all", "any"] = "all", ttl: Duration | None = None
    ) -> dict[UUID, str | None]:
        """Wait, without occupying the worker, until other jobs end; return the status of each ended job. None: it was pruned.

        Raises: ``WaitTimedOut``.
        """
        condition: dict[str, Json] = {"jobs": [str(job) for job in others], "mode": mode}
        ended = (await self.first(name, condition, ttl=ttl))["jobs"]
        return {UUID(job): status for job, status in ended.items()}

    async def wait_for_directive(self, name: str, directive: int, *, ttl: Duration | None = None) -> dict[str, Any]:
        """Wait, without occupying the worker, until a directive is answered or ends; return its status, and who answered, with the reason.

        Raises: ``WaitTimedOut``.
        """
        return cast("dict[str, Any]", (await self.first(name, {"directive": directive}, ttl=ttl))["directive"])

    async def ask(
        self,
        name: str,
        question: str,
        *,
        options: Sequence[str] | None = None,
        ttl: Duration | None = None,
        fallback: Json = None,
    ) -> Json:
        """Ask managers a question, and wait for the answer without occupying the worker. After ``ttl``, the answer is ``fallback``.

        Raises: ``WaitTimedOut`` if nobody answered, and there is no fallback.
        """
        ordinal, step = await self._finished(name, "answer")
        outcome = (
            step.result
            if step
            else await self._outcome(
                lambda: self.client.jobs.ask(
                    self._grant, name, question, options=options, ttl=ttl, fallback=fallback, ordinal=ordinal
                )
            )
        )
        found = cast("dict[str, Any]", outcome)
        if found["by"] is None and found["answer"] is None:
            raise WaitTimedOut(f'nobody answered the question "{name}"', hint="Give a fallback, or ask again.")
        return cast("Json", found["answer"])

    async def _outcome(self, suspend: Callable[[], Awaitable[JobSuspension]]) -> Json:
        """Return the outcome of a finished wait; otherwise end the attempt."""
        await self.finish_output()
        suspension = await self._insist(suspend)
        if suspension.status != "running":
            self._stop(StopReason.SUSPENDED)
            await anyio.sleep_forever()
        return suspension.result

    async def _insist(self, call: Callable[[], Awaitable[R]]) -> R:
        """Call until there is a response: repeating a call returns the result of the call whose response was lost."""
        backoff = Backoff()
        while True:
            try:
                return await call()
            except DatabaseUnavailable:
                await backoff.wait()
            except Conflict as error:
                if error.code == "ZC320":
                    self._stop(StopReason.LOST)
                raise
