"""Finish the clean-up of a request, even if the task that needs it is cancelled.

A cancel scope of anyio only shields from other scopes, not from ``asyncio.Task.cancel`` and ``asyncio.timeout``. So the
work runs in a task of the client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import anyio
from anyio.abc import TaskGroup

__all__ = ["finish"]

Ts = TypeVarTuple("Ts")


async def finish(tasks: TaskGroup, work: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
    """Run work that limits its own time, and wait for its end; the work finishes even if this wait is cancelled."""
    done = anyio.Event()

    async def run() -> None:
        try:
            with anyio.CancelScope(shield=True):
                await work(*args)
        finally:
            done.set()

    tasks.start_soon(run)
    with anyio.CancelScope(shield=True):
        await done.wait()
