"""Archives ended jobs as compressed JSON lines before they are pruned.

A file has the completed or the uncompleted jobs of one day (``jobs_completed_20261126.jsonl.gz``). Jobs of days without
their own partition are in files of up to 10,000 jobs, named after the first one. A file gets its name only after it was
read back and found complete, and nothing is pruned before that. After a failure, the run is repeated from the
beginning; an existing file is replaced by one with the same content.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from typing import IO

import anyio.to_thread
from msgspec.structs import replace

from coordinator.errors import CoordinatorError
from coordinator.loops.loop import Loop, LoopRun
from coordinator.model.catalogue import LIMITS
from coordinator.model.job_history import PrunableJobs
from coordinator.model.page import walk
from coordinator.operations import job_history
from coordinator.operations.executor import Runner

__all__ = ["ArchivingPrune"]


class ArchivingPrune(Loop, frozen=True, kw_only=True):
    """Prunes ended jobs that it has archived in ``folder``."""

    operation: job_history.Prune
    folder: Path

    async def run(self, executor: Runner) -> LoopRun:
        """Archive and prune one day of each kind.

        Raises: ``OSError`` if a file cannot be written; ``CoordinatorError`` if it is not what was written.
        """
        prune = self.operation
        handled = 0
        for found in await executor.run(job_history.ListPrunable(completed=prune.completed, other=prune.other)):
            count, last = await self._archive(executor, found)
            handled += await executor.run(replace(prune, relation=found.relation, archived=count, last=last))
        return self.judge(handled)

    async def _archive(self, executor: Runner, found: PrunableJobs) -> tuple[int, list[str] | None]:
        """Write a file; return the number of its jobs, and the position of the last one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{found.relation}.{os.getpid()}.part"
        count, digest = 0, hashlib.sha256()
        first = last = None
        listing = job_history.ListArchive(relation=found.relation, until=found.until)
        try:
            with part.open("wb") as raw, gzip.open(raw, "wb", compresslevel=6) as file:
                async for page in walk(executor.run, listing, None if found.whole else LIMITS["page"]):
                    for row in page:
                        first, last = first or row, row
                    text = "".join(f"{row.line}\n" for row in page).encode()
                    count += len(page)
                    digest.update(text)
                    await anyio.to_thread.run_sync(file.write, text)
            if first is None or last is None:
                return 0, None
            if await anyio.to_thread.run_sync(_read_back, part) != (count, digest.digest()):
                raise CoordinatorError(
                    f"{part} differs from what was written", hint="Check the disk. The jobs were not pruned."
                )
            name = found.relation if found.whole else f"{found.relation}_{first.id}"
            part.replace(self.folder / f"{name}.jsonl.gz")
        finally:
            part.unlink(missing_ok=True)
        return count, [str(last.project_id), str(last.id)]


def _read_back(path: Path) -> tuple[int, bytes]:
    """Sync a file to disk; return the number of its lines, and their hash."""
    with path.open("rb") as raw:
        os.fsync(raw.fileno())
        return _lines_of(raw)


def _lines_of(raw: IO[bytes]) -> tuple[int, bytes]:
    count, digest = 0, hashlib.sha256()
    with gzip.open(raw, "rb") as file:
        for line in file:
            count += 1
            digest.update(line)
    return count, digest.digest()
