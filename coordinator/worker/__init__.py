"""Workers: processes that claim jobs and run them, with one function per job type.

    worker = coordinator.Worker(concurrency=20)

    @worker.job("summarize")
    async def summarize(context: coordinator.JobContext, page: Page) -> Summary: ...

    anyio.run(worker.run, "postgresql://…")         # or: coordinator worker run module:worker

Guarantees: at most ``concurrency`` jobs run at once, and a job counts until the server has acknowledged its end. An end whose answer
was lost is sent again until it is answered, and takes effect once. A function is cancelled when its job is no longer the worker's
(its fence is stale, its deadline has passed, the agent was reaped) or its cancellation was requested. Whatever it does then, the fence
keeps its result out.

On failure: while the server does not answer, functions continue, and what they returned is sent later. A worker whose agent was reaped
cancels all functions and registers again. SIGTERM or SIGINT ends a worker in order: it claims nothing more, lets the functions run for
``grace``, cancels the others and releases their jobs. A second signal ends it at once.

What it deliberately does not do: run functions in threads or processes, or stop one that blocks the event loop or ignores its
cancellation. Such a function keeps its place among those that run at once, while another worker gets the job.
"""

from __future__ import annotations

from coordinator.worker.context import JobContext
from coordinator.worker.end import FailJob, RetryJob, SnoozeJob
from coordinator.worker.worker import Worker

__all__ = ["FailJob", "JobContext", "RetryJob", "SnoozeJob", "Worker"]
