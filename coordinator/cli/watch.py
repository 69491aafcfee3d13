"""Running a program for each event: ``coordinator event watch``.

Guarantees: events are handled in order, one at a time, each at least once. With a cursor file, no event is lost over a
restart: the file contains the position after the last event whose handler succeeded, and replaces the old one only once
it is on disk. Two watches cannot use the same cursor file: the second is refused.

On failure: if a handler fails, the watch ends with its exit code, and the next run repeats that event. The watch waits
while the connection is lost. SIGTERM is forwarded to the running handler, and the watch ends after it. If the watch is
killed, its handler continues, and the event is repeated, so handlers must tolerate repetition.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec

from coordinator.cli.invocation import Invocation
from coordinator.cli.report import report
from coordinator.cli.tail import Tail
from coordinator.errors import ConfigurationError, Conflict
from coordinator.model.event import Event
from coordinator.operations import events

__all__ = ["Watch"]


class Watch(Tail):
    """One run of ``coordinator event watch``."""

    def __init__(self, call: Invocation, handler: str, cursor_file: Path | None, after: str, **options: Any) -> None:
        self._handler = handler
        self._file = None if cursor_file is None else _CursorFile(cursor_file)
        self._after = after
        self._process: asyncio.subprocess.Process | None = None
        self._failed: tuple[int, str] | None = None
        super().__init__(call, after=after, follow=True, **options)

    def run(self) -> None:
        """Handle events until the end.

        Raises: as ``Tail.run``; ``SystemExit`` with the exit code of a handler that failed; ``Conflict`` if another
        watch uses the cursor file.
        """
        if self._file is None:
            super().run()
        else:
            with self._file.held():
                self._reader.after = self._file.read() or self._first()
                super().run()
        if self._failed:
            code, cursor = self._failed
            report(
                self._call.config.output,
                name="handler-failed",
                code="handler",
                message=f"the handler of the event at cursor {cursor} failed with exit code {code}",
                hint="Correct it, and run the watch again: it repeats this event."
                if self._file
                else "Correct it. With --cursor-file the next run repeats the event.",
            )
            raise SystemExit(code)

    def _first(self) -> str:
        """Store the first position, so that "now" is the time of the first start and not of the first event."""
        assert self._file is not None  # noqa: S101 - the only caller has one
        cursor = self._call.run(events.Head()) if self._after == "now" else self._after
        self._file.write(cursor)
        return cursor

    async def _take(self, batch: list[Event]) -> bool:
        for event in batch:
            code = await self._handled(event)
            if code:
                self._failed = (code, event.cursor)
                return True
            self._save(event.cursor)
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    return True
        if self._reader.after is not None:
            self._save(self._reader.after)
        return False

    def _save(self, cursor: str) -> None:
        if self._file is not None:
            self._file.write(cursor)

    async def _handled(self, event: Event) -> int:
        """Run the handler, and return its exit code. A shutdown waits for the handler."""
        environment = {
            **os.environ,
            "COORDINATOR_EVENT_TYPE": event.type,
            "COORDINATOR_EVENT_KEY": event.key or "",
            "COORDINATOR_EVENT_CURSOR": event.cursor,
        }
        with anyio.CancelScope(shield=True):
            self._process = process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", self._handler), stdin=asyncio.subprocess.PIPE, env=environment
            )
            await process.communicate(msgspec.json.encode(event) + b"\n")
            self._process = None
        code = process.returncode or 0
        return code if code >= 0 else 128 - code

    async def _until_shutdown(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                scope.cancel()
                if number == signal.SIGTERM and self._process is not None:  # the terminal sends SIGINT to all processes
                    with suppress(ProcessLookupError):
                        self._process.terminate()


class _CursorFile:
    """A position in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the file for this process.

        Raises: ``Conflict`` if another process has locked it; ``ConfigurationError`` if it cannot be used.
        """
        with self._usable():
            lock = self._path.with_name(f"{self._path.name}.lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"another watch uses the cursor file {self._path}", hint="End it, or give another --cursor-file."
                ) from None
            yield

    def read(self) -> str | None:
        """Return the position; None if the file does not exist yet."""
        with self._usable():
            if not self._path.exists():
                return None
            self._written = self._path.read_text("utf-8").strip()
        if not self._written:
            raise ConfigurationError(
                f"the cursor file {self._path} is empty",
                hint='Write a cursor into it, or delete it to start at --after, which is "now" by default.',
            )
        return self._written

    def write(self, cursor: str) -> None:
        """Replace the position, and sync it to disk."""
        if cursor == self._written:
            return
        temporary = self._path.with_name(f"{self._path.name}.new")
        with self._usable():
            with temporary.open("w", encoding="utf-8") as file:
                file.write(f"{cursor}\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        self._written = cursor

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeDecodeError) as error:
            reason = (error.strerror or error) if isinstance(error, OSError) else "it is not text"
            raise ConfigurationError(
                f"cannot use the cursor file {self._path}: {reason}", hint="Give a file that this user can write."
            ) from error
