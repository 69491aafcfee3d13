"""Hints: what the database and the daemon advise, as a model reads it."""

from __future__ import annotations

import re

import pytest

from coordinator import operations
from coordinator.db import schema
from coordinator.mcp.hints import for_model
from coordinator.mcp.tools import HIDDEN, TOOLS

FUNCTIONS = frozenset(operation.function for operation in operations.every())
TEXT = re.compile(r"'((?:[^']|'')*)'")


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ('It was deleted; see "coordinator signal list".', "It was deleted; see signal_list."),
        ('See "coordinator --project shop lock list" or GET /v1/locks, then wait.', "See lock_list, then wait."),
        (
            'See "coordinator directive inbox --agent a --project shop" or GET /v1/directives/inbox.',
            "See directive_inbox.",
        ),
        (
            'Run "coordinator project create shop" or POST /v1/projects/create.',
            'Run "coordinator project create shop".',
        ),
        ("Write it like 30s.", "Write it like 30s."),
    ],
)
def test_a_command_is_the_tool_that_does_the_same(hint: str, told: str) -> None:
    assert for_model(hint, TOOLS) == told


def test_a_tool_that_is_not_offered_is_not_advised() -> None:
    assert for_model('See "coordinator lock break x" or POST /v1/locks/break.', ()) == 'See "coordinator lock break x".'


def bodies() -> dict[str, str]:
    """The text of each function, by name."""
    found = {}
    for file in schema.files():
        if file.kind == "functions":
            parts = re.split(
                r"^create (?:or replace )?(?:function|procedure) coordinator\.(\w+)", file.text, flags=re.MULTILINE
            )
            found.update(zip(parts[1::2], parts[2::2], strict=True))
    return found


def hints(tool: str, functions: dict[str, str]) -> set[str]:
    """The hints of the function of a tool, and of all that it calls, as far as they are text."""
    reached, found = {tool}, [tool]
    while found:
        called = set(re.findall(r"coordinator\.(\w+)\s*\(", functions[found.pop()])) & functions.keys()
        found += called - reached
        reached |= called
    raised = [part for name in reached for part in re.findall(r"hint\s*=((?:'(?:[^']|'')*'|[^;'])+)", functions[name])]
    return {text.replace("''", "'") for part in raised for text in TEXT.findall(part) if " " in text}


def test_the_hints_of_the_database_name_no_function_that_no_tool_offers() -> None:
    functions = bodies()
    for tool in TOOLS:
        advised = hints(tool, functions)
        assert advised or tool == "job_why", f"{tool} refuses nothing, or this test reads its hints wrongly"
        for hint in (for_model(hint, TOOLS) for hint in advised):
            names = set(re.findall(r"\w+", re.sub(r'"coordinator [^"]*"', "", hint)))
            assert not names & (FUNCTIONS - TOOLS.keys()), f"{tool}: {hint}"
            assert not {name for name in names if "_" in name} & HIDDEN, f"{tool}: {hint}"
            for noun, verb in re.findall(r'"coordinator (\w+) (\w+)', hint):
                assert f"{noun}_{verb}" not in TOOLS, f"{tool}: {hint}"
