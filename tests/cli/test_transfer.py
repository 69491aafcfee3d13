from __future__ import annotations

import json
import os
from pathlib import Path

import anyio

from tests.cli.conftest import Program
from tests.waiting import until


def test_a_project_is_exported_to_a_file_that_continues_and_imported(program: Program, tmp_path: Path) -> None:
    program.json("project", "create", "copy")
    for number in range(5):
        program.json("log", "append", "note", "k", json.dumps({"n": number}))
    whole = program.run("project", "export").stdout
    lines = whole.splitlines(keepends=True)
    assert json.loads(lines[0])["format"] == "coordinator-project"
    assert json.loads(lines[-1])["type"] == "end"
    file = tmp_path / "export.jsonl"
    for kept in ("", lines[0], "".join(lines[:4]) + lines[4][:20], whole):
        file.write_text(kept)
        exported = program.json("project", "export", "--file", str(file))
        assert exported == {"project": "default", "file": str(file), "lines": len(lines)}
        assert file.read_text().splitlines()[1:] == whole.splitlines()[1:]
    cut = program.fails(5, "project", "import", "copy", stdin="".join(lines[:4]).encode())
    assert "line 4" in cut["message"]
    done = program.json("project", "import", "copy", stdin=whole.encode())
    assert done == {"project": "copy", "export": json.loads(lines[0])["export"], "lines": len(lines), "finished": True}
    assert program.json("project", "import", "copy", stdin=whole.encode()) == done
    assert program.run("project", "export", "copy").stdout.splitlines()[1:] == whole.splitlines()[1:]


def test_without_the_server_the_hint_says_that_the_command_continues(lone: Program, tmp_path: Path) -> None:
    nowhere = ("--url", "http://127.0.0.1:1", "project")
    line = b'{"format": "coordinator-project", "version": 1, "export": "%032d", "project": "x"}\n' % 1
    for command, stdin in ((("import", "x"), line), (("export", "x", "--file", str(tmp_path / "x")), b"")):
        assert "Run the command again to continue" in lone.fails(7, *nowhere, *command, stdin=stdin)["hint"]
    assert "again" not in lone.fails(7, *nowhere, "export", "x")["hint"]


def test_what_is_not_an_export_is_refused(program: Program, tmp_path: Path) -> None:
    program.json("project", "create", "copy")
    assert program.fails(5, "project", "import", "copy", stdin=b"")["code"] == "ZC101"
    assert program.fails(5, "project", "import", "copy", stdin=b"PK\x03\x04")["code"] == "ZC105"
    assert program.fails(5, "project", "import", "copy", stdin=b'{"format": "tar"}\n')["code"] == "ZC105"
    assert program.fails(3, "project", "import", "nowhere", stdin=b'{"format": "tar"}\n')["hint"]
    file = tmp_path / "notes.txt"
    file.write_text("hello\n")
    program.fails(5, "project", "export", "--file", str(file))
    assert file.read_text() == "hello\n"


def test_an_import_that_was_killed_continues(program: Program) -> None:
    program.json("project", "create", "copy")
    entries = json.dumps([{"data": number} for number in range(1000)])
    for _ in range(2):
        program.json("log", "append", "note", "k", "--entries", entries)
    whole = program.run("project", "export").stdout
    lines = whole.encode().splitlines(keepends=True)

    def begun() -> bool:
        return program.run("--project", "copy", "log", "show", "note", "k").returncode == 0

    given, pipe = os.pipe()
    process = program.start("project", "import", "copy", stdin=given)
    os.close(given)
    with os.fdopen(pipe, "wb") as writer:
        writer.write(b"".join(lines[:1500]))  # a batch, and a part of the next one
        writer.flush()
        anyio.run(until, begun)
        process.kill()
        process.communicate()
    assert 0 < program.json("--project", "copy", "log", "show", "note", "k")["count"] < 1000
    done = program.json("project", "import", "copy", stdin=whole.encode())
    assert (done["lines"], done["finished"]) == (len(lines), True)
    assert program.run("project", "export", "copy").stdout.splitlines()[1:] == whole.splitlines()[1:]


def test_a_user_who_is_missing_is_named_and_may_be_allowed(program: Program) -> None:
    program.json("user", "create", "ada", "--no-password")
    program.json("project", "create", "shop", "--user", "ada", "--title", "The shop")
    whole = program.run("project", "export", "shop").stdout.encode()
    program.json("user", "delete", "ada")
    program.json("project", "create", "copy")
    failure = program.fails(3, "project", "import", "copy", stdin=whole)
    assert (failure["code"], '"ada"' in failure["message"]) == ("ZC220", True)
    program.json("project", "import", "copy", "--allow-missing-users", stdin=whole)
    copy = program.json("project", "show", "copy")
    assert (copy["title"], copy["username"]) == ("The shop", None)
