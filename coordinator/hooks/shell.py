"""Which locks a shell command needs: the first rule that fits one of its simple commands.

A rule is a pattern of words, each of which may contain ``*``: ``git stash list`` fits commands that begin with these. Assignments and
programs that run another, such as ``sudo`` and ``env``, are passed over, and so are the options between ``git`` and its verb. What a
script does is not seen.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from coordinator.errors import ConfigurationError

__all__ = ["DEFAULTS", "FILE", "ShellRule", "locks_of", "rules_of"]

FILE = "coordinator.yaml"
MOST = 64 << 10  # characters of a command that are looked at
MOST_RULES = 200
AROUND = frozenset(
    {"sudo", "env", "time", "nohup", "command", "exec", "nice", "then", "do", "else", "if", "while", "!", "{"}
)
_ENDS = frozenset({";", "&", "&&", "|", "||", "|&", "(", ")", ";;", "\n"})
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_WITH_VALUE = frozenset({"-C", "-c", "--git-dir", "--work-tree", "--namespace", "-u", "-n"})


class ShellRule(msgspec.Struct, frozen=True):
    """Commands that begin with the words of ``pattern`` need ``locks``; none: they need nothing, whatever later rules say."""

    pattern: str
    locks: tuple[str, ...] = ()


def _each(locks: Sequence[str], *patterns: str) -> tuple[ShellRule, ...]:
    return tuple(ShellRule(pattern, tuple(locks)) for pattern in patterns)


DEFAULTS = (
    *_each((), "git stash list", "git stash show", "git bisect log", "make -n", "make --dry-run"),
    *_each(
        ("name:worktree",),
        *(
            f"git {verb}"
            for verb in (
                "am", "bisect", "checkout", "cherry-pick", "clean", "commit", "merge", "pull", "push", "rebase", "reset", "restore", "revert", "stash", "switch",
            )
        ),
    ),
    *_each(
        ("name:build",),
        "make", "ninja", "cmake --build", "cargo build", "go build", "bazel build", "mvn", "gradle", "*gradlew", "npm run build", "pnpm build",
        "pnpm run build", "yarn build",
    ),
    *_each(
        ("name:migrations",),
        "alembic upgrade", "alembic downgrade", "python* *manage.py migrate", "*manage.py migrate", "*rails db:migrate*", "*prisma migrate", "flyway migrate",
        "*knex migrate*", "*sequelize db:migrate*",
    ),
)  # fmt: skip


def locks_of(command: str, rules: Sequence[ShellRule]) -> list[str]:
    """Return the locks that a command needs, each once."""
    found: dict[str, None] = {}
    for words in _commands(command[:MOST]):
        for rule in rules:
            pattern = rule.pattern.split()
            if len(words) >= len(pattern) and all(map(fnmatchcase, words, pattern)):
                found |= dict.fromkeys(rule.locks)
                break
    return list(found)


def rules_of(root: str | None) -> tuple[ShellRule, ...]:
    """Return the rules of a work tree: those in its ``coordinator.yaml`` under ``shell``, then the defaults.

    Raises: ``ConfigurationError``.
    """
    path = None if root is None else Path(root) / FILE
    if path is None or not path.is_file():
        return DEFAULTS
    from coordinator.config.file import read  # noqa: PLC0415 - most have no file
    from coordinator.config.profile import parse  # noqa: PLC0415

    given = parse(path, read(path, FILE)).get("shell") or []
    if not isinstance(given, list) or len(given) > MOST_RULES:
        raise ConfigurationError(
            f"shell in {path} is not a list of at most {MOST_RULES} rules",
            hint='Write shell: [{command: "make deploy", locks: ["name:deploy"]}].',
        )
    return (*(_rule(entry, path) for entry in given), *DEFAULTS)


def _rule(entry: Any, path: os.PathLike[str]) -> ShellRule:
    if isinstance(entry, Mapping) and {*entry} <= {"command", "locks"}:
        command, locks = entry.get("command"), entry.get("locks") or []
        locks = [locks] if isinstance(locks, str) else locks
        if (
            isinstance(command, str)
            and command.split()
            and isinstance(locks, list)
            and all(isinstance(one, str) for one in locks)
        ):
            return ShellRule(command, tuple(locks))
    raise ConfigurationError(
        f"a rule of shell in {path} is malformed",
        hint='Write {command: "make deploy", locks: ["name:deploy"]}; without locks, the command needs none.',
    )


def _commands(command: str) -> Iterator[list[str]]:
    """Yield the words of each simple command."""
    words: list[str] = []
    for token in [*_tokens(command.replace("$(", "(").replace("`", "\n")), "\n"]:
        if token not in _ENDS:
            words.append(token)
            continue
        if found := _plain(words):
            yield found
        words = []


def _tokens(command: str) -> Iterator[str]:
    for line in command.replace("\\\n", " ").split("\n"):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        try:
            yield from list(lexer)
        except ValueError:  # a quote that ends on another line
            yield from re.findall(r"[;&|()]+|[^\s;&|()'\"]+", line)
        yield "\n"


def _plain(words: list[str]) -> list[str]:
    """Return a simple command without what stands around it, nor the options before the verb of git."""
    while words and (words[0] in AROUND or _ASSIGNMENT.match(words[0])):
        inside = words[0] in ("sudo", "env", "nice")
        words = words[1:]
        while inside and words and words[0].startswith("-"):
            words = words[2 if words[0] in _WITH_VALUE else 1 :]
    if not words:
        return []
    program, rest = words[0].rpartition("/")[2] or words[0], words[1:]
    while program == "git" and rest and rest[0].startswith("-"):
        rest = rest[2 if rest[0] in _WITH_VALUE else 1 :]
    return [program, *rest]
