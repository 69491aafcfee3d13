from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.errors import ConfigurationError
from coordinator.hooks.shell import DEFAULTS, FILE, locks_of, rules_of

WORKTREE, BUILD, MIGRATIONS = ["name:worktree"], ["name:build"], ["name:migrations"]


@pytest.mark.parametrize(
    ("command", "locks"),
    [
        ("git checkout main", WORKTREE),
        ("cd src && git -C .. --no-pager reset --hard", WORKTREE),
        ("/usr/bin/git stash", WORKTREE),
        ("FOO=1 sudo -u ada git clean -fd; echo done", WORKTREE),
        ("if true; then git merge x; fi", WORKTREE),
        ("echo $(git rebase main)", WORKTREE),
        ("echo `git pull`", WORKTREE),
        ("true\ngit switch x", WORKTREE),
        ("git \\\n  restore a.py", WORKTREE),
        ("make", BUILD),
        ("make -j4 all | tail", BUILD),
        ("./gradlew assemble", BUILD),
        ("npm run build && git checkout .", [*BUILD, *WORKTREE]),
        ("python3 manage.py migrate", MIGRATIONS),
        ("npx --yes prisma migrate deploy", MIGRATIONS),
        ("uv run --with x alembic upgrade head", MIGRATIONS),
        ("bundle exec rails db:migrate", MIGRATIONS),
        ("python3 -m alembic upgrade head", MIGRATIONS),
        ("timeout -k 5 60s make test", BUILD),
        ("time -p nice -n 5 /usr/bin/env -u A B=1 make", BUILD),
        ("npm run build:prod", BUILD),
        ("git rm a.py", WORKTREE),
        ("git apply a.patch", WORKTREE),
        ("git apply --check a.patch", []),
        ("ls | xargs -n 1 git checkout --", WORKTREE),
        ("bash -lc 'git reset --hard'", WORKTREE),
        ("sh -ec \"cd a && bash -c 'git clean -fd'\"", WORKTREE),
        ("eval 'git stash'", WORKTREE),
        ("bash -c", []),
        ("bash --rcfile -c git", []),
        ("python3 -m", []),
        ("timeout", []),
        ("uv run", []),
        ("git status", []),
        ("git stash list", []),
        ("git log --grep 'git checkout'", []),
        ("echo 'git reset --hard'", []),
        ("make -n", []),
        ("ls; cat Makefile", []),
        ("echo 'an open quote\ngit clean -f'", WORKTREE),  # it is not a shell: what cannot be told apart counts
        ("true;(git checkout x)", WORKTREE),
        ("cd a&&(make)", BUILD),
        ("find . -exec grep x {} \\; -name make", []),
        ("echo a\\;make 2>&1", []),
        ("git status 2>&1 | cat>make", []),
        ("'git' \"checkout\" x", WORKTREE),
        ("sudo " * 20 + "git stash", WORKTREE),
        ("git " + "-c a=b " * 20 + "stash", WORKTREE),
        ("git -", []),
        ("", []),
        ("git", []),
        ("\0", []),
        ("&&&& ;; |", []),
    ],
)
def test_commands_need_the_locks_of_the_first_rule_that_fits(command: str, locks: list[str]) -> None:
    assert locks_of(command, DEFAULTS) == locks


@pytest.mark.parametrize(
    "rest",
    [
        "a",
        "a ",
        "git -",
        "git - ",
        "sudo ",
        "A=1 ",
        "env -x ",
        "'",
        "'a' ",
        '"',
        "\\",
        "ls\n",
        "ls;",
        "(",
        "$(",
        "`",
        "> ",
    ],
)
def test_a_long_command_is_looked_at_up_to_a_limit(rest: str) -> None:
    assert locks_of("git checkout x\n" + rest * (10_000_000 // len(rest)), DEFAULTS) == WORKTREE


def test_rules_of_the_repository_come_first(tmp_path: Path) -> None:
    assert rules_of(None) == rules_of(str(tmp_path)) == DEFAULTS
    text = 'shell:\n- {command: "make docs"}\n- {command: "* deploy", locks: ["name:deploy", "src/"]}\n- {command: lint, locks: "name:lint"}\n'
    (tmp_path / FILE).write_text(text, "utf-8")
    rules = rules_of(str(tmp_path))
    assert locks_of("make docs", rules) == []
    assert locks_of("make deploy", rules) == ["name:deploy", "src/"]
    assert locks_of("lint", rules) == ["name:lint"]
    assert locks_of("make all", rules) == BUILD


@pytest.mark.parametrize(
    "text",
    [
        "shell: x",
        "shell: [x]",
        "shell: [{locks: [a]}]",
        "shell: [{command: ''}]",
        "shell: [{command: a, lock: b}]",
        "shell: [{command: a, locks: [1]}]",
        "{",
    ],
)
def test_malformed_rules_are_refused_with_a_hint(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as raised:
        rules_of(str(tmp_path))
    assert raised.value.hint
