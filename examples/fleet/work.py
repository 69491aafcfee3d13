"""The files of a source tree, the work on them (counting), and the names that the processes share."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Share", "count", "find", "result_of", "shares"]

CODERS = 4
SHARES = 16
PACE_S = 1.0  # per share, so that a person can follow
RETRY_S = 0.5
RETRIES: dict[str, Any] = {"max_attempts": 20, "backoff": 1}  # for a job whose attempt was interrupted

PLAN = "plan"  # the session of the conversation and of the results
REPORT = "report.json"
PASSED = "/QA_PASSED"
DONE = "plan/DONE"
HALF_DONE = "custom.share_half_done"

MAX_FILES = 1000
MAX_SIZE = 512 * 1024  # bytes
SKIPPED = {"__pycache__", "node_modules", "venv", "build", "dist", "target"}
FUNCTION = re.compile(r"^\s*(?:async )?def \w", re.MULTILINE)
TODO = re.compile(r"\b(?:TODO|FIXME|XXX)\b")


class Share(msgspec.Struct):
    """The payload of a job: some of the files, and QA's comment on an earlier result."""

    number: int = msgspec.field(name="share")
    files: list[str]
    feedback: str | None = None


def result_of(share: int) -> str:
    """Return the name of the artifact with a result, which is also the name of its lock."""
    return f"counts/{share}.json"


def shares(root: Path) -> list[list[str]]:
    """Divide the files into shares."""
    files = find(root)
    return [files[number::SHARES] for number in range(SHARES)]


def find(root: Path) -> list[str]:
    """List the text files below a folder, at most `MAX_FILES`, without hidden, linked and large files."""
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
        for path in (Path(folder, name) for name in sorted(names) if not name.startswith(".")):
            small = path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_SIZE
            if small and b"\0" not in path.read_bytes():
                found.append(path.relative_to(root).as_posix())
    return found[:MAX_FILES]


def count(root: Path, paths: Iterable[str]) -> dict[str, int]:
    """Count the contents of some files; every caller gets the same result."""
    total: Counter[str] = Counter()
    for path in paths:
        text = (root / path).read_text("utf-8", "replace")
        total.update(
            files=1,
            lines=text.count("\n"),
            functions=len(FUNCTION.findall(text)) if path.endswith(".py") else 0,
            todos=len(TODO.findall(text)),
        )
    return dict(total)
