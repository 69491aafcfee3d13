"""Printing the output of a job, and following it."""

from __future__ import annotations

import anyio
import msgspec

from coordinator.cli.follow import follow as followed
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.model.job_history import JobChunk
from coordinator.model.page import walk
from coordinator.operations.job_history import ReadOutput

__all__ = ["print_output"]


def print_output(call: Invocation, read: ReadOutput, *, follow: bool) -> str | None:
    """Print the existing output or, with ``follow``, all output until the job ends. Return the job's status if it has ended.

    Raises: ``NotFound``; ``DatabaseUnavailable``.
    """
    return anyio.run(_follow if follow else _print, call, read)


async def _print(call: Invocation, read: ReadOutput) -> str | None:
    async with call.open() as executor:
        status = None
        async for page in walk(executor.run, read):
            status = await _write(call, page)
    return status


async def _follow(call: Invocation, read: ReadOutput) -> str:
    return await followed(call, read, lambda chunks: _write(call, chunks))


async def _write(call: Invocation, chunks: list[JobChunk]) -> str | None:
    """Print chunks; return the status that follows them, if any."""
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
