"""The example hook in a real repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S

HOOK = Path(__file__).parents[2] / "examples" / "pre-commit"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("git") is None, reason="needs git")]


class Repository:
    def __init__(self, program: Program, folder: Path) -> None:
        self.folder = folder
        program.install()
        self.environment = {
            **program.environment,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        self.tree = folder / "tree"
        self.git("init", "--quiet", str(self.tree), folder=folder)
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@localhost")
        shutil.copy(HOOK, self.tree / ".git" / "hooks" / "pre-commit")

    def run(self, *arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder or self.tree,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        done = self.run(*arguments, folder=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, name: str) -> None:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", "ascii")
        self.git("add", "--all")

    def commits(self) -> int:
        return len(self.run("log", "--format=%h").stdout.split())


@pytest.fixture
def repository(program: Program, tmp_path: Path) -> Repository:
    return Repository(program, tmp_path)


def lock(program: Program, resource: str, name: str = "coder") -> str:
    agent = program.text("agent", "register", name, "--ttl", "1h").strip()
    program.json("lock", "acquire", resource, "--agent", agent, "--ttl", "1h")
    return agent


def test_a_commit_of_unlocked_files_passes(program: Program, repository: Repository) -> None:
    lock(program, "src/")
    repository.write("docs/a.md")
    repository.git("commit", "-m", "free")
    assert repository.commits() == 1


def test_a_commit_of_files_that_another_agent_locked_is_rejected_with_a_hint(
    program: Program, repository: Repository
) -> None:
    agent = lock(program, "src/")
    repository.write("src/a b.py")
    done = repository.run("commit", "-m", "locked")
    assert done.returncode == 1
    assert 'locked by agent "coder"' in done.stderr
    assert 'directive send "please release src/" --to-agent coder' in done.stderr
    assert "git commit --no-verify" in done.stderr
    assert repository.commits() == 0
    # The holder itself may, under a name that git knows or as the agent of the process.
    assert repository.run("commit", "-m", "mine", COORDINATOR_AGENT_ID=agent).returncode == 0
    repository.write("src/other.py")
    repository.git("config", "coordinator.agent", "coder")
    repository.git("commit", "-m", "mine")
    repository.git("config", "coordinator.agent", "tester")
    repository.write("src/third.py")
    assert repository.run("commit", "-m", "not mine").returncode == 1
    repository.git("commit", "--no-verify", "-m", "over it")
    assert repository.commits() == 3


def test_renamed_and_deleted_files_are_checked_too(program: Program, repository: Repository) -> None:
    for name in ("src/a.py", "b.py"):
        repository.write(name)
    repository.git("commit", "-m", "first")
    lock(program, "src/a.py")
    repository.git("mv", "src/a.py", "moved.py")
    assert repository.run("commit", "-m", "moved").returncode == 1
    repository.git("reset", "--hard", "--quiet")
    repository.git("rm", "--quiet", "src/a.py")
    assert repository.run("commit", "-m", "deleted").returncode == 1


@pytest.mark.parametrize("name", ["-n.py", "app/[id]/*.tsx", "name:x", "übung.py"])
def test_unusual_names_are_literal(program: Program, repository: Repository, name: str) -> None:
    repository.write(name)
    repository.git("commit", "-m", "free")
    lock(program, f"path:{name}")
    (repository.tree / name).write_text("changed", "ascii")
    repository.git("add", "--all")
    assert repository.run("commit", "-m", "locked").returncode == 1


@pytest.mark.parametrize("name", ["src/a\nb.py", "src/tab\t/b", "src/ "])
def test_a_name_that_cannot_be_locked_counts_as_its_directory(
    program: Program, repository: Repository, name: str
) -> None:
    lock(program, "docs/")
    repository.write(name)
    repository.git("commit", "-m", "free")
    lock(program, "src/**/*.py", "tester")
    (repository.tree / name).write_text("changed", "ascii")
    repository.git("add", "--all")
    assert repository.run("commit", "-m", "locked").returncode == 1


def test_a_commit_fails_when_the_check_gets_no_response(repository: Repository) -> None:
    repository.write("a\nb.py")
    done = repository.run("commit", "-m", "x", COORDINATOR_DATABASE_URL="postgresql:///x?host=/nowhere")
    assert done.returncode == 1
    assert "could not be checked (exit code 7)" in done.stderr
    assert "--no-verify" in done.stderr
    (repository.folder / "bin" / "coordinator").unlink()
    done = repository.run("commit", "-m", "x", PATH="/usr/bin:/bin")
    assert done.returncode == 1
    assert "was not found" in done.stderr
    assert repository.commits() == 0
