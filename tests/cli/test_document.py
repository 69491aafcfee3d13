from __future__ import annotations

import json

from tests.cli.conftest import Program

EXACT = '{"b": 1e16, "a":"\\u0000 \\ud800", "a" : 2}'


def test_documents_on_the_command_line(program: Program) -> None:
    document = ("document",)
    assert program.json(*document, "put", "plan", "main", EXACT, "--expect", "0", "--ttl", "2h")["version"] == 1
    assert program.text(*document, "get", "plan", "main", "--value") == EXACT + "\n"
    assert program.fails(4, *document, "put", "plan", "main", "1", "--expect", "0")["detail"]["version"] == 1
    put = program.json(*document, "put", "plan", "main", "-", stdin=b'{"steps": [{"id": 1}], "note": "x"}\n')
    assert program.text(*document, "patch", "plan", "main", '{"note": null}', "-o", "text") == "main is at version 3\n"
    program.json(*document, "item", "plan", "main", "1", '{"done": true}', "--path", "steps", "--epoch", put["epoch"])
    assert program.json(*document, "get", "plan", "main", "--path", "steps", "--path", "0")["value"] == {
        "id": 1,
        "done": True,
    }
    assert program.json(*document, "get", "plan", "main", "--version", "2")["value"]["note"] == "x"
    assert json.loads(program.text(*document, "diff", "plan", "main", "2", "3")) == [{"op": "remove", "path": "/note"}]
    assert program.json(*document, "delete", "plan", "main")["deleted"] is True
    assert program.fails(3, *document, "get", "plan", "main")["code"] == "ZC217"
    assert program.json(*document, "restore", "plan", "main", "--version", "2", "--expect", "0")["version"] == 6
    assert [row["version"] for row in program.json(*document, "history", "plan", "main")] == [6, 5, 4, 3, 2, 1]
    assert [row["key"] for row in program.json(*document, "list", "--kind", "plan", "--prefix", "ma")] == ["main"]
    assert program.fails(3, *document, "item", "plan", "main", "9", "{}", "--path", "steps", "--field", "id")["hint"]
    assert program.fails(5, *document, "put", "plan", "main", "{broken")["hint"]
    assert 'No document of kind "todo" has this key' in program.fails(3, "todo", "item", "main", "1", "{}")["hint"]
    assert program.json(*document, "keep", "plan", "main")["changed"] is True
    assert program.text(*document, "keep", "plan", "main", "--not", "-o", "text") == "main is no longer kept\n"


def test_states_todo_lists_and_features_on_the_command_line(program: Program) -> None:
    assert program.json("state", "save", "s", '{"step": 1}')["session"] == "s"
    assert program.text("state", "load", "s", "--value", "--path", "step") == "1\n"
    program.json("todo", "save", "s/list", '[{"id": 3, "status": "PENDING"}]', "--session", "s")
    program.json("todo", "item", "s/list", "3", '{"status": "COMPLETED"}')
    assert program.json("todo", "load", "s/list")["value"] == [{"id": 3, "status": "COMPLETED"}]
    table = program.text("todo", "load", "s/list", "-o", "text").splitlines()
    assert [line.split() for line in table[-2:]] == [["ID", "STATUS"], ["3", "COMPLETED"]]
    assert table[2].split() == ["key", "s/list"]
    program.json("todo", "save", "goal", '{"goal": "a release", "items": [{"id": 1, "to do": "tag", "error": [2]}]}')
    table = program.text("todo", "load", "goal", "-o", "text").splitlines()
    assert table[-2:] == ["ID  STATUS  ERROR  TO DO", "1   -       [2]    tag"]
    assert 'value       {"goal":"a release"}' in table
    program.json("todo", "save", "hostile", '[{"id": 1, "\\u001b[2j\\n": "\\u001b[2j"}]')
    assert "\x1b" not in program.text("todo", "load", "hostile", "-o", "text")
    assert program.text("todo", "load", "hostile", "-o", "text").splitlines()[-2].split() == [
        "ID",
        "STATUS",
        r"\x1b[2J\n",
    ]
    unlike = [{"id": number, f"field {number}": 1} for number in range(3000)]  # nine million cells
    program.json("todo", "save", "unlike", "-", stdin=json.dumps(unlike).encode())
    assert len(program.text("todo", "load", "unlike", "-o", "text")) < 2 * len(json.dumps(unlike))
    program.json("todo", "save", "empty", "[]")
    assert "value       []" in program.text("todo", "load", "empty", "-o", "text").splitlines()
    text = '[ {"passes":false,  "id":"login"} ]'
    program.json("feature", "save", "main", "-", stdin=text.encode())
    assert program.text("feature", "load", "main", "--value") == text + "\n"
    program.json("feature", "set", "main", "login", "--passes", "--status", "done")
    assert program.json("feature", "load", "main")["value"] == [{"id": "login", "passes": True, "status": "done"}]
    assert program.fails(5, "feature", "set", "main", "login")["hint"]
    assert program.fails(5, "todo", "save", "x", "{}")["code"] == "ZC105"


def test_a_transaction_writes_documents_and_a_log_in_one_step(program: Program) -> None:
    parts = {
        "conditions": [{"verb": "assert_document", "kind": "plan", "key": "main", "version": 0}],
        "writes": [
            {
                "verb": "log_append",
                "kind": "message",
                "key": "s",
                "entries": [{"data": {"role": "user", "content": "hi"}}],
            },
            {"verb": "document_put", "kind": "plan", "key": "main", "value_text": EXACT, "ttl": "1h"},
            {"verb": "document_put", "kind": "todo", "key": "list", "value": [{"id": 3}]},
            {"verb": "document_item", "kind": "todo", "key": "list", "item": "3", "patch": {"status": "COMPLETED"}},
        ],
    }
    done = program.json("transaction", "run", "-", stdin=json.dumps(parts).encode())
    assert [row["result"].get("version") for row in done] == [None, 1, 1, 2]
    assert program.text("document", "get", "plan", "main", "--value") == EXACT + "\n"
    assert program.fails(4, "transaction", "run", json.dumps(parts))["detail"]["condition"] == 0
    assert program.json("todo", "load", "list")["value"] == [{"id": 3, "status": "COMPLETED"}]
