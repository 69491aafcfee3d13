"""Ended jobs are archived before they are pruned, or not pruned."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import Config
from coordinator.errors import Conflict, CoordinatorError
from coordinator.loops import job_archive
from coordinator.loops.job_archive import ArchivingPrune
from coordinator.loops.table import table
from coordinator.model.operation import Operation
from coordinator.operations import job_history
from tests.conftest import Transaction
from tests.sql.test_job_history import claim, complete, enqueue, failed, listed, worker

DAY = timedelta(days=1)


def archiving(folder: Path) -> ArchivingPrune:
    config = Config(job_archive=folder / "archive", job_completed_retention=7 * DAY, job_retention=7 * DAY)
    (loop,) = [loop for loop in table(config) if isinstance(loop, ArchivingPrune)]
    assert loop.name == "job_prune"
    return loop


async def ended(tx: Transaction, count: int = 3, *, after: timedelta = timedelta(0)) -> None:
    """End jobs at that distance from now, all on one day."""
    await tx.set_clock(after)
    agent = await worker(tx)
    for n in range(count):
        await enqueue(tx, payload=f"""'{{"n": {n}, "text": "Zoë\\n"}}'""")
        (grant,) = await claim(tx, agent)
        await complete(tx, agent, grant)
    await failed(tx, agent)


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "archive").iterdir())


async def run(tx: Transaction, loop: ArchivingPrune) -> int:
    handled = 0
    while run := (await loop.run(tx)).handled:
        handled += run
    return handled


async def test_each_day_becomes_a_file_with_all_that_is_known_of_its_jobs(tx: Transaction, tmp_path: Path) -> None:
    await ended(tx)
    day = await tx.connection.fetchval("select to_char(coordinator.now_utc() at time zone 'UTC', 'YYYYMMDD')")
    jobs = await tx.run(job_history.List(project="default"))
    loop = archiving(tmp_path)
    assert await run(tx, loop) == 0
    await tx.set_clock(8 * DAY)
    assert await run(tx, loop) >= 2
    assert await listed(tx) == []
    assert names(tmp_path) == [f"jobs_completed_{day}.jsonl.gz", f"jobs_uncompleted_{day}.jsonl.gz"]
    found = [line for name in names(tmp_path) for line in lines(tmp_path / "archive" / name)]
    assert {line["id"] for line in found} == {str(job.id) for job in jobs}
    by_id = {line["id"]: line for line in found}
    for job in jobs:
        line = by_id[str(job.id)]
        assert (line["project"], line["payload"], line["status"], line["result"], line["error"], line["worker"]) == (
            "default", job.payload, job.status, job.result, job.error, "w1",
        )  # fmt: skip


async def test_jobs_of_the_default_partition_are_archived_in_batches(
    tx: Transaction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(tx, 5, after=100 * DAY)
    jobs = await tx.run(job_history.List(project="default"))
    monkeypatch.setattr(job_archive, "LIMITS", {"page": 2})
    await tx.set_clock(108 * DAY)
    await run(tx, archiving(tmp_path))
    assert await listed(tx) == []
    files = [lines(tmp_path / "archive" / name) for name in names(tmp_path)]
    assert sorted(map(len, files)) == [1, 1, 2, 2]
    assert {line["id"] for file in files for line in file} == {str(job.id) for job in jobs}


async def test_nothing_is_pruned_if_the_file_differs_from_what_was_written(
    tx: Transaction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tx.set_clock(timedelta(0))  # the day does not end meanwhile
    await ended(tx)
    await tx.set_clock(8 * DAY)
    loop = archiving(tmp_path)
    before = await listed(tx)
    opened = gzip.open
    monkeypatch.setattr(job_archive, "_read_back", lambda path: (len(opened(path).read()), b""))
    with pytest.raises(CoordinatorError, match="differs from what was written"):
        await run(tx, loop)  # of a day without jobs there is no file
    assert await listed(tx) == before
    assert names(tmp_path) == []
    monkeypatch.undo()
    await run(tx, loop)
    assert await listed(tx) == []


async def test_nothing_is_pruned_if_the_folder_cannot_be_written(tx: Transaction, tmp_path: Path) -> None:
    await tx.set_clock(timedelta(0))
    await ended(tx)
    await tx.set_clock(8 * DAY)
    before = await listed(tx)
    (tmp_path / "archive").write_text("a file")
    with pytest.raises(OSError, match="archive"):
        await archiving(tmp_path).run(tx)
    assert await listed(tx) == before


async def test_two_daemons_that_archive_at_once_prune_nothing_that_is_not_archived(
    tx: Transaction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one archives and prunes the same batch between this one's archive and its prune."""
    await ended(tx, 5, after=100 * DAY)
    everything = await listed(tx)
    monkeypatch.setattr(job_archive, "LIMITS", {"page": 2})
    await tx.set_clock(108 * DAY)
    loop = archiving(tmp_path)

    class Overtaken:
        async def run(self, operation: Operation[Any]) -> Any:
            if isinstance(operation, job_history.Prune):
                await tx.run(operation)
            return await tx.run(operation)

    with pytest.raises(Conflict, match="has 0 jobs to prune, and 2 were archived"):
        await loop.run(Overtaken())
    archived = {line["id"] for name in names(tmp_path) for line in lines(tmp_path / "archive" / name)}
    assert {str(job) for job in everything} - archived == {str(job) for job in await listed(tx)}
