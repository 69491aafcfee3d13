from __future__ import annotations

from tests.cli.conftest import Program


def test_files_are_leased_recorded_listed_and_left(program: Program) -> None:
    assert program.json("file", "record", "first", "x.py", "--hash", "1") == {"recorded": 1}
    (grant,) = program.json("file", "edit", "second", "x.py", "--hash", "1", "--owner", "s")
    assert (grant["path"], grant["state"]) == ("x.py", "granted")
    program.json("file", "record", "second", "x.py", "--hash", "2", "--owner", "s", "--step", "written")
    held = program.run("file", "edit", "first", "x.py", "--output", "text")
    assert held.returncode == 4
    assert "second" in held.stdout
    assert program.text("file", "leave", "second", "--owner", "s") == "released 1 of second\n"
    stale = program.run("file", "edit", "first", "x.py", "--hash", "2", "--output", "text")
    assert (stale.returncode, "stale" in stale.stdout) == (4, True)
    assert [view["hash"] for view in program.json("file", "list")] == ["1", "2"]
    assert program.json("file", "leave", "first", "--end")["released"] == 1


def test_an_agent_joins_under_its_name(program: Program) -> None:
    first = program.text("agent", "join", "s")
    assert program.text("agent", "join", "s", "--metadata", '{"task": "a"}') == first
