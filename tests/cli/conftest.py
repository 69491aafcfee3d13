"""The program as a process, with nothing of the tester's own settings."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import Any

import pytest

from tests.forked import Forked, forking
from tests.waiting import DEADLINE_S

INTERPRETER = ("LC_", "PYTHON")  # an interpreter reads these variables when it starts


class Program:
    """Runs ``python -m coordinator``, or another program of the package, in a folder of the test's own."""

    module = "coordinator"
    constants: Mapping[str, float] = MappingProxyType({})

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

    def install(self) -> None:
        """Put the program into the PATH, for what runs it as a command."""
        command = self.folder / "bin" / "coordinator"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.join(forking("coordinator", self.constants))} "$@"\n', "utf-8")
        command.chmod(0o755)
        self.environment["PATH"] = f"{command.parent}:{self.environment['PATH']}"

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-m", self.module, *arguments]

    def run(self, *arguments: str | bytes, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; as a process of its own only if the interpreter itself reads the environment."""
        names = {"cwd": self.folder, "env": {**self.environment, **environment}}
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as error:
            given.write(stdin)
            given.seek(0)
            files = {"stdin": given, "stdout": out, "stderr": error}
            if any(name.startswith(INTERPRETER) for name in environment):
                process: subprocess.Popen[Any] = subprocess.Popen(self.command(*arguments), **names, **files)
            else:
                process = Forked(self.module, *arguments, constants=self.constants, **names, **files)
            code = process.wait(DEADLINE_S)
            out.seek(0)
            error.seek(0)
            return subprocess.CompletedProcess(arguments, code, out.read().decode(), error.read().decode())

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return Forked(
            self.module,
            *arguments,
            constants=self.constants,
            cwd=self.folder,
            **{"env": self.environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def json(self, *arguments: str, stdin: bytes = b"") -> Any:
        """Run what must succeed, and return what it printed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)

    def text(self, *arguments: str) -> str:
        done = self.run(*arguments, "--output", "text")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, code: int, *arguments: str | bytes, stdin: bytes = b"", **environment: str) -> dict[str, Any]:
        """Run what must fail in this way, and return the error."""
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
