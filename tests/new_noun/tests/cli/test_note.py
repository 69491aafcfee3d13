from __future__ import annotations

from tests.cli.conftest import Program


def test_a_note_is_written_listed_and_deleted(program: Program) -> None:
    assert program.json("note", "write", "build", "stale")["text"] == "stale"
    assert [note["key"] for note in program.json("note", "list")] == ["build"]
    assert program.json("note", "delete", "build") == {"key": "build", "deleted": True}
    program.fails(3, "note", "delete", "build")
