from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator.operations import crons, projects, queues
from tests.conftest import Transaction
from tests.sql.refusal import refused

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
JOB = {"type": "report"}


def set_(cron: str = "nightly", schedule: str | None = "0 2 * * *", **fields: Any) -> crons.Set:
    return crons.Set(project="default", cron=cron, schedule=schedule, **{"job": JOB, **fields})


async def at(tx: Transaction, instant: str) -> None:
    """Stop the clock of the database at an instant."""
    await tx.connection.execute("select set_config('coordinator.fake_now', $1, true)", instant)


async def fire(tx: Transaction) -> int:
    """Run the loop until it has nothing to do."""
    total = 0
    while fired := await tx.run(crons.Fire()):
        total += fired
    return total


async def payloads(tx: Transaction) -> list[Any]:
    rows = await tx.connection.fetch("select payload from coordinator.jobs order by id")
    return [row["payload"] for row in rows]


async def times(tx: Transaction, schedule: str, zone: str, since: str, limit: int = 3) -> list[str]:
    previewed = await tx.run(
        crons.Preview(schedule=schedule, zone=zone, since=datetime.fromisoformat(since), limit=limit)
    )
    return [f"{time.at.astimezone(UTC):%m-%d %H:%M}" for time in previewed]


@pytest.mark.parametrize(
    ("schedule", "since", "expected"),
    [
        ("* * * * *", "2026-11-26T23:58:30Z", ["11-26 23:59", "11-27 00:00", "11-27 00:01"]),
        ("*/20 9-10 * * *", "2026-11-26T09:50:00Z", ["11-26 10:00", "11-26 10:20", "11-26 10:40"]),
        ("5/25 8 * * *", "2026-11-26T00:00:00Z", ["11-26 08:05", "11-26 08:30", "11-26 08:55"]),
        ("0 0,12 1 */2 *", "2026-11-26T00:00:00Z", ["01-01 00:00", "01-01 12:00", "03-01 00:00"]),
        ("30 8 * * mon-fri", "2026-11-26T09:00:00Z", ["11-27 08:30", "11-30 08:30", "12-01 08:30"]),
        ("0 0 13 * FRI", "2026-11-26T00:00:00Z", ["11-27 00:00", "12-04 00:00", "12-11 00:00"]),  # either of them
        ("0 0 */10 * sun", "2026-11-26T00:00:00Z", ["01-31 00:00", "02-21 00:00", "03-21 00:00"]),  # both
        ("0 0 * * 7", "2026-11-26T00:00:00Z", ["11-29 00:00", "12-06 00:00", "12-13 00:00"]),
        ("0 0 29 feb *", "2095-01-01T00:00:00Z", ["02-29 00:00", "02-29 00:00"]),  # 2096, 2104
        ("@weekly", "2026-11-29T00:00:00Z", ["12-06 00:00", "12-13 00:00", "12-20 00:00"]),
        ("@Hourly", "2026-11-26T00:00:00Z", ["11-26 01:00", "11-26 02:00", "11-26 03:00"]),
        ("  0\t6  * * * ", "2026-11-26T06:00:00Z", ["11-27 06:00", "11-28 06:00", "11-29 06:00"]),
    ],
)
async def test_a_schedule_has_the_times_that_it_says(
    tx: Transaction, schedule: str, since: str, expected: list[str]
) -> None:
    assert await times(tx, schedule, "UTC", since, len(expected)) == expected


