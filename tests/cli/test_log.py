from __future__ import annotations

import pytest

from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S


def followed(program: Program, count: int, *options: str) -> list[str]:
    """Return the first lines of a log that is followed."""
    process = program.start("log", "follow", "note", "k", "--data", *options)
    assert process.stdout
    try:
        return [process.stdout.readline().rstrip("\n") for _ in range(count)]
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


EXACT = '{"b": 1e16, "a":"\\u0000 \\ud800"}'


def test_entries_are_appended_read_shown_and_listed(program: Program) -> None:
    first = program.json("log", "append", "note", "run/7", EXACT, "two words", "--expect", "0")
    assert (first["first_seq"], first["last_seq"], first["appended"]) == (1, 2, 2)
    one = (
        "log",
        "append",
        "note",
        "run/7",
        "3",
        "--text",
        "--uid",
        "u",
        "--role",
        "user",
        "--tokens",
        "1",
        "--needs",
        "-1",
    )
    assert program.text(*one) == "run/7 is at entry 3\n"
    assert program.text(*one) == "it is there already, as entry 3\n"
    batch = f'[{{"data": {EXACT}, "uid": "v"}}]'
    program.json("log", "append", "note", "run/7", "--entries", batch, "--expect", "3", "--epoch", first["epoch"])
    lines = program.run("log", "read", "note", "run/7", "--data").stdout.splitlines()
    assert lines == [EXACT, '"two words"', '"3"', EXACT]
    last = program.json("log", "read", "note", "run/7", "--last", "2", "--before", "4")
    assert [(entry["seq"], entry["data"], entry["needs"]) for entry in last] == [(2, "two words", None), (3, "3", 2)]
    for place in ("2", f"{first['epoch']}.2"):
        assert [row["seq"] for row in program.json("log", "read", "note", "run/7", "--after", place)] == [3, 4]
    assert program.fails(3, "log", "read", "note", "run/7", "--after", "00000000.2")["code"] == "ZC218"
    assert "number" in program.fails(5, "log", "read", "note", "run/7", "--after", "9" * 19)["hint"]
    assert "two words" in program.text("log", "read", "note", "run/7")
    assert program.json("log", "show", "note", "run/7")["count"] == 4
    assert [log["key"] for log in program.json("log", "list", "--kind", "note", "--prefix", "run")] == ["run/7"]
    assert program.fails(3, "log", "show", "note", "run/8")["hint"].startswith('Did you mean "note/run/7"?')
    assert program.fails(4, "log", "append", "note", "run/7", "x", "--expect", "3")["detail"]


def test_a_malformed_append_is_refused(program: Program) -> None:
    append = ("log", "append", "note", "k")
    for wrong in ([], ["1", "--entries", "[]"], ["1", "2", "--uid", "u"], ["{", "--json"], ["--entries", "["]):
        program.fails(5, *append, *wrong)
    assert program.json("log", "list") == []


def test_entries_are_popped_cleared_kept_deleted_and_followed(program: Program) -> None:
    program.json("log", "append", "note", "k", "1", "2", "3", EXACT)
    assert [entry["seq"] for entry in program.json("log", "pop", "note", "k", "--last", "2", "--expect", "4")] == [3, 4]
    assert program.json("log", "keep", "note", "k", "1", "2")["changed"] == 2
    assert program.json("log", "keep", "note", "k", "2", "--not")["changed"] == 1
    program.json("log", "append", "note", "k", EXACT)
    assert followed(program, 2, "--last", "2") == ["2", EXACT]
    cursor = "WyJsb2dfcmVhZCIsIiIsIjEiXQ"  # after entry 1
    assert followed(program, 2, "--after", cursor) == ["2", EXACT]
    assert program.json("log", "clear", "note", "k")["deleted"] == 2
    assert program.text("log", "clear", "note", "k", "--kept") == "deleted 1 entry of k\n"
    program.json("log", "append", "note", "k", "6")
    assert followed(program, 1, "--after", cursor) == ["6"]
    assert program.text("log", "delete", "note", "k") == "deleted k, with 1 entry\n"


@pytest.mark.parametrize("options", [(), ("--last", "5")])
def test_a_log_that_does_not_exist_is_waited_for_and_so_is_one_that_was_deleted(
    program: Program, options: tuple[str, ...]
) -> None:
    program.constants = {"coordinator.operations.waiting.POLL_S": 0.2}  # no daemon numbers events, so none is pushed
    process = program.start("log", "follow", "note", "later", "--data", *options)
    assert process.stdout
    assert process.stderr
    try:
        program.json("log", "append", "note", "other", "0")
        program.json("log", "append", "note", "later", "1", "2")
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
        program.json("log", "delete", "note", "later")
        assert "what is there follows" in process.stderr.readline()
        program.json("log", "append", "note", "later", "3")
        assert process.stdout.readline() == "3\n"
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
