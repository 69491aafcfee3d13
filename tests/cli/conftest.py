"""The program as a process, with nothing of the tester's own settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import DEADLINE_S


class Program:
    """Runs ``python -m coordinator`` in a folder of the test's own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "LANG", "TMPDIR", "COVERAGE_PROCESS_CONFIG")
        }
        self.environment = {
            **kept,
            "HOME": str(folder),
            "COORDINATOR_DATA_DIR": str(folder / "data"),
            "PYTHONWARNINGS": "error",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **environment,
        }

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-m", "coordinator", *arguments]

    def run(self, *arguments: str | bytes, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            check=False,
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env={**self.environment, **environment},
            timeout=DEADLINE_S,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def json(self, *arguments: str, stdin: bytes = b"") -> Any:
        """Run what must succeed; answer with what it printed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)

    def text(self, *arguments: str) -> str:
        done = self.run(*arguments, "--output", "text")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, code: int, *arguments: str | bytes, stdin: bytes = b"", **environment: str) -> dict[str, Any]:
        """Run what must fail in this way; answer with the error."""
        done = self.run(*arguments, stdin=stdin, **environment)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        error: dict[str, Any] = json.loads(lines[0])["error"]
        assert error["message"]
        assert error["hint"]
        return error


@pytest.fixture
def program(tmp_path: Path, database_url: str) -> Program:
    """The program on a database of the test's own."""
    return Program(tmp_path, {"COORDINATOR_DATABASE_URL": database_url})


@pytest.fixture
def lone(tmp_path: Path) -> Program:
    """The program without a database."""
    return Program(tmp_path, {})