@pytest.mark.parametrize(
    ("schedule", "zone", "since", "expected"),
    [
        # 29 March 2026: 2:00 to 3:00 does not exist in Berlin (1:00Z); a fixed time is moved past the gap
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29 01:30", "03-30 00:30", "03-31 00:30"]),
        ("30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29 01:30", "03-30 00:30", "03-30 01:30"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00Z", ["03-29 00:30", "03-29 01:00", "03-29 01:30"]),
        # 25 October 2026: 2:00 to 3:00 exists twice (0:00Z and 1:00Z); a fixed time fires at the first
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25 00:30", "10-26 01:30", "10-27 01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:00Z", ["10-26 01:30", "10-27 01:30", "10-28 01:30"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-24T23:45Z", ["10-25 00:30", "10-25 01:30", "10-25 02:30"]),
        ("0 2-3 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25 00:00", "10-25 02:00", "10-26 01:00"]),
        # by half an hour: 5 April 2026, 2:00 becomes 1:30 (15:00Z the day before)
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00Z", ["04-04 14:45", "04-05 15:15", "04-06 15:15"]),
        ("*/15 * * * *", "Australia/Lord_Howe", "2026-04-04T14:40Z", ["04-04 14:45", "04-04 15:00", "04-04 15:15"]),
        # west of Greenwich the day begins later
        ("0 0 * * *", "America/Los_Angeles", "2026-11-26T00:00Z", ["11-26 08:00", "11-27 08:00", "11-28 08:00"]),
        # a day that does not exist: Samoa went over the date line on 30 December 2011
        ("0 12 29-31 12 *", "Pacific/Apia", "2011-12-29T00:00Z", ["12-29 22:00", "12-30 22:00", "12-28 22:00"]),
    ],
)
async def test_clock_changes_neither_lose_nor_repeat_a_time(
    tx: Transaction, schedule: str, zone: str, since: str, expected: list[str]
) -> None:
    assert await times(tx, schedule, zone, since) == expected


async def test_every_minute_fires_once_while_clocks_change(tx: Transaction) -> None:
    for text in ("2026-03-29T00:10Z", "2026-10-24T23:10Z", "2026-10-25T00:10Z"):
        since = datetime.fromisoformat(text)
        previewed = await tx.run(crons.Preview(schedule="* * * * *", zone="Europe/Berlin", since=since, limit=100))
        assert [time.at for time in previewed] == [since + n * MINUTE for n in range(1, 101)]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"schedule": ""}, "ZC101"),
        ({"schedule": "* * * *"}, "ZC103"),
        ({"schedule": "* * * * * *"}, "ZC103"),
        ({"schedule": "@never"}, "ZC103"),
        ({"schedule": "60 * * * *"}, "ZC103"),
        ({"schedule": "* 24 * * *"}, "ZC103"),
        ({"schedule": "* * 0 * *"}, "ZC103"),
        ({"schedule": "* * * 13 *"}, "ZC103"),
        ({"schedule": "* * * * 8"}, "ZC103"),
        ({"schedule": "5-1 * * * *"}, "ZC103"),
        ({"schedule": "*/0 * * * *"}, "ZC103"),
        ({"schedule": "-1 * * * *"}, "ZC103"),
        ({"schedule": "1,,2 * * * *"}, "ZC103"),
        ({"schedule": "* * * foo *"}, "ZC103"),
        ({"schedule": "* * mon * *"}, "ZC103"),
        ({"schedule": "1e1 * * * *"}, "ZC103"),
        ({"schedule": "99999999999 * * * *"}, "ZC103"),
        ({"schedule": "0 0 30 feb *"}, "ZC104"),
        ({"schedule": "0 0 31 4,6,9,11 *"}, "ZC104"),
        ({"zone": "Europe/Berln"}, "ZC105"),
        ({"zone": "Foo3"}, "ZC105"),
        ({"zone": "-08:00"}, "ZC105"),
        ({"zone": ""}, "ZC101"),
        ({"missed": "never"}, "ZC105"),
        ({"cron": "a\nb"}, "ZC103"),
        ({"job": {}}, "ZC101"),
        ({"job": {"type": "t", "at": "2030-01-01T00:00:00Z"}}, "ZC105"),
        ({"job": {"type": "t", "pririty": 1}}, "ZC105"),
        ({"job": {"type": "t", "priority": 1000}}, "ZC104"),
        ({"job": [1]}, "ZC105"),
        ({"job": None}, "ZC101"),
    ],
    ids=str,
)
async def test_bad_input_is_refused(tx: Transaction, fields: dict[str, Any], code: str) -> None:
    await refused(tx, set_(**fields), code)


async def test_a_zone_that_was_meant_is_named(tx: Transaction) -> None:
    error = await refused(tx, set_(zone="Europe/Berln"), "ZC105")
    assert (error.hint or "").startswith('Did you mean "Europe/Berlin"?')


