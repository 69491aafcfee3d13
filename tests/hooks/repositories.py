"""Real repositories of git for the tests of hooks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.waiting import DEADLINE_S

__all__ = ["ENVIRONMENT", "git", "layout"]

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "COORDINATOR_"))},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@localhost",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@localhost",
}


def run_git(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=DEADLINE_S,
        check=False,
    )


def git(folder: Path, *arguments: str, **environment: str) -> str:
    done = run_git(folder, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def layout(base: Path) -> Path:
    """Make a repository with work trees within and beside it, a submodule, a nested repository, and a bare one with work trees."""
    library, main = base / "library", base / "main"
    for folder in (library, main):
        git(base, "init", "--quiet", "--initial-branch=main", str(folder))
        (folder / "src").mkdir()
        (folder / "src" / "a.py").write_text("a", "ascii")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "-m", "begin")
    git(main, "submodule", "--quiet", "add", str(library), "vendor/library")
    git(main, "commit", "--quiet", "-m", "library")
    git(main, "worktree", "add", "--quiet", "--no-checkout", str(main / ".agents" / "inner"))
    git(main, "worktree", "add", "--quiet", str(base / "beside"))
    git(base / "beside", "submodule", "--quiet", "update", "--init")
    git(base, "clone", "--quiet", "--bare", str(main), str(base / "plain.git"))
    git(base / "plain.git", "worktree", "add", "--quiet", "--no-checkout", str(base / "of-bare"))
    git(
        base,
        "clone",
        "--quiet",
        "--no-checkout",
        f"--separate-git-dir={base / 'apart.git'}",
        str(main),
        str(base / "apart"),
    )
    git(main / "src", "init", "--quiet", "nested")
    (main / "src" / "nested" / "b.py").write_text("b", "ascii")
    (main / "src" / "deep" / "er").mkdir(parents=True)
    (main / "out").symlink_to(base)
    (main / "to-src").symlink_to("src", target_is_directory=True)
    (main / "to-beside").symlink_to(base / "beside", target_is_directory=True)
    (base / "elsewhere").mkdir()
    (base / "into").symlink_to(main / "src", target_is_directory=True)
    return main
