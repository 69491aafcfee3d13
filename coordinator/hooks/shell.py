"""Which locks a shell command needs: determined by the first rule that matches one of its simple commands.

A rule is a pattern of words, each of which may contain ``*``: ``git stash list`` matches commands that begin with these
words. Assignments and programs that run another program, such as ``sudo``, ``timeout 60`` and ``npx``, are skipped, and
so are the options between ``git`` and its verb. The text of ``bash -c`` is a command as well. The contents of scripts
are not examined.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec

from coordinator.errors import ConfigurationError

__all__ = ["DEFAULTS", "FILE", "ShellRule", "locks_of", "rules_of"]

FILE = "coordinator.yaml"
MOST = 64 << 10  # characters of a command that are examined
MOST_COMMANDS = 5000  # simple commands in it
MOST_WORDS = 50  # words per simple command
MOST_RULES = 200
# What may precede a command: words of the shell, and programs that run it, with their options that take a value.
AROUND: dict[str, frozenset[str]] = {
    **dict.fromkeys(("!", "{", "do", "elif", "else", "if", "then", "until", "while"), frozenset()),
    **dict.fromkeys(("bunx", "command", "nohup", "setsid"), frozenset()),
    **dict.fromkeys(("bundle exec", "hatch run", "npm exec", "pdm run", "pipenv run", "pnpm dlx", "pnpm exec", "poetry run", "yarn dlx"), frozenset()),
    "doas": frozenset({"-u"}),
    "env": frozenset({"-u", "-C"}),
    "exec": frozenset({"-a"}),
    "ionice": frozenset({"-c", "-n"}),
    "nice": frozenset({"-n"}),
    "npx": frozenset({"-p", "--package"}),
    "stdbuf": frozenset({"-i", "-o", "-e"}),
    "sudo": frozenset({"-u", "-g", "-h", "-p", "-D"}),
    "time": frozenset({"-f", "-o"}),
    "timeout": frozenset({"-k", "-s"}),
    "uv run": frozenset({"-p", "--python", "--with", "--extra", "--group", "--project", "--directory", "--env-file"}),
    "xargs": frozenset({"-n", "-I", "-P", "-L", "-d"}),
}  # fmt: skip
SHELLS = frozenset({"bash", "dash", "ksh", "sh", "zsh"})
DEEP = 3  # nested shells
# A word, a redirection, or the end of a command. Each position is examined once or twice, so the time is linear.
_WORD = r"""((?:[^\s;&|()<>'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+)|&>+|[<>]+[&|]?|([;&|()]+)|(['"\\])"""
_QUOTED = r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)"""
_OPEN = r"[;&|()]+|[^\s;&|()'\"]+"  # for a line with a quote that ends on another line
_WILD = r"[*?\[]"
_ASSIGNMENT = r"[A-Za-z_][A-Za-z0-9_]*="
_GIT = frozenset({"-C", "-c", "--git-dir", "--work-tree", "--namespace"})


class ShellRule(msgspec.Struct, frozen=True):
    """Commands that begin with the words of ``pattern`` need ``locks``; none: they need nothing, whatever later rules say."""

    pattern: str
    locks: tuple[str, ...] = ()


def _each(locks: Sequence[str], *patterns: str) -> tuple[ShellRule, ...]:
    return tuple(ShellRule(pattern, tuple(locks)) for pattern in patterns)


DEFAULTS = (
    *_each((), "git stash list", "git stash show", "git bisect log", "git apply --check", "git apply --stat", "make -n", "make --dry-run"),
    *_each(
        ("name:worktree",),
        *(
            f"git {verb}"
            for verb in (
                "am", "apply", "bisect", "checkout", "checkout-index", "cherry-pick", "clean", "commit", "filter-branch", "merge", "mv", "pull", "push",
                "read-tree", "rebase", "reset", "restore", "revert", "rm", "sparse-checkout", "stash", "submodule update", "switch",
            )
        ),
    ),
    *_each(
        ("name:build",),
        "make", "ninja", "cmake --build", "cargo build", "go build", "bazel build", "dotnet build", "meson compile", "swift build", "mvn", "gradle",
        "*gradlew", "npm run build*", "pnpm build*", "pnpm run build*", "yarn build*", "yarn run build*", "bun run build*",
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
    by_program, others = _table(tuple(rules))
    for words in islice(_commands(command[:MOST]), MOST_COMMANDS):
        candidates = by_program.get(words[0], others)
        for pattern, locks in candidates:
            if len(words) >= len(pattern) and all(map(fnmatchcase, words, pattern)):
                found |= dict.fromkeys(locks)
                break
    return list(found)


_Patterns = list[tuple[list[str], tuple[str, ...]]]


@lru_cache(100)
def _table(rules: tuple[ShellRule, ...]) -> tuple[dict[str, _Patterns], _Patterns]:
    """Return the rules that may match a program, in order, by its name; and those for all other programs."""
    split = [(rule.pattern.split(), rule.locks) for rule in rules]
    names = {words[0] for words, _ in split if not re.search(_WILD, words[0])}
    by_program = {name: [rule for rule in split if fnmatchcase(name, rule[0][0])] for name in names}
    return by_program, [rule for rule in split if re.search(_WILD, rule[0][0])]


def rules_of(root: str | None) -> tuple[ShellRule, ...]:
    """Return the rules of a work tree: those under ``shell`` in its ``coordinator.yaml``, then the defaults.

    Raises: ``ConfigurationError``.
    """
    path = None if root is None else Path(root) / FILE
    if path is None or not path.is_file():
        return DEFAULTS
    from coordinator.config.file import read  # noqa: PLC0415 - most work trees have no such file
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


def _commands(command: str, deep: int = 0) -> Iterator[list[str]]:
    """Yield the first words of each simple command."""
    command = command.replace("\\\n", " ").replace("$(", "(").replace("`", "\n")
    for line in command.split("\n"):
        words: list[str] = []
        for token in [*_tokens(line), None]:
            if token is not None:
                words.append(token)
            elif words:
                if found := _plain(words):
                    yield found
                    if deep < DEEP and (inner := _inner(found)):
                        yield from _commands(inner, deep + 1)
                words = []


def _inner(words: list[str]) -> str:
    """Return the text that a shell receives as a command, or nothing."""
    if words[0] == "eval":
        return " ".join(words[1:])
    if words[0] in SHELLS:
        for option, text in pairwise(words[1:]):
            if option.startswith("-") and not option.startswith("--") and option.endswith("c"):
                return text
    return ""


def _tokens(line: str) -> Iterator[str | None]:
    """Yield the words of a line, without quotes; None where a command ends."""
    found: list[str | None] = []
    for token in re.finditer(_WORD, line):
        word, end, open_quote = token.groups()
        if open_quote:  # the quote ends on another line
            yield from (None if part[0] in ";&|()" else part for part in re.findall(_OPEN, line))
            return
        if word is not None and ("'" in word or '"' in word or "\\" in word):
            word = re.sub(_QUOTED, _unquoted, word)
        found.append(None if end else word or token[0])
    yield from found


def _unquoted(quoted: re.Match[str]) -> str:
    single, double, escaped = quoted.groups()
    if double is not None:
        return re.sub(r'\\(["\\])', r"\1", double)
    return escaped if single is None else single


def _plain(words: list[str]) -> list[str]:
    """Return a simple command without prefixes, and without the options before the verb of git."""
    count, at = len(words), 0
    while at < count:
        if re.match(_ASSIGNMENT, words[at]):
            at += 1
            continue
        name = words[at].rpartition("/")[2]
        around = next((one for one in (name, " ".join((name, *words[at + 1 : at + 2]))) if one in AROUND), None)
        if around is not None:
            at = _beyond(words, at + around.count(" ") + 1, AROUND[around])
            at += name == "timeout"  # the duration
        elif fnmatchcase(name, "python*") and words[at + 1 : at + 2] == ["-m"]:
            at += 2
        else:
            break
    if at >= count:
        return []
    program, at = words[at].rpartition("/")[2] or words[at], at + 1
    if program == "git":
        at = _beyond(words, at, _GIT)
    return [program, *words[at : at + MOST_WORDS]]


def _beyond(words: list[str], at: int, valued: frozenset[str]) -> int:
    """Return the position after the options of a program."""
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in valued else 1
    return at