async def test_it_fires_once_at_its_time_and_the_job_knows_the_time(tx: Transaction) -> None:
    await at(tx, "2026-11-26T01:30:00Z")
    made = await tx.run(set_(job={"type": "report", "payload": {"day": "{fire_at}", "n": 1}, "queue": "reports"}))
    assert made.next_at == datetime(2026, 11, 26, 2, tzinfo=UTC)
    assert await fire(tx) == 0
    await at(tx, "2026-11-26T02:00:00.5Z")
    assert "cron_fire" in await tx.connection.fetchval("select coordinator.work_due()")
    assert await fire(tx) == 1
    assert await fire(tx) == 0
    assert await payloads(tx) == [{"day": "2026-11-26T02:00Z", "n": 1}]
    after = await tx.run(crons.Get(project="default", cron="nightly"))
    assert (after.last_at, after.next_at) == (made.next_at, datetime(2026, 11, 27, 2, tzinfo=UTC))
    assert after.last_job == await tx.connection.fetchval("select id from coordinator.jobs where queue = 'reports'")
    (fired,) = [event for event in await tx.events() if event["type"] == "cron.fired"]
    assert (fired["key"], fired["data"]["job"]) == ("nightly", str(after.last_job))


@pytest.mark.parametrize(
    ("missed", "hours"),
    [("skip", []), ("once", [9]), ("all", list(range(2, 10)))],
)
async def test_missed_times_follow_the_policy(tx: Transaction, missed: str, hours: list[int]) -> None:
    await at(tx, "2026-11-26T01:30:00Z")
    await tx.run(set_(schedule="@hourly", missed=missed, job={"type": "t", "payload": "{fire_at}"}))
    await at(tx, "2026-11-26T09:10:00Z")
    await fire(tx)
    assert await payloads(tx) == [f"2026-11-26T{hour:02}:00Z" for hour in hours]
    after = await tx.run(crons.Get(project="default", cron="nightly"))
    assert after.next_at == datetime(2026, 11, 26, 10, tzinfo=UTC)
    await at(tx, "2026-11-26T10:00:50Z")
    await fire(tx)
    assert (await payloads(tx))[-1] == "2026-11-26T10:00Z"


async def test_years_of_missed_minutes_are_one_job(tx: Transaction) -> None:
    await at(tx, "2026-11-26T01:30:00Z")
    await tx.run(set_(schedule="* * * * *", job={"type": "t", "payload": "{fire_at}"}))
    await at(tx, "2029-11-26T01:30:30Z")
    assert await fire(tx) == 1
    assert await payloads(tx) == ["2029-11-26T01:30Z"]


async def test_a_clock_that_goes_back_fires_nothing_again(tx: Transaction) -> None:
    await at(tx, "2026-11-26T01:59:00Z")
    await tx.run(set_())
    await at(tx, "2026-11-26T02:00:00Z")
    assert await fire(tx) == 1
    await at(tx, "2026-11-26T01:59:30Z")
    assert await fire(tx) == 0
    await at(tx, "2026-11-26T02:00:00Z")
    assert await fire(tx) == 0


async def test_a_paused_cron_does_not_fire_and_misses_nothing(tx: Transaction) -> None:
    await at(tx, "2026-11-26T01:00:00Z")
    await tx.run(set_(missed="all"))
    paused = await tx.run(crons.Pause(project="default", cron="nightly", reason="Down", actor="boss"))
    assert (paused.next_at, paused.paused_by, paused.pause_reason) == (None, "boss", "Down")
    assert await tx.run(crons.Pause(project="default", cron="nightly", actor="other")) == paused
    await at(tx, "2026-11-28T01:00:00Z")
    await tx.run(set_(schedule="0 3 * * *"))
    assert await fire(tx) == 0
    run = await tx.run(crons.Run(project="default", cron="nightly"))
    assert run.status == "queued"
    resumed = await tx.run(crons.Resume(project="default", cron="nightly"))
    assert (resumed.next_at, resumed.paused_at) == (datetime(2026, 11, 28, 3, tzinfo=UTC), None)
    assert await tx.run(crons.Resume(project="default", cron="nightly")) == resumed
    assert await fire(tx) == 0


