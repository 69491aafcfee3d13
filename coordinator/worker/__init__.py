"""Workers: processes that claim jobs and run them, with one function per job type.

    worker = coordinator.Worker(concurrency=20)

    @worker.job("summarize")
    async def summarize(context: coordinator.JobContext, page: Page) -> Summary: ...

    anyio.run(worker.run, "postgresql://…")         # or: coordinator worker run module:worker

Guarantees: at most ``concurrency`` jobs run at once. A job counts until the server has acknowledged its end. If the
response to an end is lost, the end is sent again until there is a response, and takes effect once. A function is
cancelled if its job no longer belongs to the worker (its fence is stale, its deadline has passed, the agent was reaped),
or if its cancellation was requested. Whatever the function does then, the fence keeps its result out.

On failure: while the server does not respond, functions continue, and their results are sent later. A worker whose agent
was reaped cancels all functions and registers again. SIGTERM or SIGINT ends a worker in order: it claims no more jobs,
lets functions run for ``grace``, cancels the others and releases their jobs. A second signal ends it at once.

What it deliberately does not do: run functions in threads or processes, or stop a function that blocks the event loop or
ignores its cancellation. Such a function keeps its place in ``concurrency``, while another worker gets the job.
"""

from __future__ import annotations

from coordinator.worker.context import JobContext
from coordinator.worker.end import FailJob, RetryJob, SnoozeJob
from coordinator.worker.worker import Worker

__all__ = ["FailJob", "JobContext", "RetryJob", "SnoozeJob", "Worker"]
