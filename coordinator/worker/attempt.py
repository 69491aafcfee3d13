"""One attempt of a job: the function that runs, and the call that ends it."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import anyio
import msgspec

from coordinator.client import Client
from coordinator.model.job import JobGrant
from coordinator.worker.context import JobContext, StopReason
from coordinator.worker.end import End, end_of
from coordinator.worker.handler import Handler

__all__ = ["Attempt"]


class Attempt:
    """A job that the worker has. ``task`` runs its function; ``error`` is what the function raised, ``result`` what it returned."""

    __slots__ = ("began_s", "context", "error", "grant", "handler", "result", "scope", "stopped", "task")

    def __init__(self, grant: JobGrant, handler: Handler, client: Client) -> None:
        self.grant = grant
        self.handler = handler
        self.began_s = time.monotonic()
        self.scope = anyio.CancelScope()
        self.stopped: StopReason | None = None
        self.result: msgspec.Raw | None = None
        self.error: BaseException | None = None
        self.context = JobContext(grant, client, self.stop)
        self.task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the function has not ended yet."""
        return self.result is None and self.error is None and not (self.task is not None and self.task.done())

    def stop(self, reason: StopReason) -> None:
        """Cancel the function. That the job is lost outweighs what else was said."""
        if self.running and (self.stopped is None or reason is StopReason.LOST):
            self.stopped = reason
            self.scope.cancel()

    async def run(self) -> None:
        """Run the function, and keep what it returned or raised.

        Raises: ``KeyboardInterrupt``, and the cancellation of this task itself.
        """
        try:
            with self.scope:
                returned = await self.handler.function(self.context, self.handler.payload(self.grant.payload))
                self.result = self.handler.result(returned)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self.error = error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit of a library, too, ends the attempt and not the worker
            self.error = error

    @property
    def end(self) -> End | None:
        """The call that ends the attempt; None if the server knows of its end already, or is about to release the job."""
        match self.stopped:
            case StopReason.LOST | StopReason.RELEASED:
                return None
            case StopReason.CANCELLED:
                return partial(self.context.client.jobs.release, self.grant)
        return end_of(self.error or asyncio.CancelledError(), self.context.client, self.grant)
