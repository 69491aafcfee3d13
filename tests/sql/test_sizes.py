"""Sizes, day by day: the leader measures them once, clocks that jump remove none, and the doctor derives the growth of the database from them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.config import SETTINGS, Config
from coordinator.db.database import Database
from coordinator.loops.measuring import Measuring
from coordinator.loops.table import table
from coordinator.model.doctor import Finding
from coordinator.model.server import ServerSize
from coordinator.operations import server
from coordinator.operations.work import SizesMeasure
from tests.conftest import Transaction
from tests.daemon import opened
from tests.sql.test_doctor import examined, one
from tests.waiting import until

MB, GB = 10**6, 10**9
DAY = timedelta(days=1)
KEPT = 60  # days
SIZES = """
insert into coordinator.sizes (day, kind, name, bytes, measured_at)
select (at at time zone 'UTC')::date, $2, $3, $4, at from (select coordinator.now_utc() - $1::interval) t (at)"""


@pytest_asyncio.fixture(loop_scope="session")
async def history(tx: Transaction) -> AsyncIterator[Transaction]:
    """A transaction in which nothing was ever measured, and it is noon."""
    await tx.connection.execute("delete from coordinator.sizes")
    await tx.connection.execute(
        "select set_config('coordinator.fake_now', (date_trunc('day', transaction_timestamp()) + interval '12 hours')::text, true)"
    )
    yield tx


async def measured(tx: Transaction, ago: timedelta, *sizes: tuple[str, str, int]) -> None:
    """Write what was measured at an earlier time."""
    for kind, name, size in sizes:
        await tx.connection.execute(SIZES, ago, kind, name, size)


async def measure(tx: Transaction, **fields: int) -> None:
    """Measure now. A table that is locked for a moment, as autovacuum does, puts it off."""

    async def done() -> bool:
        return await tx.run(SizesMeasure(**fields)) > 0

    await until(done, "it is measured")


async def days(tx: Transaction) -> list[int]:
    """Return how many days before today each day is that was measured."""
    rows = await tx.connection.fetch(
        "select distinct (coordinator.now_utc() at time zone 'UTC')::date - day from coordinator.sizes order by 1"
    )
    return [row[0] for row in rows]


async def growth(tx: Transaction) -> Finding:
    return await one(tx.connection, "growth")


async def test_the_database_its_tables_and_its_projects_are_measured(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.project_create('busy'), coordinator.project_create('idle')")
    await tx.connection.execute("select coordinator.artifact_put('busy', 'a', $1)", bytes(MB))
    await tx.connection.execute(
        "insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at)"
        " select 1, 'k/' || n, '1', n, true, 'x', clock_timestamp(), clock_timestamp() from generate_series(1, 20000) n"
    )
    await measure(tx, limit_bytes=GB)
    found = {(size.kind, size.name): size for size in await tx.run(server.ListSizes())}
    assert found["database", ""].bytes > found["table", "signals"].bytes > MB
    assert found["project", "busy"].bytes >= MB
    assert ("project", "idle") not in found
    assert found["limit", ""] == ServerSize("limit", "", GB, None, None, found["database", ""].measured_at)
    assert {size.day_bytes for size in found.values()} == {None}
    await measure(tx)
    assert "limit" not in {size.kind for size in await tx.run(server.ListSizes())}, "the setting was removed"


async def test_a_project_has_the_bytes_of_its_logs_and_documents(tx: Transaction) -> None:
    text = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(20_000))  # which does not compress
    await tx.connection.execute("select coordinator.project_create('chatty'), coordinator.project_create('writing')")
    for n in range(20):
        await tx.connection.execute(
            "select coordinator.log_append('chatty', 'note', 'k', json_build_array(json_build_object('data', $1::text))),"
            " coordinator.document_put('writing', 'plan', $2, to_json($1::text))",
            text,
            str(n),
        )
    await measure(tx)
    found = {size.name: size.bytes for size in await tx.run(server.ListSizes()) if size.kind == "project"}
    assert found["writing"] > MB
    assert found["chatty"] > 0


async def test_the_last_measurement_of_a_day_stays_and_sixty_days_of_them(history: Transaction) -> None:
    for ago in range(KEPT + 20, 0, -1):
        await measured(history, timedelta(days=ago), ("database", "", ago))
    for free in (GB, 2 * GB):
        await measure(history, free_bytes=free)
    assert await days(history) == [*range(KEPT)]
    size, limit = (await history.run(server.ListSizes()))[:2]
    assert limit.bytes == size.bytes + 2 * GB


async def test_a_clock_that_jumps_costs_no_history(history: Transaction) -> None:
    for ago in range(10, 0, -1):
        await measured(history, timedelta(days=ago), ("database", "", ago))

    async def measure_at(offset: timedelta) -> None:
        await history.connection.execute(
            "select set_config('coordinator.fake_now', (coordinator.now_utc() + $1::interval)::text, true)", offset
        )
        await measure(history)

    await measure_at(timedelta(0))
    for jump in (timedelta(days=1000), timedelta(days=-1000)):
        await measure_at(jump)
        await measure_at(-jump)
        assert await days(history) in ([*range(11)], [*range(11), 1000]), "what is before all others does no harm"
    assert (await growth(history)).severity == "ok"


async def test_two_daemons_measure_at_once_and_neither_waits(database_url: str) -> None:
    async with opened(database_url) as first, opened(database_url) as second:
        ours, theirs = Transaction(first), Transaction(second)
        for _ in range(2):  # with nothing of today, and with something
            async with first.transaction():
                await measure(ours)
                assert await theirs.run(SizesMeasure()) == 0
            await measure(theirs)


async def test_the_leader_measures_with_its_settings_and_on_its_own_disk(db: Database, tmp_path: Path) -> None:
    async def until_limit(config: Config, expected: Callable[[list[int]], bool]) -> None:
        (loop,) = [loop for loop in table(config) if isinstance(loop, Measuring)]

        async def measured() -> bool:
            await loop.run(db)
            return expected([size.bytes for size in await db.run(server.ListSizes()) if size.kind == "limit"])

        await until(measured, "it has the limit")

    elsewhere = "postgresql://elsewhere"
    await until_limit(Config(database_url=elsewhere, database_max_bytes=GB), lambda found: found == [GB])
    await until_limit(Config(database_url=elsewhere), lambda found: not found)
    await until_limit(Config(data_dir=tmp_path), bool)
    await until_limit(Config(data_dir=tmp_path, database_max_bytes=2 * MB), lambda found: found == [2 * MB])


async def test_growth_is_by_the_day_and_the_week_of_what_was_measured_then(history: Transaction) -> None:
    await measured(history, timedelta(days=7), ("database", "", 10 * MB), ("table", "entries", 2 * MB))
    await measured(history, timedelta(hours=48), ("database", "", 14 * MB), ("table", "entries", 4 * MB))
    await measured(history, timedelta(hours=12, minutes=1), ("database", "", 16 * MB), ("table", "entries", 5 * MB))
    sizes = (("database", "", 17 * MB), ("table", "entries", 7 * MB), ("table", "events", MB), ("project", "a", MB))
    await measured(history, timedelta(0), *sizes)
    found = {(one.kind, one.name): (one.day_bytes, one.week_bytes) for one in await history.run(server.ListSizes())}
    assert found == {
        ("database", ""): (1_500_000, 7 * MB),
        ("table", "entries"): (1_500_000, 5 * MB),
        ("table", "events"): (MB // 2, MB),
        ("project", "a"): (MB // 2, MB),
    }
    finding = await growth(history)
    assert finding.severity == "ok"
    assert (
        "grew by 1465 kB in a day and by 6836 kB in a week. The tables that grow fastest are entries (1465 kB a day), events ("
        in finding.message
    )
    assert "the projects that grow fastest are a (" in finding.message


async def test_what_is_not_measured_is_not_known(history: Transaction) -> None:
    assert "No daemon has measured" in (await growth(history)).message
    await measured(history, timedelta(days=3), ("database", "", MB))
    found = await examined(history.connection, "growth")
    assert [one.severity for one in found] == ["unknown"]
    assert "(measured 3d ago)" in found[0].message
    await measured(history, timedelta(0), ("database", "", MB))
    assert (await growth(history)).severity == "ok"
    await history.connection.execute(
        "delete from coordinator.sizes where day < (coordinator.now_utc() at time zone 'UTC')::date"
    )
    assert "known after one day" in (await growth(history)).message


@pytest.mark.parametrize(
    ("before", "now", "severity", "words"),
    [
        (30 * GB, 31 * GB, "ok", "Its limit is 93 GB."),
        (30 * GB, 33 * GB, "warning", "which it will reach in 22d"),
        (30 * GB, 45 * GB, "critical", "which it will reach in 3d"),
        (91 * GB, 91 * GB, "warning", "Its limit is 93 GB."),
        (91 * GB, 90 * GB, "warning", "Its limit is 93 GB."),
        (101 * GB, 101 * GB, "critical", "Its limit is 93 GB."),
    ],
)
async def test_a_limit_that_is_near_is_found(
    history: Transaction, before: int, now: int, severity: str, words: str
) -> None:
    await measured(history, DAY, ("database", "", before), ("table", "events", before // 2))
    await measured(history, timedelta(0), ("database", "", now), ("limit", "", 100 * GB), ("table", "events", now // 2))
    finding = await growth(history)
    assert (finding.severity, words in finding.message) == (severity, True), finding
    if severity != "ok":
        assert finding.remedy is not None
        assert "database_max_bytes" in finding.remedy
        assert ("event_retention" in finding.remedy) == (now > before), "what grows fastest is what to keep less of"


@pytest.mark.parametrize(
    ("before", "now", "severity"),
    [(10 * GB, 16 * GB, "warning"), (100 * GB, 110 * GB, "ok"), (10 * MB, 900 * MB, "ok")],
)
async def test_a_large_database_that_doubles_within_a_month_is_found(
    history: Transaction, before: int, now: int, severity: str
) -> None:
    await measured(history, 7 * DAY, ("database", "", before))
    await measured(history, DAY, ("database", "", now))
    await measured(history, timedelta(0), ("database", "", now), ("table", "artifact_chunks", now - before))
    finding = await growth(history)
    assert (finding.severity, "will double in 18d16h" in finding.message) == (severity, severity == "warning"), finding
    if severity == "warning":
        assert "coordinator retention set artifact" in (finding.remedy or "")


async def test_every_table_has_a_remedy_that_names_what_exists(tx: Transaction) -> None:
    rows = await tx.connection.fetch(
        "select c.relname, coordinator.doctor_growth_remedy(c.relname) from pg_class c"
        " where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
    )
    remedies = {remedy for _, remedy in rows}
    assert all(remedies)
    named = {
        setting for remedy in remedies for setting in re.findall(r"\b([a-z]+(?:_[a-z]+)+)\b", remedy.split('"')[0])
    }
    tables = {name for name, _ in rows} | {"dead_rows"}
    assert named - tables <= {*SETTINGS}
    (source,) = [await tx.connection.fetchval("select pg_get_functiondef('coordinator.doctor_growth_remedy'::regproc)")]
    quoted = {name for name in re.findall(r"'([a-z_]+)'", source) if name != "pg_temp"}
    assert quoted & tables == quoted - {"pg_catalog"}, "a table that was renamed"


async def test_the_maximum_size_is_a_metric_while_there_is_one(history: Transaction) -> None:
    async def sampled() -> list[float]:
        return [
            row["value"]
            for row in await history.connection.fetch("select * from coordinator.server_sample(null)")
            if row["name"] == "coordinator_postgres_database_max_bytes"
        ]

    assert await sampled() == []
    await measured(history, DAY, ("database", "", MB), ("limit", "", GB))
    assert await sampled() == [GB]
    await measured(history, timedelta(0), ("database", "", MB))
    assert await sampled() == [], "yesterday's is not that of today"
