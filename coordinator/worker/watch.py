"""Finds functions that block the event loop: a thread checks whether the loop runs and, if not, which attempt blocks it.

A blocked loop sends no heartbeats, and all other functions stop. The log names the function, its line, and how long it
blocked. A pause of the whole process is not reported: the thread must see the same attempt twice.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping

import anyio
import structlog

from coordinator.worker.attempt import Attempt

__all__ = ["watch"]

TICK_S = 0.25
BLOCKED_S = 1.0  # without a tick

log = structlog.get_logger()


class _Look:
    """The thread's observations since the last tick."""

    def __init__(self) -> None:
        self.ticked = time.monotonic()
        self._seen: Counter[Attempt] = Counter()
        self._places: dict[Attempt, str] = {}

    def tick(self) -> None:
        """Record that the loop runs, and log the function that blocked it."""
        blocked_s = time.monotonic() - self.ticked
        self.ticked = time.monotonic()
        seen, self._seen = self._seen, Counter()
        places, self._places = self._places, {}
        for suspect, times in seen.most_common(1):
            if times > 1:
                log.warning(
                    "worker.blocked",
                    job=str(suspect.grant.id),
                    type=suspect.grant.type,
                    function=suspect.handler.function.__qualname__,
                    place=places.get(suspect),
                    blocked_s=round(blocked_s, 1),
                    hint="Run blocking work with anyio.to_thread.run_sync.",
                )

    def look(self, suspect: Attempt | None, thread: int) -> None:
        """Record that an attempt blocks the loop. An attempt that runs after it, before the next tick, does not hide it."""
        if suspect is not None:
            self._seen[suspect] += 1
            if (place := _place(suspect, thread)) is not None:
                self._places[suspect] = place


def _place(attempt: Attempt, thread: int) -> str | None:
    """Return the current location of a thread within the function of an attempt."""
    code = getattr(inspect.unwrap(attempt.handler.function), "__code__", None)
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, and there is no other way
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


async def watch(attempts: Mapping[int, Attempt]) -> None:
    """Log each function of these attempts that blocks the event loop for more than a second, until cancelled."""
    loop = asyncio.get_running_loop()
    thread = threading.get_ident()
    seen = _Look()
    over = threading.Event()

    def look() -> None:
        while not over.wait(TICK_S):
            if time.monotonic() - seen.ticked > BLOCKED_S:
                task = asyncio.current_task(loop)
                running = [attempt for attempt in [*attempts.values()] if attempt.task is task and not attempt.ended]
                seen.look(running[0] if task is not None and running else None, thread)

    threading.Thread(target=look, name="coordinator-worker-watch", daemon=True).start()
    try:
        while True:
            await anyio.sleep(TICK_S)
            seen.tick()
    finally:
        over.set()
