"""Hooks of git in real repositories, with the real program and a real database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from coordinator.hooks.git_hooks import BEFORE, HOOKS
from coordinator.hooks.place import locate
from tests.cli.conftest import Program, program
from tests.hooks.repositories import ENVIRONMENT, git
from tests.waiting import DEADLINE_S

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("git") is None, reason="needs git")]

__all__ = ["program"]


class Repository:
    """A repository with our hooks, in a project of its own."""

    def __init__(self, program: Program, folder: Path) -> None:
        program.constants = {"coordinator.cli.git_hook.TIMEOUT_S": DEADLINE_S}
        program.install()
        self.program = program
        self.tree = folder / "tree"
        git(folder, "init", "--quiet", "--initial-branch=main", str(self.tree))
        self.write("README", "begin")
        git(self.tree, "add", "--all")
        git(self.tree, "commit", "--quiet", "-m", "begin")
        self.project = locate(str(self.tree), {}).project
        self.environment = {**ENVIRONMENT, **program.environment}
        program.text("project", "create", self.project)

    def run(self, *arguments: str, tree: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments,
            cwd=tree or self.tree,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def git(self, *arguments: str, tree: Path | None = None, **environment: str) -> str:
        done = self.run("git", *arguments, tree=tree, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str, tree: Path | None = None, **environment: str) -> str:
        done = self.run("git", *arguments, tree=tree, **environment)
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr

    def install(self, *arguments: str) -> None:
        done = self.run("coordinator", "hook", "git", "install", *arguments)
        assert done.returncode == 0, done.stderr

    def write(self, name: str, text: str, tree: Path | None = None) -> None:
        path = (tree or self.tree) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def holds(self, agent: str, *paths: str) -> None:
        found = self.program.json("file", "edit", agent, *paths, "--ttl", "1h", "--project", self.project)
        assert [one["state"] for one in found] == ["granted"] * len(paths)

    def held(self) -> list[str]:
        return [lock["resource"] for lock in self.program.json("lock", "list", "--project", self.project)]

    def commits(self, of: str = "HEAD") -> int:
        return len(self.git("log", "--format=%h", of).split())


@pytest.fixture
def repository(program: Program, tmp_path: Path) -> Repository:
    return Repository(program, tmp_path.resolve())


def test_a_commit_of_what_another_session_holds_is_refused_and_its_own_is_released(repository: Repository) -> None:
    repository.install()
    repository.holds("session-a", "src/a.py", "src/b.py")
    repository.holds("session-b", "src/c.py")
    for name in "abc":
        repository.write(f"src/{name}.py", name)
    repository.git("add", "--all")
    error = repository.refused("commit", "-m", "all", COORDINATOR_AGENT_ID="session-a")
    assert '"src/c.py": agent "session-b" until ' in error
    assert "src/a.py" not in error
    assert "To commit anyway: git commit --no-verify" in error
    assert f"coordinator --project {repository.project} directive send" in error
    repository.git("restore", "--staged", "src/c.py")
    repository.write("src/b.py", "edited again")  # not committed, so still being edited
    repository.git("commit", "-m", "mine", COORDINATOR_AGENT_ID="session-a")
    assert repository.held() == ["src/b.py", "src/c.py"]
    repository.git("add", "--all")
    assert "session-a" in repository.refused("commit", "-m", "of nobody")
    repository.git("commit", "--no-verify", "-m", "by force")
    assert repository.held() == ["src/b.py", "src/c.py"]


def test_the_session_whose_command_runs_in_the_work_tree_is_the_one_that_commits(repository: Repository) -> None:
    repository.install()
    repository.holds("session-a", "a.py", "name:worktree")
    repository.write("a.py", "a")
    repository.git("add", "--all")
    repository.git("commit", "-m", "mine")
    assert repository.held() == ["name:worktree"]
    repository.git("config", "coordinator.agent", "session-b")
    repository.holds("session-b", "b.py")
    repository.write("b.py", "b")
    repository.git("add", "--all")
    repository.git("commit", "-m", "mine")
    assert repository.held() == ["name:worktree"]


def test_a_linked_work_tree_is_a_scope_of_its_own(repository: Repository) -> None:
    repository.install()
    beside = repository.tree.parent / "beside"
    repository.git("worktree", "add", "--quiet", str(beside))
    repository.holds("session-a", "a.py")
    repository.holds("session-b", ".git/worktrees/beside/b.py")
    for name in ("a.py", "b.py"):
        repository.write(name, "x", beside)
    repository.git("add", "a.py", tree=beside)
    repository.git("commit", "-m", "a", tree=beside)
    repository.git("add", "b.py", tree=beside)
    assert '"b.py": agent "session-b"' in repository.refused("commit", "-m", "b", tree=beside)
    repository.git("config", "coordinator.worktrees", "shared")
    repository.write("a.py", "y", beside)
    assert '"a.py": agent "session-a"' in repository.refused("commit", "-m", "a", "a.py", tree=beside)


def test_a_merge_of_what_another_session_holds_is_refused(repository: Repository) -> None:
    repository.install()
    repository.git("switch", "--quiet", "--create", "feature")
    repository.write("src/a.py", "a")
    repository.git("add", "--all")
    repository.git("commit", "-m", "a")
    repository.git("switch", "--quiet", "main")
    repository.holds("session-a", "src/")
    error = repository.refused("merge", "--no-ff", "--no-edit", "feature")
    assert "this merge changes files" in error
    assert "git merge --abort" in error
    command = error.partition("To merge anyway: git ")[2].split("\n")[0].split()
    repository.git(*command, "--no-edit")
    assert repository.git("rev-list", "--merges", "--count", "HEAD").strip() == "1"


def test_a_push_of_what_was_committed_under_anothers_lease_is_refused(repository: Repository) -> None:
    repository.install()
    remote = repository.tree.parent / "remote.git"
    repository.git("init", "--quiet", "--bare", str(remote))
    repository.git("config", "coordinator.project", repository.project)  # the remote would give another
    repository.git("remote", "add", "origin", str(remote))
    repository.git("push", "--quiet", "origin", "main")
    repository.write("old.py", "x")
    repository.git("add", "--all")
    repository.git("commit", "-m", "before the lease", GIT_COMMITTER_DATE="2020-01-01T00:00:00Z")
    repository.holds("session-a", "old.py", "new.py")
    repository.git("push", "--quiet", "origin", "main")
    repository.git("push", "--quiet", "origin", "main:other")
    repository.write("new.py", "x")
    repository.git("add", "--all")
    repository.git("commit", "--no-verify", "-m", "under the lease", GIT_COMMITTER_DATE="2099-01-01T00:00:00Z")
    error = repository.refused("push", "origin", "main")
    assert '"new.py": agent "session-a"' in error
    assert "old.py" not in error
    assert '"new.py"' in repository.refused("push", "origin", "main:new-branch")
    repository.git("push", "--quiet", "origin", ":other")
    repository.git("push", "--quiet", "origin", "main", COORDINATOR_AGENT_ID="session-a")


def test_an_existing_hook_is_kept_runs_first_and_is_restored(repository: Repository) -> None:
    folder = repository.tree / ".git" / "hooks"
    content = (
        '#!/bin/sh\necho "first: $*" >> ran\nwhile read -r line; do echo "$line" >> ran; done\nexit "${FAIL:-0}"\n'
    )
    for hook in ("pre-commit", "pre-push"):
        (folder / hook).write_text(content, "ascii")
        (folder / hook).chmod(0o755)
    repository.install()
    repository.install()  # twice changes nothing
    assert (folder / f"pre-commit{BEFORE}").read_text("ascii") == content
    status = json.loads(repository.run("coordinator", "hook", "git", "status").stdout)
    assert {one["hook"]: one["state"] for one in status} == dict.fromkeys(HOOKS, "installed")
    assert [one["hook"] for one in status if one["before"]] == ["pre-commit", "pre-push"]
    repository.write("a.py", "a")
    repository.git("add", "a.py")
    assert repository.run("git", "commit", "-m", "no", FAIL="3").returncode != 0
    repository.holds("session-a", "a.py")
    repository.refused("commit", "-m", "held")
    repository.git("commit", "-m", "mine", COORDINATOR_AGENT_ID="session-a")
    remote = repository.tree.parent / "remote.git"
    repository.git("init", "--quiet", "--bare", str(remote))
    repository.git("push", "--quiet", str(remote), "main")
    ran = (repository.tree / "ran").read_text("ascii")
    assert ran.count("first: \n") == 3
    assert f"first: {remote} {remote}\nrefs/heads/main " in ran
    done = repository.run("coordinator", "hook", "git", "uninstall")
    assert done.returncode == 0, done.stderr
    assert (folder / "pre-commit").read_text("ascii") == content
    assert {path.name for path in folder.iterdir() if not path.name.endswith(".sample")} == {"pre-commit", "pre-push"}


def test_a_hook_that_would_be_lost_stops_the_installation(repository: Repository) -> None:
    repository.install()
    hook = repository.tree / ".git" / "hooks" / "pre-commit"
    Path(f"{hook}{BEFORE}").write_text("first", "ascii")
    hook.write_text("second", "ascii")
    done = repository.run("coordinator", "hook", "git", "install")
    assert done.returncode == 5
    assert "exists already" in done.stderr
    assert (hook.read_text("ascii"), Path(f"{hook}{BEFORE}").read_text("ascii")) == ("second", "first")


def test_the_directory_of_hooks_is_the_one_that_git_uses(repository: Repository, tmp_path: Path) -> None:
    repository.git("config", "core.hooksPath", ".hooks")
    repository.install()
    assert {path.name for path in (repository.tree / ".hooks").iterdir()} == set(HOOKS)
    repository.git("config", "--unset", "core.hooksPath")
    everywhere = tmp_path / "gitconfig"
    everywhere.write_text(f"[core]\n\thooksPath = {tmp_path / 'all'}\n", "ascii")
    done = repository.run("coordinator", "hook", "git", "install", GIT_CONFIG_GLOBAL=str(everywhere))
    assert done.returncode == 5
    assert "all repositories" in done.stderr
    assert not (tmp_path / "all").exists()


def test_without_a_coordinator_a_commit_passes_with_a_line_unless_that_is_denied(repository: Repository) -> None:
    repository.install()
    away = {"COORDINATOR_DATABASE_URL": "postgresql://127.0.0.1:1/none", "DATABASE_URL": ""}
    repository.write("a.py", "a")
    repository.git("add", "--all")
    done = repository.run("git", "commit", "-m", "one", **away)
    assert done.returncode == 0, done.stderr
    assert "nothing was checked" in done.stderr
    repository.git("config", "coordinator.unreachable", "deny")
    repository.write("a.py", "b")
    assert "coordinator.unreachable is deny" in repository.refused("commit", "-m", "two", "a.py", **away)
    repository.git("config", "coordinator.unreachable", "denny")
    assert 'unreachable "denny" is neither allow nor deny. Did you mean deny?' in repository.refused(
        "commit", "-m", "two", "a.py", **away
    )
    repository.git("config", "--unset", "coordinator.unreachable")
    bare = {
        "PATH": os.pathsep.join(
            p for p in repository.environment["PATH"].split(os.pathsep) if not Path(p, "coordinator").exists()
        )
    }
    done = repository.run("git", "commit", "-m", "three", "a.py", **bare)
    assert done.returncode == 0, done.stderr
    assert "the program is missing" in done.stderr


def test_names_that_git_quotes_are_checked(repository: Repository) -> None:
    repository.install()
    names = ["a b.py", "ä.py", 'q"x.py', "line\nend.py", "app/[id].py"]
    repository.holds("session-a", "a b.py", "ä.py", 'q"x.py', "path:app/[id].py")
    for name in names:
        repository.write(name, "x")
    repository.git("add", "--all")
    error = repository.refused("commit", "-m", "all")
    assert all(f'"{shown}"' in error for shown in ("a b.py", "ä.py", "q'x.py", "app/[id].py", "line end.py"))
    # A name that is gone counts as well: of a file that was renamed or deleted.
    repository.git("commit", "--quiet", "--no-verify", "-m", "all")
    repository.git("mv", "a b.py", "moved.py")
    repository.git("rm", "--quiet", "ä.py")
    error = repository.refused("commit", "-m", "moved")
    assert all(f'"{shown}"' in error for shown in ("a b.py", "ä.py"))


def test_what_a_session_holds_until_its_commit_is_released_by_it(repository: Repository) -> None:
    """What a subagent has edited is the session's, which commits it. Locks of a command do not wait for a commit."""
    repository.install()
    repository.write("coordinator.yaml", "shell: [{command: deploy, locks: [name:deploy, infra/]}]")
    repository.git("add", "--all")
    repository.git("commit", "-m", "rules")

    def call(event: str, **fields: object) -> None:
        payload = {
            "session_id": "s1",
            "transcript_path": "/t",
            "cwd": str(repository.tree),
            "hook_event_name": event,
            **fields,
        }
        options = ("--hold", "until-commit", "--limit", "60s", "--wait", "0s")
        done = repository.program.run("hook", "run", *options, stdin=json.dumps(payload).encode())
        assert (done.returncode, done.stdout) == (0, ""), done

    file = str(repository.tree / "src" / "a.py")
    edit: dict[str, object] = {
        "tool_name": "Edit",
        "tool_input": {"file_path": file, "old_string": "a", "new_string": "b"},
    }
    call("PreToolUse", agent_id="x", **edit)
    repository.write("src/a.py", "b")
    call("PreToolUse", agent_id="x", tool_name="Bash", tool_input={"command": "git add src && deploy"})
    call("SubagentStop", agent_id="x")  # the command was interrupted
    assert repository.held() == ["src/a.py"]
    call("PreToolUse", agent_id="y", **edit)
    call("SubagentStop", agent_id="y")
    call("PreToolUse", **edit)
    call("Stop")
    assert repository.held() == ["src/a.py"]
    repository.git("add", "--all")
    assert "claude-code-s1" in repository.refused("commit", "-m", "of somebody else")
    call("PreToolUse", tool_name="Bash", tool_input={"command": "git commit -m mine"})
    repository.git("commit", "-m", "mine")
    assert repository.held() == ["name:worktree"]
