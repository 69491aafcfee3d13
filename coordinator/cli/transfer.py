"""Exports to a file or standard output, and imports from standard input, with progress on a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
import msgspec

from coordinator.cli.invocation import Invocation
from coordinator.cli.output import counted, plain
from coordinator.errors import CoordinatorError, DatabaseUnavailable, InvalidArgument
from coordinator.model.page import walk
from coordinator.model.transfer import ImportProgress, place_of_line
from coordinator.operations.transfers import Export, Import, import_lines

__all__ = ["export_project", "import_project"]

TELL_S = 1.0
BLOCK = 1 << 16


class _Teller:
    """Shows the number of processed lines on a terminal, once a second."""

    def __init__(self, call: Invocation, what: str) -> None:
        self._shown = sys.stderr.isatty()
        self._call = call
        self._what = what
        self._told_at = time.monotonic()

    def tell(self, lines: int) -> None:
        if self._shown and time.monotonic() - self._told_at >= TELL_S:
            self._told_at = time.monotonic()
            sys.stderr.write(f"{self._what} {counted(lines, 'line')}\n")


def export_project(call: Invocation, project: str, path: Path | None) -> None:
    """Write the export of a project to standard output, or to a file; continue a partial file after its last whole line. Then print the number of lines.

    Raises: ``InvalidArgument`` if the file is not an export; what ``Export`` raises.
    """
    operation: Export | None = Export(project=project)
    count = 0
    if path is not None and path.exists() and (line := _last_line(path)):
        count = _count(path)
        try:
            after = place_of_line(msgspec.json.decode(line, type=dict))
        except (msgspec.MsgspecError, KeyError):
            raise InvalidArgument(f"{path} is not an export of a project", hint="Give another file.") from None
        operation = Export(project=project, after=after) if after is not None else None

    async def copy(operation: Export) -> None:
        nonlocal count
        progress = _Teller(call, "exported")
        async with call.open() as executor:
            async for page in walk(executor.run, operation):
                lines = [row.line for row in page]
                if path is None:
                    await call.output.lines(lines)
                else:
                    await anyio.to_thread.run_sync(_append, path, lines)
                count += len(lines)
                progress.tell(count)

    if operation is not None:
        with _continues() if path is not None else nullcontext():
            anyio.run(copy, operation)
    if path is not None:
        done = {"project": project, "file": str(path), "lines": count}
        call.output.one(done, f"exported {plain(project)}, {counted(count, 'line')} in {plain(str(path))}")


def import_project(call: Invocation, project: str, *, allow_missing_users: bool) -> None:
    """Import the lines of standard input into a project, and print their number.

    Raises: what ``import_lines`` raises.
    """
    progress = _Teller(call, "imported")

    async def copy() -> ImportProgress:
        async with call.open() as executor:

            async def run(operation: Import) -> ImportProgress:
                return await executor.run(operation)

            return await import_lines(
                run,
                project,
                _lines(sys.stdin.buffer),
                allow_missing_users=allow_missing_users,
                actor=call.config.actor,
                progress=lambda now: progress.tell(now.lines),
            )

    with _continues():
        done = anyio.run(copy)
    call.output.one(done, f"imported {counted(done.lines, 'line')} into {plain(done.project)}")


@contextmanager
def _continues() -> Iterator[None]:
    """Add to the hint of a database that was lost that the command can be repeated."""
    try:
        yield
    except DatabaseUnavailable as error:
        error.hint = f"{error.hint or error.remedy} Run the command again to continue."
        raise


async def _lines(source: BinaryIO) -> AsyncIterator[bytes]:
    while line := await anyio.to_thread.run_sync(source.readline, abandon_on_cancel=True):
        yield line


def _append(path: Path, lines: list[str]) -> None:
    try:
        with path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise CoordinatorError(
            f"cannot write {path}: {error.strerror}", hint="Run the export again to continue."
        ) from error


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))


def _last_line(path: Path) -> bytes:
    """Return the last whole line of a file; remove any partial line after it."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        tail = b""
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            tail = file.read(end - start) + tail
            end = start
            whole = tail.rpartition(b"\n")[0]
            if b"\n" in whole or end == 0:
                break
        whole, newline, _ = tail.rpartition(b"\n")
        file.truncate(end + len(whole) + len(newline))
        return whole.rpartition(b"\n")[2]
