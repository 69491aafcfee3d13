"""Work that takes minutes, with progress on standard error: on a terminal, one line that is updated; otherwise, a notice now and then.

Ctrl-C and SIGTERM cancel it; it cleans up before the program ends.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from coordinator.backup.progress import OnProgress
from coordinator.cli.invocation import Invocation
from coordinator.cli.report import notice

__all__ = ["run_reported"]

R = TypeVar("R")

NOTICE_EVERY_S = 10.0
REDRAW_EVERY_S = 0.1


def run_reported(call: Invocation, work: Callable[[OnProgress], Awaitable[R]]) -> R:
    """Run work on an event loop of its own, and show its progress.

    Raises: what the work raises; ``KeyboardInterrupt`` after Ctrl-C or SIGTERM.
    """
    import anyio  # noqa: PLC0415 - slow to import, like the import below

    from coordinator.telemetry import logs  # noqa: PLC0415

    logs.configure(level="warning")
    shown = _Shown(call.config.output)

    async def run() -> R:
        results: list[R] = []
        interrupted = False

        async def listen() -> None:
            nonlocal interrupted
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    interrupted = True
                    tasks.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                results.append(await work(shown))
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from error.__cause__
        if interrupted and not results:
            raise KeyboardInterrupt
        return results[0]

    try:
        return anyio.run(run)
    finally:
        shown.close()


class _Shown:
    """Shows progress."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._moves = sys.stderr.isatty() and form != "json"
        self._what = ""
        self._next_s = 0.0
        self._drawn = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what == self._what and now < self._next_s:
            return
        percent = 100 * done // total if total else None
        self._next_s = now + (REDRAW_EVERY_S if self._moves else NOTICE_EVERY_S)
        if self._moves:
            sys.stderr.write(f"\r\x1b[K{what}" + (f" {percent} %" if percent is not None else ""))
            sys.stderr.flush()
            self._drawn = True
        elif what != self._what or percent:
            notice(self._form, message=what + (f" {percent} %" if percent else ""), done=done, total=total)
        self._what = what

    def close(self) -> None:
        """Clear the line."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
