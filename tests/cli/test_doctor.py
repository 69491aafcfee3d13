"""``coordinator doctor``: tables, JSON, exit codes, and what it fixes."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from coordinator.cli.commands.doctor import EXIT_CODES, _report
from coordinator.model.doctor import Finding
from tests.cli.conftest import Program
from tests.conftest import admin

ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"


def test_json_has_every_finding_and_the_worst_severity(program: Program) -> None:
    done = program.run("doctor")
    assert (done.returncode, done.stderr) == (EXIT_CODES["critical"], "")
    shown = json.loads(done.stdout)
    assert shown["severity"] == "critical"
    assert shown["address"].startswith("postgresql://")
    assert {*shown["findings"][0]} == {"check", "severity", "message", "remedy"}
    assert "leader" in [finding["check"] for finding in shown["findings"] if finding["severity"] == "critical"]


def test_a_table_begins_with_the_worst_and_ends_with_how_many_there_are(program: Program) -> None:
    done = program.run("doctor", "--output", "text")
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == ["SEVERITY", "CHECK", "MESSAGE"]
    severities = [row.split()[0] for row in rows if not row.startswith(" ")]
    assert severities == sorted(severities, key=["critical", "warning", "unknown", "ok"].index)
    counts = Counter(severities)
    assert done.stderr == "\n" + ", ".join(f"{count} {severity}" for severity, count in counts.items()) + "\n"


def test_a_narrow_terminal_shows_every_remedy_whole() -> None:
    remedy = " ".join(f"word{n}" for n in range(100))
    found = [Finding("size", "ok", "Well."), Finding("prepared_transactions", "warning", "Left\x1b.", remedy)]
    report = _report(found, 60)
    assert all(len(line) <= 60 for line in report.splitlines())
    assert "\x1b" not in report
    assert " ".join(report.split()).endswith(f"Left\\x1b. Remedy: {remedy}")


async def test_what_destroys_nothing_is_fixed(program: Program, database_url: str) -> None:
    await admin(
        database_url,
        "revoke all on all routines in schema coordinator from coordinator_reader",
        "drop table coordinator.events_000008",
    )
    shown = json.loads(program.run("doctor", "--fix").stdout)
    grants = [finding for finding in shown["findings"] if finding["check"] == "grants"]
    assert [finding["severity"] for finding in grants] == ["ok", "ok"]
    assert grants[0]["message"].startswith("Fixed: granted execute on ")
    again = json.loads(program.run("doctor", "--fix").stdout)
    assert not [finding for finding in again["findings"] if finding["message"].startswith("Fixed")]


def test_where_nothing_answers_it_is_a_finding(lone: Program) -> None:
    done = lone.run("doctor", "--url", "postgresql://nobody@127.0.0.1:1/nowhere")
    assert done.returncode == EXIT_CODES["critical"]
    assert json.loads(done.stdout)["findings"][0]["check"] == "connection"
    assert "coordinator serve" in lone.fails(7, "doctor")["hint"]
    assert "postgresql://" in lone.fails(78, "doctor", "--fix", "--url", "http://127.0.0.1:1")["hint"]


def test_the_exit_codes_are_documented() -> None:
    named = re.findall(r"^\| (\d+) \| `doctor`", ERRORS.read_text("utf-8"), re.MULTILINE)
    assert {int(code) for code in named} == {*EXIT_CODES.values()} - {0}
