"""Text for people, JSON for programs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import msgspec
import pytest

from coordinator.cli.output import Output, age, plain, span
from coordinator.cli.table import Column, table
from coordinator.model.operation import Json
from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S


def on_terminal(program: Program, *arguments: str, columns: int = 200, stdin: IO[bytes] | None = None) -> str:
    """Run the program with a pseudo-terminal for all it writes, and reads without ``stdin``; return what a person sees."""
    ours, theirs = pty.openpty()
    environment = {**program.environment, "TERM": "dumb", "COLUMNS": str(columns)}
    process = program.start(*arguments, stdin=stdin or theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    process.wait(DEADLINE_S)
    return seen.decode()


def test_a_terminal_gets_tables_and_a_pipe_gets_json(program: Program) -> None:
    program.json("signal", "set", "k", '{"a": 1}', "--ttl", "2h")
    seen = on_terminal(program, "signal", "list")
    assert "KEY" in seen
    assert '{"a":1}' in seen
    assert "in 2h" in seen or "in 1h59m" in seen  # on a slow machine
    assert "[{" not in seen
    assert json.loads(program.run("signal", "list").stdout)[0]["value"] == {"a": 1}
    assert json.loads(on_terminal(program, "signal", "list", "--output", "json"))[0]["key"] == "k"


def test_a_terminal_gets_one_value_plainly_and_errors_in_two_lines(program: Program) -> None:
    agent = on_terminal(program, "agent", "register", "coder").strip()
    assert program.json("agent", "heartbeat", agent)["agent"] == agent
    assert on_terminal(program, "signal", "get", "nope").splitlines()[0].startswith('error: signal "nope" is not set')
    assert "No signals are set." in on_terminal(program, "signal", "list")


def test_the_progress_of_a_file_has_a_line_of_its_own_however_it_ends(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(2_500_000))
    steps = "1.0 of 2.5 MB\r2.1 of 2.5 MB\r2.5 of 2.5 MB\r\n"
    assert on_terminal(program, "artifact", "put", str(file)) == f"\r{steps}stored file, 2500000 bytes\r\n"
    seen = on_terminal(program, "artifact", "put", str(file), "--sha256", "0" * 64)
    assert seen.startswith(f"\r{steps}error: ")
    with file.open("rb") as stdin:
        seen = on_terminal(program, "artifact", "put", "-", "--name", "x", stdin=stdin)
    assert seen == "\r1.0 MB\r2.1 MB\r2.5 MB\r\nstored x, 2500000 bytes\r\n"
    seen = on_terminal(program, "artifact", "get", "x", str(tmp_path / "copy"))
    assert seen == f"\r{steps}wrote {tmp_path / 'copy'}, 2500000 bytes\r\n"
    file.write_bytes(b"x")
    assert on_terminal(program, "artifact", "put", str(file)) == "stored file, 1 byte\r\n"


def test_control_characters_in_values_do_not_reach_the_terminal(program: Program) -> None:
    program.json("signal", "set", "k", "\x1b]0;owned\x07")
    for line in (["signal", "list"], ["signal", "get", "k"], ["signal", "get", "k", "--value"]):
        seen = on_terminal(program, *line)
        assert "owned" in seen
        assert "\x07" not in seen


def test_text_through_a_pipe_is_a_plain_table(program: Program) -> None:
    program.json("signal", "set", "key", "1", "--critical")
    head, row = program.text("signal", "list").splitlines()
    assert head.split() == [
        "KEY",
        "VALUE",
        "VERSION",
        "EXPIRES",
        "ACTOR",
        "UPDATED",
        "CRITICAL",
    ]  # of expires_at, updated_at
    assert row.split()[:2] == ["key", "1"]
    assert row.split()[-1] == "true"


def test_a_table_fits_80_columns_and_breaks_no_id(program: Program) -> None:
    agent = program.text("agent", "register", "coder", "--metadata", '{"model": "a model with a long name"}').strip()
    program.json("lock", "acquire", "coordinator/cli/output.py", "--agent", agent)
    program.json("directive", "send", "a text of several words " * 5, "--to-agent", "coder")
    program.json("job", "enqueue", "build")
    for line in (
        ("agent", "list"),
        ("lock", "list"),
        ("directive", "inbox", "--agent", "coder"),
        ("directive", "list"),
        ("job", "list"),  # with a note that is longer than a line
    ):
        narrow = on_terminal(program, *line, columns=80).splitlines()
        assert max(map(len, narrow)) <= 80, line
        wide = on_terminal(program, *line, "--wide", columns=80).splitlines()
        note = " ".join(narrow).partition("(--wide shows ")[2].removesuffix(")")
        omitted = note.split(", ") if note else []
        headings = [(found.group(), found.start()) for found in re.finditer(r"\S+( \S+)*", wide[0])]
        empty = [
            heading for heading, start in headings if {row[start : start + 2].strip() for row in wide[1:]} == {"-"}
        ]
        assert sorted([*re.split("  +", narrow[0]), *omitted, *empty]) == sorted(name for name, _ in headings), line
    assert agent in on_terminal(program, "agent", "list", columns=80)
    assert agent in on_terminal(program, "lock", "list", "--wide", columns=80)
    assert "a text of several words " * 4 in on_terminal(program, "directive", "list", "--wide", columns=80)


def test_a_terminal_shows_no_field_and_no_column_without_a_value(program: Program) -> None:
    program.json("queue", "set", "mail", "--ageing", "1m")
    program.json("queue", "set", "builds")
    program.json("queue", "pause", "builds", "--reason", "Down")
    program.json("limit", "set", "l", "--slots", "2")
    program.json("signal", "set", "k", "null")
    shown = [line.split()[0] for line in on_terminal(program, "queue", "get", "mail").splitlines()]
    assert shown == [
        "project", "queue", "fair_by", "ageing", "events", "queued_count", "running_count", "actor", "created_at", "updated_at",
    ]  # fmt: skip
    whole = [line.split()[0] for line in on_terminal(program, "queue", "get", "mail", "--wide").splitlines()]
    assert whole == [*program.json("queue", "get", "mail")]
    head = on_terminal(program, "queue", "list").splitlines()[0]
    assert "PAUSE REASON" in head, "one of the queues is paused"
    assert "MAX WAITING" not in head
    assert "MAX WAITING" in on_terminal(program, "queue", "list", "--wide").splitlines()[0]
    assert "RATE" not in on_terminal(program, "limit", "list")
    assert "budget" not in on_terminal(program, "limit", "show", "l")
    assert "null" in on_terminal(program, "signal", "get", "k"), "null is a value"
    text = program.text("queue", "get", "mail").splitlines()
    assert [line.split()[0] for line in text] == whole, "a pipe gets the same lines each time"


def test_truth_and_nothing_are_shown_as_in_json(program: Program) -> None:
    for value in ("true", "false", "null"):
        program.json("signal", "set", value, value, "--critical")
    rows = [line.split()[:2] for line in program.text("signal", "list").splitlines()[1:]]
    assert rows == [["false", "false"], ["null", "null"], ["true", "true"]]
    shown = dict(line.split(None, 1) for line in program.text("signal", "get", "null").splitlines())
    assert (shown["value"], shown["critical"], shown["expires_at"]) == ("null", "true", "-")


@pytest.mark.parametrize("maximum", [*range(1, 60), None])
def test_a_table_keeps_whole_what_can_be_copied_and_wraps_text(maximum: int | None) -> None:
    key = "3f9c9c2e-7d0c-4a53-9d5b-9d6c7c2f1a11"
    text = "das längste Wort ist Donaudampfschifffahrtsgesellschaftskapitän, 日本語もあります"
    columns = [Column("ID", [key, "7"]), Column("BODY", [text, "-"], text=True), Column("N", ["1", "22"])]
    shown, omitted = table(columns, maximum)
    lines = shown.splitlines()
    assert lines[1].startswith(key)
    widest = max(sum(2 if "\u3000" < c < "\uffff" else 1 for c in line) for line in lines)
    assert maximum is None or widest <= max(maximum, len(key))
    if "BODY" not in omitted:
        letters = "".join(line[len(key) :] for line in lines[1:-1]).replace(" ", "")
        assert letters.replace("1", "", 1 - ("N" in omitted)) == text.replace(" ", "")
    assert omitted == ([] if maximum is None or maximum >= 66 else ["BODY"] if maximum >= 40 else ["BODY", "N"])


def test_text_that_the_locale_cannot_show_is_shown(program: Program) -> None:
    program.json("signal", "set", "k", "grün ☃")
    done = program.run("signal", "get", "k", "--value", LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.stdout == "grün ☃\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m"), (3600, "1h"), (5400, "1h30m"), (90061, "1d1h"), (-61, "1m1s")]
)
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text


def test_an_age_distinguishes_past_and_future() -> None:
    assert age(datetime.now(UTC) - timedelta(hours=2)) == "2h ago"
    assert age(datetime.now(UTC) + timedelta(hours=2)) in ("in 2h", "in 1h59m")  # on a slow machine


def test_plain_text_stays_and_control_characters_are_shown() -> None:
    assert plain("grün ☃") == "grün ☃"
    assert plain("a\n\x1b\u202e") == "a\\n\\x1b\\u202e"


class Ended(msgspec.Struct):
    id: int
    error: str
    result: Json
    labels: list[str]
    percent: float


ENDED = Ended(7, "ValueError: no\n\nTraceback:\n  File\x1b[2J\n", ["a", "b"], ["gpu", "eu"], 100 / 3)


def test_one_value_shows_its_lines_below_each_other_and_json_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Output("text").one(ENDED)
    assert capsys.readouterr().out.splitlines() == [
        "id       7",
        "error    ValueError: no",
        "",
        "         Traceback:",
        "           File\\x1b[2J",
        'result   ["a","b"]',
        "labels   gpu, eu",
        "percent  33.3333",
    ]


def test_a_table_has_the_first_line_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Output("text").many([ENDED], ("id", "error", "result", "labels", "percent"), empty="")
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "ERROR", "RESULT", "LABELS", "PERCENT"]
    assert row.split() == ["7", "ValueError:", "no", '["a","b"]', "gpu,", "eu", "33.3"]


class Counted(msgspec.Struct):
    queued_count: int


def test_a_count_that_stopped_at_its_maximum_is_marked_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    Output("text").one(Counted(10_000))
    Output("text").many([Counted(10_000), Counted(9_999)], ("queued_count",), empty="")
    Output("json").one(Counted(10_000))
    assert capsys.readouterr().out.splitlines() == [
        "queued_count  10000+", "QUEUED COUNT", "10000+", "9999", '{"queued_count":10000}'
    ]  # fmt: skip
