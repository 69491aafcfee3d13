"""The work of one agent: it claims jobs, runs their functions, and ends them, until it stops or is reaped.

One call both ends completed jobs and claims as many again; two or three such calls may be in progress. The agent looks
for jobs when a hint says that there may be some, if the last call found some, with each completion, and every 10
seconds. Hints come from the events in ``Claim.woken_by``, over one listening connection.

A job occupies a place from its claim, or from the request for it, until the server has acknowledged its end.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import structlog

from coordinator.backoff import Backoff
from coordinator.client import Client
from coordinator.client.caller import as_duration
from coordinator.client.jobs import GRACE_S, NOTICE_S
from coordinator.errors import Conflict, CoordinatorError, DatabaseUnavailable, InvalidArgument, NotFound
from coordinator.model.catalogue import LIMITS
from coordinator.model.job import JobGrant
from coordinator.operations import jobs
from coordinator.progress import Progress
from coordinator.telemetry import cause, tracing
from coordinator.worker.attempt import Attempt
from coordinator.worker.context import StopReason
from coordinator.worker.end import End, FailJob, SnoozeJob, end_of
from coordinator.worker.watch import watch

if TYPE_CHECKING:
    from coordinator.worker.worker import Worker

__all__ = ["Shift"]

BATCH = 200  # jobs that one call claims and ends
BATCH_BYTES = 1 << 19  # total size of results; an HTTP body is limited to a megabyte
CALLS = 2  # in progress at once
MOST_CALLS = 3  # if there are places for as many batches: one is written to disk while others run
POLL_S = 30.0  # in addition to the time after which a listening connection gives a hint without an event
FUTILE = 3  # calls in a row that found nothing; after that, there is a pause between calls
PAUSE_S = 0.05
STOP_S = 5.0  # for functions that were cancelled
ABORT_S = 0.5  # for the same, when nothing else is waited for
CANCEL = "job.cancel_requested"
UNSURE_S = 60.0
LATE_S = 1.0  # the server has ended an attempt this long after its deadline

log = structlog.get_logger()


class Shift:
    """From the registration of an agent to its end."""

    def __init__(self, worker: Worker, client: Client, stop: anyio.Event) -> None:
        self._worker = worker
        self._client = client
        self._stop = stop
        self._over = anyio.Event()  # the shift ends, for whatever reason
        self._attempts: dict[int, Attempt] = {}  # by fence: running, or with an end that is not acknowledged yet
        self._pending: deque[Attempt] = deque()  # not started yet
        self._done: list[Attempt] = []  # completed, for the next call
        self._reserved = 0  # places for jobs that calls in progress may return
        self._looking = 0  # calls in progress that look for jobs
        self._due = True  # look for jobs: there may be some
        self._plenty = False  # the last call found as many jobs as it could
        self._hints = 0
        self._futile = 0
        self._looked_at = 0.0
        self._changed = anyio.Event()
        self._stirred = False  # whether it is set; faster than asking the event
        self._doubt = anyio.Event()  # the server may have ended an attempt
        self._ends: set[asyncio.Task[None]] = set()
        self._progress = Progress()
        self._unsure_until = (
            0.0  # until then, a call whose response was lost may have claimed jobs that are unknown here
        )

    async def work(self) -> None:
        """Work until the worker shall stop, or the agent is reaped.

        Raises: ``CoordinatorError`` where another attempt would not help.
        """
        failure: BaseException | None = None
        time_s = ABORT_S
        cause.identify(project=self._client.project, agent=self._client.agent.name)
        log.info(
            "worker.started",
            agent=self._client.agent.name,
            id=str(self._client.agent.id),
            project=self._client.project,
            types=sorted(self._worker.handlers),
            concurrency=self._worker.concurrency,
            **({"queues": self._worker.queues} if self._worker.queues else {}),
        )
        try:
            async with anyio.create_task_group() as tasks:
                for event in (self._stop, self._client.agent.lost):
                    tasks.start_soon(self._end_with, event)
                tasks.start_soon(self._hear)
                tasks.start_soon(self._reconcile_forever)
                tasks.start_soon(watch, self._attempts)
                for _ in range(max(CALLS, min(MOST_CALLS, self._worker.concurrency // BATCH))):
                    tasks.start_soon(self._claim_forever)
                await self._over.wait()
                if self._client.agent.lost.is_set():
                    time_s = STOP_S
                else:
                    await self._finish()
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            failure = group
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
        finally:
            await self._abandon(time_s)
        if failure is not None:
            raise failure

    async def _end_with(self, event: anyio.Event) -> None:
        await event.wait()
        self._over.set()
        while self._pending:  # so that it is released
            self._attempts.pop(self._pending.popleft().grant.fence)
        self._change()

    async def _finish(self) -> None:
        """Let functions finish within the grace time, cancel the others, and report every end to the server."""
        for time_s in (as_duration(self._worker.grace).total_seconds(), STOP_S):
            with anyio.move_on_after(time_s):
                while self._attempts and not self._client.agent.lost.is_set():
                    await self._change_made()
            for attempt in [*self._attempts.values()]:
                attempt.stop(StopReason.RELEASED)

    async def _abandon(self, time_s: float) -> None:
        """Cancel what still runs. A function that ignores this keeps its place; the end of the agent releases its job."""
        self._pending.clear()
        running = [attempt for attempt in self._attempts.values() if attempt.task is not None and not attempt.ended]
        for attempt in running:
            attempt.stop(StopReason.LOST)
        for end in self._ends:
            end.cancel()
        tasks = {attempt: attempt.task for attempt in running if attempt.task is not None}
        if tasks:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(tasks.values(), timeout=time_s)
        for attempt, task in tasks.items():
            if not task.done():
                log.error(
                    "job.stuck",
                    job=str(attempt.grant.id),
                    type=attempt.grant.type,
                    hint="Its function ignores its cancellation. Another worker gets the job.",
                )
                self._worker.stuck.add(task)
                task.add_done_callback(self._worker.stuck.discard)

    def _change(self) -> None:
        """Wake waiting tasks, so that they check again."""
        if not self._stirred:
            self._stirred = True
            self._changed.set()

    async def _change_made(self) -> None:
        """Wait for a change since the caller's last check, after which it has not waited for anything else."""
        if self._stirred:
            self._stirred = False
            self._changed = anyio.Event()
        await self._changed.wait()

    # Claiming.

    @property
    def _free(self) -> int:
        return self._worker.concurrency - len(self._attempts) - self._reserved - len(self._worker.stuck)

    async def _hear(self) -> None:
        """Look for jobs when a hint says that there may be some, and at intervals."""
        wake = self._client.events.wake(topics=[*jobs.Claim.woken_by, CANCEL])
        while True:
            await wake.wait(POLL_S)
            if not wake.topics or CANCEL in wake.topics:
                self._doubt.set()
            if wake.topics != {CANCEL}:
                self._hints += 1
                self._due = True
                self._change()

    async def _claim_forever(self) -> None:
        while True:
            done, room, wait_s = self._next()
            if done or room:
                await self._trip(done, room)
                continue
            with anyio.move_on_after(wait_s):
                await self._change_made()

    def _next(self) -> tuple[list[Attempt], int, float | None]:
        """Return what the next call ends, and how many jobs it may return; if neither, how long to wait for a change."""
        done, size = 0, 0
        while done < min(len(self._done), BATCH) and (not done or size < BATCH_BYTES):
            size += len(self._done[done].result or b"")
            done += 1
        wait_s = None
        looks = bool(done) or (self._due and (not self._looking or self._plenty))
        if self._over.is_set():
            looks = False
        elif looks and not done and self._futile >= FUTILE:
            wait_s = self._looked_at + PAUSE_S - time.monotonic()
            looks = wait_s <= 0
        room = min(BATCH, max(0, self._free + done)) if looks else 0
        ends, self._done = self._done[:done], self._done[done:]
        return ends, room, wait_s

    async def _trip(self, done: list[Attempt], room: int) -> None:
        """Make one call, and repeat it until there is a response: end finished jobs, and claim as many as there are free places."""
        reserved = max(0, room - len(done))
        self._reserved += reserved
        self._looking += room > 0
        hints = self._hints
        try:
            grants = await self._claim(done, room)
        finally:
            self._reserved -= reserved
            self._looking -= room > 0
        if grants is None:
            self._change()
            return
        stale = {grant.fence for grant in grants if grant.stale}
        for attempt in done:
            self._acknowledge(attempt, lost=attempt.grant.fence in stale)
        fresh = [grant for grant in grants if not grant.stale]
        if room:
            self._looked_at = time.monotonic()
            self._plenty = len(fresh) == room
            self._futile = 0 if fresh else self._futile + 1
            self._due = bool(fresh) or self._hints != hints
        self._take(fresh)
        self._spread(1)
        self._change()
        if fresh and self._over.is_set():
            await self._reconcile(0.0)

    async def _claim(self, done: list[Attempt], room: int) -> list[JobGrant] | None:
        """Return the claimed jobs; None if the server rejected a result and so the whole call, whose jobs have then been ended one by one."""
        request_id = uuid4()
        queues = self._worker.queues or None
        backoff = Backoff()
        while True:
            finished: Any = [(attempt.grant, attempt.result) for attempt in done]
            try:
                grants = await self._client.jobs.claim(room, queues=queues, finished=finished, request_id=request_id)
            except InvalidArgument as error:
                if not done:
                    raise
                await self._complete_each(done, error)
                return None
            except (DatabaseUnavailable, Conflict) as error:
                self._call_failed(error)
                await backoff.wait()
            except NotFound:
                self._client.agent.lose()
                await anyio.sleep_forever()
            else:
                self._call_succeeded()
                return grants

    async def _complete_each(self, done: Sequence[Attempt], refusal: InvalidArgument) -> None:
        """Complete jobs one by one, because one of their results was rejected; fail the jobs with such results."""
        log.debug("job.batch_refused", error=refusal.message)
        for attempt in done:
            result: Any = attempt.result
            complete = partial(self._client.jobs.complete, attempt.grant, result)
            if await self._insist(complete, attempt):
                self._acknowledge(attempt, lost=False)
            else:
                self._forget(attempt)

    def _take(self, grants: Sequence[JobGrant]) -> None:
        """Accept jobs; if the shift is ending, release them instead."""
        if self._over.is_set():
            return
        for grant in grants:
            attempt = Attempt(grant, self._worker.handlers[grant.type or ""], self._client)
            self._attempts[grant.fence] = attempt
            self._pending.append(attempt)

    # Running.

    def _spread(self, tasks: int) -> None:
        """Have more tasks run what is pending, twice as many as before as long as functions wait for something.

        A function that waits for nothing costs no task of its own: one runs all of them.
        """
        if self._pending:
            loop = asyncio.get_running_loop()
            for _ in range(min(tasks, len(self._pending))):
                loop.create_task(self._run_pending())  # noqa: RUF006 - an attempt refers to it
            loop.call_soon(self._spread, 2 * tasks)

    async def _run_pending(self) -> None:
        """Run one attempt after the other, until one was cancelled, or has left something in the context of this task."""
        task = asyncio.current_task()
        before = copy_context()
        with anyio.CancelScope() as scope:
            while self._pending:
                attempt = self._pending.popleft()
                attempt.task, attempt.scope = task, scope
                with attempt.span() as span:
                    if self._worker.logs_jobs:
                        attempt.trace_id = tracing.trace_id()
                        facts = {"fence": attempt.grant.fence, "attempt": attempt.grant.attempt}
                        log.info("job.started", job=str(attempt.grant.id), type=attempt.grant.type, **facts)
                    try:
                        if attempt.stopped is None:
                            await attempt.run()
                    finally:
                        if (failure := attempt.failure) is not None:
                            span.fail(failure)
                        self._run_ended(attempt)
                if attempt.stopped is not None or copy_context() != before:
                    break

    # Ending.

    def _run_ended(self, attempt: Attempt) -> None:
        attempt.ended = True
        if attempt.result is not None and attempt.stopped is not StopReason.LOST:
            self._done.append(attempt)
            self._change()
            return
        self._say(attempt)
        if (end := attempt.end) is None:
            self._forget(attempt)
            return
        task = asyncio.create_task(self._end(attempt, end))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def _say(self, attempt: Attempt) -> None:
        """Log how an attempt ended that did not complete."""
        facts = {"job": str(attempt.grant.id), "type": attempt.grant.type, "attempt": attempt.grant.attempt}
        if attempt.stopped is StopReason.SUSPENDED:
            log.info("job.suspended", **facts)
        elif attempt.stopped is not None:
            log.warning("job.stopped", **facts, reason=attempt.stopped.value)
        elif isinstance(attempt.error, SnoozeJob):
            log.info("job.snoozed", **facts, delay_s=attempt.error.delay.total_seconds())
        else:
            log.warning("job.failed", **facts, error=f"{type(attempt.error).__name__}: {attempt.error}"[:500])

    async def _end(self, attempt: Attempt, end: End) -> None:
        try:
            await self._insist(end, attempt)
        except CoordinatorError as error:  # the next claim will fail in the same way
            log.warning("job.end_failed", job=str(attempt.grant.id), error=error.message, hint=error.hint)
        finally:
            self._forget(attempt)

    async def _insist(self, end: End, attempt: Attempt) -> bool:
        """Call until there is a response, and return whether the attempt ended as intended.

        It did not if the job no longer belonged to the worker: then the call is refused. But if an earlier response was lost, that call
        probably took effect. It also did not if the values of the call were refused: then the job fails.
        """
        backoff = Backoff()
        asked = refused = False
        while True:
            try:
                await end()
            except DatabaseUnavailable as error:
                asked = True
                self._call_failed(error)
            except InvalidArgument as error:
                log.warning("job.end_refused", job=str(attempt.grant.id), type=attempt.grant.type, error=error.message)
                refused = True
                reason = f"its end was refused: {error.message}" + (f" ({error.hint})" if error.hint else "")
                end = end_of(FailJob(reason), self._client, attempt.grant)
            except NotFound:
                self._client.agent.lose()
                return False
            except Conflict as error:
                if error.code.startswith("ZC"):
                    if not asked:
                        log.warning("job.lost", job=str(attempt.grant.id), type=attempt.grant.type, error=error.message)
                    return asked
                self._call_failed(error)
            else:
                self._call_succeeded()
                return not refused
            await backoff.wait()

    def _acknowledge(self, attempt: Attempt, *, lost: bool) -> None:
        self._forget(attempt)
        if lost:
            log.warning("job.lost", job=str(attempt.grant.id), type=attempt.grant.type, error="its result was dropped")
        elif self._worker.logs_jobs:
            seconds = round(time.monotonic() - attempt.began_s, 3)
            facts = {} if attempt.trace_id is None else {"trace_id": attempt.trace_id}  # its span has ended
            log.info("job.completed", job=str(attempt.grant.id), type=attempt.grant.type, seconds=seconds, **facts)

    def _forget(self, attempt: Attempt) -> None:
        """Free the place of an attempt."""
        self._attempts.pop(attempt.grant.fence, None)
        self._change()

    # Reconciling with the server.

    async def _reconcile_forever(self) -> None:
        """Compare the attempts with those that the server knows, at least as often as the heartbeat, and when one is in doubt."""
        ttl_s = self._client.agent.ttl.total_seconds()
        while True:
            with anyio.move_on_after(min(ttl_s / 3, NOTICE_S, max(self._next_deadline_s(), LATE_S))):
                await self._doubt.wait()
            self._doubt = anyio.Event()
            if self._attempts or time.monotonic() < self._unsure_until:
                await self._reconcile()

    def _next_deadline_s(self) -> float:
        """Return after how many seconds the server has ended the next attempt whose deadline passes."""
        now = datetime.now(UTC)
        return min(
            (
                (attempt.grant.deadline_at - now).total_seconds() + LATE_S
                for attempt in self._attempts.values()
                if attempt.grant.deadline_at is not None
            ),
            default=float("inf"),
        )

    async def _reconcile(self, grace_s: float = GRACE_S) -> None:
        fences = list(self._attempts)[: LIMITS["job_fences"]]
        try:
            verdicts = await self._client.jobs.reconcile(fences, grace=grace_s)
        except NotFound:
            self._client.agent.lose()
            return
        except (DatabaseUnavailable, Conflict) as error:
            self._call_failed(error)
            return
        self._call_succeeded()
        for verdict in verdicts:
            attempt = self._attempts.get(verdict.fence)
            if verdict.verdict == "released":
                reason = StopReason.RELEASED.value if self._over.is_set() else "the answer of its claim was lost"
                log.warning("job.released", job=str(verdict.id), reason=reason)
            elif attempt is not None:
                attempt.stop(StopReason.LOST if verdict.verdict == "lost" else StopReason.CANCELLED)

    def _call_failed(self, error: CoordinatorError) -> None:
        self._unsure_until = time.monotonic() + UNSURE_S
        if self._progress.failed(error):
            log.warning("worker.calls_failed", error=error.message, hint=error.hint)

    def _call_succeeded(self) -> None:
        if self._progress.made():
            log.info("worker.calls_resumed")