async def test_omitted_fields_stay(tx: Transaction) -> None:
    await at(tx, "2026-11-26T01:00:00Z")
    made = await tx.run(set_(zone="Europe/Berlin", missed="skip"))
    changed = await tx.run(crons.Set(project="default", cron="nightly", job={"type": "other"}))
    assert (changed.schedule, changed.zone, changed.missed) == ("0 2 * * *", "Europe/Berlin", "skip")
    assert (changed.job, changed.next_at) == ({"type": "other"}, made.next_at)
    moved = await tx.run(crons.Set(project="default", cron="nightly", zone="UTC"))
    assert moved.next_at == datetime(2026, 11, 26, 2, tzinfo=UTC)


async def test_a_job_that_cannot_be_enqueued_is_tried_again_and_the_other_crons_fire(tx: Transaction) -> None:
    await at(tx, "2026-11-26T01:00:00Z")
    for number in range(9):
        await tx.run(set_(f"c{number}", job={"type": "t", "queue": "full" if number == 4 else "q"}))
    await tx.run(queues.Set(project="default", queue="full", max_waiting=1))
    blocking = await tx.run(crons.Run(project="default", cron="c4"))
    await at(tx, "2026-11-26T02:00:00Z")
    await fire(tx)
    assert len(await payloads(tx)) == 1 + 8
    failed = await tx.run(crons.Get(project="default", cron="c4"))
    assert (failed.next_at, failed.last_at) == (datetime(2026, 11, 26, 2, tzinfo=UTC), None)
    assert 'queue "full" is full' in (failed.error or "")
    await at(tx, "2026-11-26T02:01:00Z")
    await fire(tx)
    assert [event["key"] for event in await tx.events() if event["type"] == "cron.failed"] == ["c4"]
    await tx.connection.execute("select coordinator.job_cancel('default', $1)", blocking.id)
    await at(tx, "2026-11-26T02:02:00Z")
    assert await fire(tx) == 1
    fired = await tx.run(crons.Get(project="default", cron="c4"))
    assert (fired.error, fired.last_at) == (None, failed.next_at)


async def test_a_dedupe_key_prevents_jobs_from_overlapping(tx: Transaction) -> None:
    await at(tx, "2026-11-26T01:00:00Z")
    job = {"type": "t", "dedupe_key": "sync", "on_duplicate": "skip"}
    await tx.run(set_(schedule="@hourly", job=job))
    for hour in ("02", "03", "04"):
        await at(tx, f"2026-11-26T{hour}:00:00Z")
        assert await fire(tx) == 1
    assert len(await payloads(tx)) == 1


async def test_the_largest_jobs_are_enqueued_for_every_missed_time(tx: Transaction) -> None:
    await at(tx, "2026-11-26T00:30:00Z")
    await tx.run(set_(schedule="* * * * *", missed="all", job={"type": "t", "payload": "x" * 250_000}))
    await at(tx, "2026-11-26T01:10:00Z")
    await fire(tx)
    assert await tx.connection.fetchval("select count(*) from coordinator.jobs_open") == 40


async def test_crons_of_another_project_are_others(tx: Transaction) -> None:
    await tx.run(projects.Create(project="shop"))
    await at(tx, "2026-11-26T01:00:00Z")
    await tx.run(set_())
    await tx.run(crons.Set(project="shop", cron="nightly", schedule="0 2 * * *", job={"type": "shop"}))
    await at(tx, "2026-11-26T02:00:00Z")
    assert await fire(tx) == 2
    rows = await tx.connection.fetch("select project, type from coordinator.jobs order by project")
    assert [tuple(row) for row in rows] == [("default", "report"), ("shop", "shop")]
    await tx.run(projects.Delete(project="shop"))
    assert [cron.project for cron in await tx.run(crons.List(project="default"))] == ["default"]


@pytest.mark.parametrize(
    "kind", [crons.Get, crons.Pause, crons.Resume, crons.Delete, crons.Run], ids=lambda k: k.function
)
async def test_a_cron_that_does_not_exist_is_not_found_and_the_one_that_was_meant_is_named(
    tx: Transaction, kind: Any
) -> None:
    await tx.run(set_("nightly"))
    error = await refused(tx, kind(project="default", cron="nihgtly"), "ZC214")
    assert (error.hint or "").startswith('Did you mean "nightly"?')
