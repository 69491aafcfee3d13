"""What the doctor sees from outside: connections, clocks and schema files. Every fault ends in a finding, and in time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit, urlunsplit

import pytest

from coordinator.config import Config
from coordinator.db import schema
from coordinator.doctor import checks, examination
from coordinator.doctor.examination import examine
from coordinator.model.catalogue import CHECKS as OF_DATABASE
from coordinator.model.doctor import Finding, worst
from tests.conftest import admin
from tests.daemon import Daemon
from tests.ports import reserve_port
from tests.sql.test_access import as_role
from tests.waiting import DEADLINE_S, until

NOBODY = f"postgresql://nobody@127.0.0.1:{reserve_port()}/nowhere"
INCOMPATIBLE = """
with later as (update coordinator.schema_compatibility set oldest = 9999)
select coordinator.schema_record('migration', '9999_later.sql', 'x', '99.0')"""
REPLACED = (
    "create or replace function coordinator.doctor_{}(p_warning double precision, p_critical double precision)"
    " returns table (severity text, message text, remedy text) language plpgsql stable set search_path = pg_catalog, pg_temp"
    " as $$ begin perform {}; return query values ('ok', 'Well.', null); end $$"
)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no check find that it took too long, however slow the machine is; a test about that sets another limit."""
    for module, name in ((examination, "CONNECT_S"), (examination, "CHECK_S"), (checks, "HEARD_S")):
        monkeypatch.setattr(module, name, DEADLINE_S)


async def found(url: str, direct_url: str | None = None, **settings: object) -> dict[str, Finding]:
    """Return the findings by check: of several of one check, the worst."""
    config = Config(database_url=url, direct_url=direct_url, **settings)  # type: ignore[arg-type]
    by_check: dict[str, list[Finding]] = {}
    async for finding in examine(url, direct_url or url, config):
        by_check.setdefault(finding.check, []).append(finding)
    return {
        check: next(one for one in findings if one.severity == worst(findings)) for check, findings in by_check.items()
    }


async def test_a_healthy_database_has_a_finding_of_every_check(database_url: str) -> None:
    by_check = await found(database_url)
    assert [*by_check] == ["connection", *(check.name for check in checks.CHECKS), *OF_DATABASE]
    assert {by_check[check.name].severity for check in checks.CHECKS} == {"ok"}


async def test_where_nobody_answers_the_only_findings_say_so() -> None:
    by_check = await found(NOBODY)
    assert {check: finding.severity for check, finding in by_check.items()} == {
        "connection": "critical",
        "database": "unknown",
    }
    assert by_check["connection"].remedy


async def test_a_server_that_accepts_and_says_nothing_does_not_hold_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "CONNECT_S", 0.1)
    ended = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    by_check = await found(f"postgresql://somebody@127.0.0.1:{port}/somewhere")
    ended.set()
    server.close()
    await server.wait_closed()
    assert by_check["connection"].severity == "critical"
    assert "within 0.1 seconds" in by_check["connection"].message


async def test_a_wrong_role_or_database_is_reported_as_such(database_url: str) -> None:
    nowhere = urlunsplit(urlsplit(database_url)._replace(path="/nowhere"))
    assert "does not exist" in (await found(nowhere))["connection"].message


async def test_where_only_the_direct_address_answers_the_rest_is_looked_at(database_url: str) -> None:
    by_check = await found(NOBODY, database_url)
    assert by_check["connection"].severity == "critical"
    assert (by_check["direct"].severity, by_check["schema"].severity) == ("ok", "ok")
    assert "leader" in by_check


async def test_a_direct_address_that_leads_nowhere_or_elsewhere_is_found(
    database_url: str, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "HEARD_S", 0.1)
    by_check = await found(database_url, empty_url)
    assert (by_check["direct"].severity, by_check["listening"].severity) == ("critical", "critical")
    assert "another server or database" in by_check["direct"].message
    assert "did not arrive within 0.1 s" in by_check["listening"].message
    by_check = await found(database_url, NOBODY)
    assert by_check["direct"].severity == "critical"
    assert by_check["listening"].severity == "unknown"


async def test_a_database_without_a_schema_is_found(empty_url: str) -> None:
    by_check = await found(empty_url)
    assert (by_check["schema"].severity, by_check["schema"].message) == ("critical", "The database has no schema.")
    assert "schema apply" in (by_check["schema"].remedy or "")
    assert by_check["database"].severity == "unknown"


