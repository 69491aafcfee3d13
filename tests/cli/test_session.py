from __future__ import annotations

from uuid import UUID

from tests.cli.conftest import Program


def test_a_session_is_created_shown_changed_listed_and_archived(program: Program) -> None:
    made = program.json("session", "create", "s", "--title", "Port", "--context", '{"n": 1}')
    assert (made["session"], made["title"], made["context"]) == ("s", "Port", {"n": 1})
    assert program.fails(4, "session", "create", "s")["code"] == "ZC301"
    key = program.run("session", "create", "--mission", "Do it.", "-o", "text").stdout.strip()
    assert str(UUID(key)) == key
    assert program.json("session", "set", "s", "--status", "done")["status"] == "done"
    assert [row["session"] for row in program.json("session", "list")] == ["s", key]
    assert [row["session"] for row in program.json("session", "list", "--status", "done")] == ["s"]
    assert program.json("session", "archive", "s")["status"] == "archived"
    assert program.json("session", "show", "s")["title"] == "Port"
    assert program.fails(3, "session", "show", "t")["code"] == "ZC215"
    assert program.fails(3, "session", "list", "--user", "nobody")["code"] == "ZC220"
    program.fails(5, "session", "set", "s", "--context", "[]")
