"""Every exit code, and malformed or malicious input."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["sginal", "list"], 'Did you mean "coordinator signal"?'),
        (["signal", "lst"], 'Did you mean "coordinator signal list"?'),
        (["signal", "list", "--prefx", "a"], "Did you mean --prefix?"),
        (["--projct", "a", "signal", "list"], "Did you mean --project?"),
        (["directive", "send", "x", "--to", "a"], "Did you mean --to-agent?"),
        (["doctor", "--json"], "Did you mean --output json?"),
        (["signal", "list", "--namespace", "a"], "Did you mean --project?"),
        (["signal", "list", "--out", "json"], "Did you mean --output?"),
        (["hook", "install", "codex", "--force"], "Did you mean --yes?"),
        (["signal", "list", "--quiet"], 'See "coordinator signal list --help".'),  # nothing is similar but hyphens
        (["signal", "get", "k", "--key"], 'See "coordinator signal get --help".'),  # an argument is not an option
        (["signal", "set", "k", "-5"], 'Put "--" before a value that begins with "-".'),
        (["signal", "get"], "Usage: coordinator signal get [OPTIONS] KEY"),
        (["rule", "delete"], "Usage: coordinator rule delete [OPTIONS] WHEN_SET"),
        (
            ["directive", "inbox"],
            'Give the name of an agent, or the id that "coordinator agent register" printed, or set COORDINATOR_AGENT_ID.',
        ),
        (["project", "delete", "p"], 'See "coordinator project delete --help".'),  # nobody can be asked
        (
            ["agent", "heartbeat"],
            'Give the name of an agent, or the id that "coordinator agent register" printed, or set COORDINATOR_AGENT_ID.',
        ),
        (
            ["lock", "release", "a", "--token", "1"],
            'Give the name of an agent, or the id that "coordinator agent register" printed, or set COORDINATOR_AGENT_ID.',
        ),
        (
            ["signal", "get", "a", "b"],
            "Quote an argument that contains spaces. Usage: coordinator signal get [OPTIONS] KEY",
        ),
    ],
)
def test_a_usage_error_exits_with_2_and_a_suggestion(lone: Program, line: list[str], hint: str) -> None:
    assert lone.fails(2, *line)["hint"] == hint


def test_the_error_for_an_unknown_choice_names_its_argument(lone: Program) -> None:
    assert lone.fails(2, "completion", "tcsh")["message"].startswith("invalid value for 'SHELL': 'tcsh' is not one of ")


@pytest.mark.parametrize(
    ("code", "environment", "line"),
    [
        (78, {}, ["--url", "mysql://u:s3cret@h/d", "signal", "list"]),
        (78, {"DATABASE_URL": "postgresql://u:s3cret@h/d?sslmode=requird"}, ["signal", "list"]),
        (78, {"COORDINATOR_OUTPUT": "xml"}, ["signal", "list"]),
        (78, {}, ["serve", "--port", "http"]),
        (78, {"COORDINATOR_HTTP_PAGE": "0", "DATABASE_URL": "postgresql://nowhere.invalid/d"}, ["serve"]),
        (78, {"COORDINATOR_ORIGINS": "*", "DATABASE_URL": "postgresql://nowhere.invalid/d"}, ["serve"]),
        (78, {"COORDINATOR_CALL_TIMEOUT_S": "soon"}, ["event", "tail"]),
        (78, {}, ["--profile", "dev", "signal", "list"]),
        (78, {}, ["--config", "there-is-none.yaml", "signal", "list"]),
        (7, {}, ["signal", "list"]),
        (7, {}, ["--url", "postgresql://u:s3cret@127.0.0.1:1/d", "signal", "list"]),
        (7, {}, ["--url", "postgresql://u:s3cret@127.0.0.1:1/d", "event", "tail", "--follow"]),
        (5, {}, ["agent", "heartbeat", ""]),
        (5, {}, ["signal", "set", "k", "1", "--ttl", "ten minutes"]),
        (5, {}, ["signal", "set", "k", "1", "--ttl", "99999999999999d"]),
        (5, {}, ["signal", "set", "k", "1", "--expect", "1e3"]),
        (5, {}, ["agent", "register", "a", "--metadata", "{broken"]),
        (5, {}, ["agent", "register", "a", "--metadata", "[1]"]),
        (5, {}, ["event", "tail", "--limit", "0"]),
    ],
)
def test_a_malformed_command_line_or_setting_is_an_error_before_any_connection(
    lone: Program, code: int, environment: dict[str, str], line: list[str]
) -> None:
    done = lone.run(*line, **environment)
    assert done.returncode == code, done
    error = json.loads(done.stderr)["error"]
    assert error["hint"]
    assert "s3cret" not in done.stderr


def test_without_a_database_the_hint_is_to_start_one(lone: Program) -> None:
    assert "coordinator serve" in lone.fails(7, "project", "list")["hint"]


def test_what_the_server_rejects_changes_nothing(program: Program) -> None:
    for code, line in [
        (5, ["signal", "set", "k", "1", "--ttl", "0"]),
        (5, ["signal", "set", "k", "1", "--ttl", "365000d"]),
        (5, ["signal", "set", "", "1"]),
        (5, ["signal", "set", "k\x1b[2J", "1"]),
        (5, ["signal", "set", "k" * 513, "1"]),
        (5, ["signal", "set", "k", '"\\u0000"']),
        (5, ["signal", "set", b"k\xff", "1"]),
        (5, ["signal", "set", "k", b"\xff"]),
        (5, ["event", "tail", "--topic", "Signal!"]),
        (5, ["event", "tail", "--after", "yesterday"]),
        (5, ["event", "emit", "mine"]),
        (3, ["--project", "nope", "signal", "set", "k", "1"]),
    ]:
        program.fails(code, *line)
    program.fails(5, "signal", "set", "k", "-", stdin=b"x" * 300_000)
    program.fails(5, "signal", "set", "k", "-", stdin=b"x" * 4_000_001)
    program.fails(5, "signal", "set", "k", "-", stdin=b"\xff")
    assert program.json("signal", "list") == []


def test_a_wait_that_times_out_exits_with_8(program: Program) -> None:
    error = program.fails(8, "event", "tail", "--follow", "--timeout", "100ms")
    assert error["name"] == "wait-timed-out"


def test_an_error_as_text_has_two_lines_and_escapes_control_characters(lone: Program) -> None:
    done = lone.run("-o", "text", "agent", "heartbeat", "\x1b[2J")
    assert done.stderr == (
        'error: ID|NAME: "\\x1b[2J" is not the name or id of an agent\nhint: See "coordinator agent list".\n'
    )


def test_a_bug_exits_with_1_and_asks_for_a_report_without_a_trace(lone: Program) -> None:
    # A module that fails represents a bug.
    (lone.folder / "yaml.py").write_text("raise RuntimeError('planted')\n")
    (lone.folder / "coordinator.yaml").write_text("profiles: {}\n")
    path = f"{lone.folder}{os.pathsep}{lone.environment['PYTHONPATH']}"
    error = lone.fails(1, "signal", "list", PYTHONPATH=path)
    assert "planted" in error["message"]
    assert "report" in error["hint"]
    shown = lone.run("signal", "list", PYTHONPATH=path, COORDINATOR_DEBUG="1")
    assert "Traceback" in shown.stderr
    assert shown.returncode == 1


def test_a_reader_that_closes_its_pipe_ends_the_program_quietly(program: Program) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = program.start("schema", "print", stdout=writer)
    os.close(writer)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")


def test_a_full_disk_is_reported(program: Program) -> None:
    with Path("/dev/full").open("w") as full:
        process = program.start("signal", "list", stdout=full)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "No space left" in json.loads(errors)["error"]["message"]


def test_closed_standard_streams_are_not_a_bug(program: Program) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *program.command("signal", "list")],
        check=False,
        cwd=program.folder,
        env=program.environment,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0
