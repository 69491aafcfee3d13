"""A sampler that cannot read stops no other, and what it found before stays and shows its age."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import CoordinatorError
from coordinator.loops import sampling
from coordinator.loops.sampling import Sampling
from coordinator.loops.table import table
from coordinator.telemetry import metrics
from tests.daemon import opened

SAMPLES = metrics.SAMPLES


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    SAMPLES.clear()
    yield
    SAMPLES.clear()


def loop() -> Sampling:
    (found,) = [loop for loop in table(Config()) if isinstance(loop, Sampling)]
    return found


def taken_at(sampler: str) -> float:
    found = metrics.REGISTRY.get_sample_value("coordinator_sample_timestamp_seconds", {"sampler": sampler})
    assert found is not None
    return found


async def test_a_sampler_that_waits_for_a_lock_keeps_its_values_while_the_others_continue(
    db: Database, database_url: str
) -> None:
    await loop().run(db)
    first = {sampler: taken_at(sampler) for sampler in SAMPLES.samplers}
    async with opened(database_url) as connection, connection.transaction():
        await connection.execute("lock table coordinator.job_limits in access exclusive mode")
        with capture_logs() as lines:
            await loop().run(db)
    # The sizes of tables need their locks, too.
    assert [line["sampler"] for line in lines if line["event"] == "metric.sample_failed"] == [
        "limit_sample",
        "table_sample",
    ]
    late = {sampler for sampler, at in first.items() if taken_at(sampler) == at}
    assert late == {"limit_sample", "table_sample"}
    assert metrics.REGISTRY.get_sample_value("coordinator_table_bytes", {"table": "jobs_open"}) is not None
    await loop().run(db)
    assert all(taken_at(sampler) > at for sampler, at in first.items())


async def test_a_sample_that_takes_too_long_ends_and_the_loop_fails_visibly(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await loop().run(db)
    before = taken_at("lock_sample")
    monkeypatch.setattr(sampling, "SAMPLE_S", 0)
    with capture_logs() as lines, pytest.raises(TimeoutError):
        await loop().run(db)
    assert {line["sampler"] for line in lines} == {*SAMPLES.samplers}
    assert taken_at("lock_sample") == before


async def test_a_database_that_lacks_the_function_fails_the_loop(db: Database, database_url: str) -> None:
    async with opened(database_url) as connection:
        await connection.execute("alter function coordinator.metric_sample rename to away")
    with pytest.raises(CoordinatorError):
        await loop().run(db)
    assert SAMPLES.taken_at is None
