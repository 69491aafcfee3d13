"""Printing the output of a job, and following it."""

from __future__ import annotations

import sys
from contextlib import aclosing

import anyio
import msgspec

from coordinator.backoff import Backoff
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.errors import DatabaseUnavailable
from coordinator.model.job_history import JobChunk
from coordinator.model.page import after_last, walk
from coordinator.operations.job_history import ReadOutput
from coordinator.operations.waiting import followed

__all__ = ["print_output"]


def print_output(call: Invocation, read: ReadOutput, *, follow: bool) -> str | None:
    """Print what there is or, with ``follow``, all up to the end of the job. Return the job's status if it has ended.

    Raises: ``NotFound``; ``DatabaseUnavailable``.
    """
    return anyio.run(_follow if follow else _print, call, read)


async def _print(call: Invocation, read: ReadOutput) -> str | None:
    async with call.open() as executor:
        status = None
        async for page in walk(executor.run, read):
            status = await _write(call, page)
    return status


async def _follow(call: Invocation, read: ReadOutput) -> str | None:
    backoff = Backoff(0.1, 5.0)
    connected = lost = False
    while True:
        try:
            async with (
                call.open(direct=True) as executor,
                executor.wake(project=call.project, topics=read.woken_by) as wake,
                aclosing(followed(executor, read, wake)) as pages,
            ):
                if lost:
                    sys.stderr.write("connected again\n")
                connected, lost = True, False
                async for page in pages:
                    backoff.reset()
                    read = msgspec.structs.replace(read, after=after_last(read, page))
                    if (status := await _write(call, page)) is not None:
                        return status
        except DatabaseUnavailable as error:
            if not connected:
                raise
            if not lost:
                sys.stderr.write(plain(f"{error.message}; trying again") + "\n")
            lost = True
        await backoff.wait()


async def _write(call: Invocation, chunks: list[JobChunk]) -> str | None:
    """Print chunks; return the status that follows them."""
    status = None
    for chunk in chunks:
        if chunk.status is not None:
            status = chunk.status
        elif call.output.json:
            await call.output.lines([msgspec.json.encode(chunk).decode()])
        elif isinstance(chunk.chunk, str):
            call.output.raw("\n".join(plain(line) for line in chunk.chunk.split("\n")))
        else:
            call.output.line(msgspec.json.encode(chunk.chunk).decode())
    return status
