"""The program, its directory of backups, and its programs of PostgreSQL, which a test can pause."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from coordinator.embedded import binaries
from tests.backup import distribution
from tests.cli.conftest import Program
from tests.conftest import admin, with_database
from tests.waiting import until


class Backups(Program):
    """The program with a directory of backups."""

    @property
    def folder_of_backups(self) -> Path:
        return self.folder / "backups"

    def backup(self, *arguments: str, url: str | None = None) -> Any:
        """Run a verb of ``backup`` that must succeed; return its result."""
        done = self.run("backup", *arguments, *(("--url", url) if url else ()))
        assert done.returncode == 0, done.stderr
        notices = [json.loads(line) for line in done.stderr.splitlines()]
        assert all("notice" in each for each in notices), done.stderr
        return json.loads(done.stdout)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; what it says is in the file ``said``."""
        with (self.folder / "said").open("ab") as said:
            return self.start(*arguments, stdout=said, stderr=said)

    def refused(self, code: int, *arguments: str, **environment: str) -> dict[str, Any]:
        """Run a verb that must fail in this way, perhaps after some progress; return the error."""
        done = self.run("backup", *arguments, **environment)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
        assert error["message"]
        assert error["hint"]
        return error


@pytest.fixture
def backups(tmp_path: Path, database_url: str) -> Backups:
    folder = tmp_path / "backups"
    return Backups(tmp_path, {"COORDINATOR_DATABASE_URL": database_url, "COORDINATOR_BACKUP_DIR": str(folder)})


@pytest.fixture
async def fresh(server_url: str) -> AsyncIterator[str]:
    """A database without the schema."""
    name = f"fresh_{uuid4().hex[:8]}"
    await admin(server_url, f"create database {name}")
    yield with_database(server_url, name)
    await admin(server_url, f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def bin_dir() -> Path:
    """The PostgreSQL of the distribution."""
    return distribution.postgres()


class Paused:
    """pg_dump and pg_restore in a folder of their own: the one with this word among its arguments is paused, and the test continues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._note = folder / "stopped"
        real = next(binaries.folders("pg_dump", "pg_restore"))
        folder.mkdir()
        for name in ("pg_dump", "pg_restore"):
            script = (
                "#!/bin/sh\n"
                'if [ -e "$0.word" ]; then word=$(cat "$0.word"); case "$*" in *"$word"*)\n'
                f'  rm "$0.word"; echo $$ > "{self._note}.new"; mv "{self._note}.new" "{self._note}"\n'
                f'  while [ ! -e "{folder}/go" ]; do sleep 0.05; done ;; esac; fi\n'
                f'exec "{real / name}" "$@"\n'
            )
            (folder / name).write_text(script, "utf-8")
            (folder / name).chmod(0o755)

    def stop_at(self, name: str, word: str) -> None:
        (self.folder / f"{name}.word").write_text(word, "utf-8")

    async def stopped(self) -> int:
        """Wait until it has stopped; return its process."""
        await until(self._note.exists, "the program has come there")
        return int(self._note.read_text("utf-8"))

    def go(self) -> None:
        (self.folder / "go").touch()

    def end(self) -> None:
        """End a paused process."""
        if self._note.exists():
            with suppress(ProcessLookupError):
                os.killpg(int(self._note.read_text("utf-8")), signal.SIGKILL)
        shutil.rmtree(self.folder)


@pytest.fixture
def paused(tmp_path: Path, backups: Backups) -> Iterator[Paused]:
    made = Paused(tmp_path / "programs")
    backups.environment["COORDINATOR_PG_BIN_DIR"] = str(made.folder)
    yield made
    made.end()
