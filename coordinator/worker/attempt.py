"""One attempt of a job: the running function, and the call that ends the attempt."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial

import anyio
import msgspec

from coordinator.client import Client
from coordinator.errors import CoordinatorError
from coordinator.model.job import JobGrant
from coordinator.telemetry import tracing
from coordinator.worker.context import JobContext, StopReason
from coordinator.worker.end import End, SnoozeJob, end_of
from coordinator.worker.handler import Handler

__all__ = ["Attempt"]

OUTPUT_S = 5.0  # for the remaining output of a function that raised an exception


class Attempt:
    """A job that the worker has. ``error`` is what its function raised, ``result`` what it returned; ``ended``: it runs no more.

    ``task`` runs it, within ``scope``; both may be those of attempts before it.
    """

    __slots__ = (
        "began_s",
        "client",
        "ended",
        "error",
        "grant",
        "handler",
        "result",
        "scope",
        "stopped",
        "task",
        "trace_id",
    )

    def __init__(self, grant: JobGrant, handler: Handler, client: Client) -> None:
        self.grant = grant
        self.handler = handler
        self.client = client
        self.began_s = time.monotonic()
        self.scope: anyio.CancelScope | None = None
        self.stopped: StopReason | None = None
        self.result: msgspec.Raw | None = None
        self.error: BaseException | None = None
        self.ended = False
        self.trace_id: str | None = None
        self.task: asyncio.Task[None] | None = None

    def stop(self, reason: StopReason) -> None:
        """Cancel the function. The reason "lost" overrides any other reason."""
        if not self.ended and (self.stopped is None or reason is StopReason.LOST):
            self.stopped = reason
            if self.scope is not None:
                self.scope.cancel()

    async def run(self) -> None:
        """Run the function, and keep what it returned or raised.

        Raises: ``KeyboardInterrupt``, and the cancellation of the scope or of this task itself.
        """
        context = JobContext(
            self.grant, self.client, self.stop
        )  # of this frame alone: it refers to the attempt, as a cycle would
        try:
            returned = await self.handler.function(context, self.handler.payload(self.grant.payload))
            result = self.handler.result(returned)
            if context.has_output:
                await context.finish_output()
            self.result = result
        except asyncio.CancelledError as error:
            if self.stopped is not None or (self.task is not None and self.task.cancelling()):
                raise
            self.error = error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit of a library, too, ends the attempt and not the worker
            with suppress(CoordinatorError), anyio.move_on_after(OUTPUT_S):
                await context.finish_output()
            self.error = error
        finally:
            context.drop_output()

    def span(self) -> tracing.Span:
        """Return the span of this attempt, which continues the trace of the call that enqueued the job."""
        grant = self.grant
        if grant.traceparent is None and not tracing.on():
            return tracing.OFF
        return tracing.received(
            f"process {grant.queue}",
            "consumer",
            {
                "messaging.system": "coordinator",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": grant.queue or "",
                "messaging.message.id": str(grant.id),
                "coordinator.project": self.client.project,
                "coordinator.job.type": grant.type or "",
                "coordinator.job.attempt": grant.attempt or 1,
            }
            if tracing.on()
            else {},
            tracing.parsed(grant.traceparent),
        )

    @property
    def failure(self) -> str | None:
        """How the attempt failed; None if it did not fail, was suspended, or was snoozed."""
        if self.stopped is not None:
            return None if self.stopped is StopReason.SUSPENDED else self.stopped.name.lower()
        return None if self.error is None or isinstance(self.error, SnoozeJob) else type(self.error).__name__

    @property
    def end(self) -> End | None:
        """The call that ends the attempt; None if the server already knows of its end, or is about to release the job."""
        match self.stopped:
            case StopReason.LOST | StopReason.RELEASED | StopReason.SUSPENDED:
                return None
            case StopReason.CANCELLED:
                return partial(self.client.jobs.release, self.grant)
        return end_of(self.error or asyncio.CancelledError(), self.client, self.grant)
