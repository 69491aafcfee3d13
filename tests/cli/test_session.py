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


def test_a_session_is_forked_and_deleted(program: Program) -> None:
    for text in ("one", "two"):
        program.json("log", "append", "message", "s", f'{{"content": "{text}"}}')
    made = program.json("session", "fork", "s", "1", "--copy", "t")
    assert (made["session"], made["forked_from"]) == ("t", "s")
    assert [row["seq"] for row in program.json("log", "read", "message", "t")] == [1]
    assert program.fails(4, "session", "fork", "s", "9")["code"] == "ZC335"
    assert program.run("session", "delete", "s").returncode == 2
    assert program.json("session", "delete", "s", "--yes") == {"session": "s", "deleted": True}
    assert [row["session"] for row in program.json("session", "list")] == ["t"]
