"""What the fleet of the example counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.fleet import work


def test_counting_finds_what_is_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os\n\n\ndef f():\n    # TODO: more\n    async def g(): ...\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "a.md").write_text("TODO\nFIXME def x\n")
    assert work.count(tmp_path, ["a.py"]) == {"files": 1, "lines": 6, "functions": 2, "todos": 1}
    assert work.count(tmp_path, ["broken.py", "a.md"]) == {"files": 2, "lines": 3, "functions": 1, "todos": 2}


def test_what_is_not_source_is_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "large.txt").write_text("x" * (work.MAX_SIZE + 1))
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    assert work.find(tmp_path) == ["a.txt"]


def test_shares_hold_every_file_once_and_are_about_the_same_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [f"{n:03}" for n in range(200)]
    monkeypatch.setattr(work, "find", lambda _: files)
    shares = work.shares(tmp_path)
    assert len(shares) == work.SHARES
    assert sorted(file for share in shares for file in share) == files
    assert max(map(len, shares)) - min(map(len, shares)) == 1
