"""A command in a hint runs as it is printed."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from coordinator import operations
from coordinator.cli.main import program as tree
from coordinator.model.hint import WITHOUT_PROJECT, with_options, with_project
from coordinator.model.operation import Scope
from tests.cli.conftest import Program

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"(.?)\bcoordinator ([a-z]+)(?: ([a-z]+))?")
LITERAL = re.compile(r"'(?:[^']|'')*'")


def hints() -> Iterator[tuple[str, str]]:
    """Yield the texts that may be hints: each literal of a line of SQL that names a hint, and what Python passes as a hint."""
    for path in sorted((ROOT / "sql/functions").rglob("*.sql")):
        for line in path.read_text("utf-8").splitlines():
            if "hint" in line and not line.lstrip().startswith("--"):
                yield from ((f"{path.name}: {text}", text) for text in LITERAL.findall(line))
    for path in sorted((ROOT / "coordinator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield f"{path.name}: {part.value}", part.value


def test_hints_quote_their_commands_and_name_verbs_that_there_are() -> None:
    found = 0
    for where, text in hints():
        for before, noun, verb in COMMAND.findall(text):
            command = tree.get_command(click.Context(tree), noun)
            if command is None and before != '"':
                continue  # the program's name in a sentence
            found += 1
            assert command is not None, where
            assert before == '"', f"{where}: write the command in double quotes"
            if isinstance(command, click.Group) and verb:
                assert command.get_command(click.Context(command), verb), where
    assert found > 40


def test_the_nouns_whose_commands_take_no_project_are_those_of_no_project() -> None:
    of_project = {
        kind.function.split("_")[0]
        for kind in operations.every()
        if not kind.internal and kind.scope in (Scope.IN_PROJECT, Scope.AGENT)
    }
    assert of_project.isdisjoint(WITHOUT_PROJECT)


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        (None, None),
        ("Retry later.", "Retry later."),
        ('See "coordinator lock list".', 'See "coordinator --project shop lock list".'),
        ('Run "coordinator project create x" or "coordinator job list".', 'Run "coordinator project create x" or "coordinator --project shop job list".'),
        ('See "coordinator --project other lock list".', 'See "coordinator --project other lock list".'),
        ('See "coordinator --url unix:///x lock list".', 'See "coordinator --project shop --url unix:///x lock list".'),
    ],
)  # fmt: skip
def test_a_project_is_inserted_where_a_command_lacks_one(hint: str | None, shown: str | None) -> None:
    assert with_project(hint, "shop") == shown
    assert with_project(hint, "default") == hint


def test_options_are_quoted_and_never_repeated() -> None:
    hint = with_options('See "coordinator lock list".', [("--project", "a b"), ("--data-dir", "/d")])
    assert hint == """See "coordinator --project 'a b' --data-dir /d lock list"."""
    assert with_options(hint, [("--project", "other"), ("--data-dir", "/e")]) == hint
    quoted = with_options('See "coordinator lock list".', [("--config", "it's"), ("--profile", "")])
    assert quoted == """See "coordinator --config 'it'\\''s' --profile '' lock list"."""
    assert with_project(quoted, "shop") == (quoted or "").replace('"coordinator', '"coordinator --project shop')


def test_the_commands_of_a_lock_conflict_run_as_printed_in_another_project(program: Program) -> None:
    url = program.environment.pop("COORDINATOR_DATABASE_URL")
    where = ("--url", url, "--project", "the-shop")
    program.json(*where, "project", "create", "the-shop")
    holder, other = (program.json(*where, "agent", "register", name)["id"] for name in ("it's me; $(id)", "tester"))
    program.json(*where, "lock", "acquire", "a b/it's $(x)", "--agent", holder)
    for line in (["acquire", "a b/", "--agent", other], ["check", "a b/it's $(x)"]):
        hint = json.loads(program.run(*where, "lock", *line).stderr)["error"]["hint"]
        command = re.search(r'"coordinator ([^"]*)"', hint)
        assert command is not None, hint
        program.json(*shlex.split(command[1]))
    inbox = program.json(*where, "directive", "inbox", "--agent", holder)
    assert [one["body"] for one in inbox] == ["please release a b/it's $(x)"] * 2
