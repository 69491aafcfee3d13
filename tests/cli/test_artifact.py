from __future__ import annotations

import hashlib
from pathlib import Path

from tests.cli.conftest import Program


def test_a_file_is_stored_shown_and_written_again(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(b"<p>\x00 all green")
    made = program.json("artifact", "put", str(file))
    assert (made["artifact"], made["media_type"], made["session"]) == ("report.html", "text/html", None)
    assert made["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    program.json("artifact", "get", "report.html", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == file.read_bytes()
    assert program.json("artifact", "show", "report.html") == made
    assert program.json("artifact", "keep", "report.html")["kept"]
    assert not program.json("artifact", "keep", "report.html", "--no-kept")["kept"]
    assert program.json("artifact", "delete", "report.html") == {"artifact": "report.html", "deleted": True}
    for verb in ("show", "get", "delete", "keep"):
        program.fails(3, "artifact", verb, "report.html")


def test_standard_input_and_output(program: Program) -> None:
    made = program.json(
        "artifact", "put", "-", "--name", "x.diff", "--session", "s", "--type", "text/x-diff", stdin=b"+1\n"
    )
    assert (made["artifact"], made["media_type"], made["session"], made["bytes"]) == ("x.diff", "text/x-diff", "s", 3)
    assert program.text("artifact", "get", "x.diff", "--session", "s") == "+1\n"
    assert [a["artifact"] for a in program.json("artifact", "list", "--type", "text/*", "--session", "s")] == ["x.diff"]
    assert program.json("artifact", "list", "--prefix", "y") == []


def test_what_cannot_be_stored_is_refused(program: Program, tmp_path: Path) -> None:
    assert "--name" in program.fails(5, "artifact", "put", "-")["hint"]
    assert "missing" in program.fails(5, "artifact", "put", str(tmp_path / "missing"))["message"]
    (tmp_path / "a").write_bytes(b"x")
    program.fails(4, "artifact", "put", str(tmp_path / "a"), "--sha256", "0" * 64)
    program.json("artifact", "put", str(tmp_path / "a"), "--expect", "0")
    assert "exists" in program.fails(4, "artifact", "put", str(tmp_path / "a"), "--expect", "0")["message"]
    program.fails(5, "artifact", "get", "a", str(tmp_path / "no" / "folder"))