@pytest.mark.parametrize(
    ("statement", "severity", "message"),
    [
        ("delete from coordinator.schema_files where name = '0036_webhook_slots.sql'", "critical", "lacks 1 of"),
        ("update coordinator.schema_files set checksum = 'x' where name = 'signal.sql'", "critical", "lacks 1 of"),
        (
            "update coordinator.schema_files set checksum = 'x' where name = '0001_catalogue.sql'",
            "critical",
            "is not the one",
        ),
        ("select coordinator.schema_record('migration', '9999_later.sql', 'x', '99.0')", "ok", "supports this program"),
        (INCOMPATIBLE, "critical", "does not fit"),
    ],
)
async def test_a_schema_of_other_files_is_found_and_the_rest_is_looked_at(
    database_url: str, statement: str, severity: str, message: str
) -> None:
    await admin(database_url, statement)
    by_check = await found(database_url)
    finding = by_check["schema"]
    assert (finding.severity, message in finding.message) == (severity, True), finding
    assert bool(finding.remedy) == (severity != "ok")
    assert {*OF_DATABASE} <= by_check.keys()


async def test_a_schema_of_before_the_doctor_is_pending_and_ends_the_examination(database_url: str) -> None:
    await admin(database_url, "drop function coordinator.doctor_run(text[])")
    by_check = await found(database_url)
    assert by_check["database"].severity == "unknown"
    assert "doctor_run" in by_check["database"].message
    assert not {*OF_DATABASE} & by_check.keys()


async def test_a_server_that_is_too_old_is_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "OLDEST_SERVER", 99)
    finding = (await found(database_url))["version"]
    assert (finding.severity, "99" in (finding.remedy or "")) == ("critical", True)


@pytest.mark.parametrize(("seconds", "severity"), [(30, "warning"), (-3600, "critical")])
async def test_a_clock_that_differs_from_that_of_this_host_is_found(
    database_url: str, monkeypatch: pytest.MonkeyPatch, seconds: int, severity: str
) -> None:
    monkeypatch.setattr(checks, "host_time", lambda: datetime.now(UTC) + timedelta(seconds=seconds))
    finding = (await found(database_url))["host_clock"]
    assert finding.severity == severity
    assert ("behind" if seconds > 0 else "ahead of") in finding.message


async def test_a_check_that_takes_too_long_is_ended_and_the_others_are_made(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin(database_url, REPLACED.format("relay", "pg_sleep(600)"))
    monkeypatch.setattr(examination, "CHECK_S", 2.0)
    by_check = await found(database_url)
    assert by_check["relay"].severity == "unknown"
    assert "longer than" in by_check["relay"].message
    assert "archive" in by_check


async def test_a_database_that_becomes_unavailable_during_the_examination_is_reported(database_url: str) -> None:
    await admin(database_url, REPLACED.format("waits", "pg_terminate_backend(pg_backend_pid())"))
    by_check = await found(database_url)
    assert (by_check["database"].severity, "archive" in by_check) == ("critical", False)
    assert "stopped responding" in by_check["database"].message


async def test_a_reader_sees_what_it_may_and_learns_what_it_may_not(database_url: str) -> None:
    await admin(
        database_url, "create role login_doctor login password 'secret'", "grant coordinator_reader to login_doctor"
    )
    try:
        by_check = await found(as_role(database_url, "login_doctor"))
    finally:
        await admin(database_url, "drop role login_doctor")
    assert by_check["schema"].severity == "unknown"
    assert {*OF_DATABASE} <= by_check.keys()
    assert [check for check, finding in by_check.items() if finding.severity == "unknown"] == ["schema"]


async def test_through_a_daemon_the_database_is_seen_and_the_rest_is_named(database_url: str) -> None:
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        by_check = await found(daemon.url)
        assert (by_check["daemon"].severity, by_check["leader"].severity) == ("ok", "ok")
        assert by_check["connection"].severity == "unknown"
        assert {*OF_DATABASE} <= by_check.keys()
        name = urlsplit(database_url).path[1:]
        await admin(
            urlunsplit(urlsplit(database_url)._replace(path="/postgres")),
            f"alter database {name} allow_connections false",
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
        )

        async def unready() -> bool:
            return (await daemon.get("/readyz")).status_code == 503

        await until(unready, "the daemon has lost its database")
        by_check = await found(daemon.url)
        assert by_check["daemon"].severity == "critical"
        assert by_check["daemon"].message.startswith("The daemon is not ready: ")
        assert by_check["database"].severity == "critical"
        url = daemon.url
        daemon.kill()
    by_check = await found(url)
    assert by_check["database"].message.startswith("The daemon cannot be used")
