from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Program


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
        program.run("project", "export", "--file", str(file))
        assert file.read_text().splitlines()[1:] == whole.splitlines()[1:]
    cut = program.fails(5, "project", "import", "copy", stdin="".join(lines[:4]).encode())
    assert "line 4" in cut["message"]
    done = program.json("project", "import", "copy", stdin=whole.encode())
    assert done == {"project": "copy", "export": json.loads(lines[0])["export"], "lines": len(lines), "finished": True}
    assert program.json("project", "import", "copy", stdin=whole.encode()) == done
    assert program.run("project", "export", "copy").stdout.splitlines()[1:] == whole.splitlines()[1:]


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
