"""Functions that run jobs. usage: coordinator worker run examples.tasks:worker, or tasks.py URL.

In another terminal: coordinator job wait "$(coordinator job enqueue summarize '{"text": "Of mice and men"}' --output text)"
"""

import sys

import anyio
import msgspec

from coordinator import FailJob, JobContext, Worker

worker = Worker(concurrency=20)


class Text(msgspec.Struct):
    text: str


class Summary(msgspec.Struct):
    words: int
    by: str


@worker.job("summarize")
async def summarize(context: JobContext, payload: Text) -> Summary:
    words = payload.text.split()
    if not words:
        raise FailJob("the text is empty")  # another attempt would not help
    for number, _ in enumerate(words, context.checkpoint or 0):  # continue where an earlier attempt ended
        await context.progress(100 * number / len(words), checkpoint=number)
    return Summary(len(words), by=context.client.agent.name)


@worker.job("shell")
async def shell(context: JobContext, command: list[str]) -> str:
    """Run a command that can report progress itself: coordinator job progress "$COORDINATOR_JOB_ID" --fence "$COORDINATOR_JOB_FENCE"."""
    # A failure raises an exception, and the job is retried.
    done = await anyio.run_process(command, env=context.environment)
    return done.stdout.decode()


if __name__ == "__main__":
    anyio.run(worker.run, *sys.argv[1:])
