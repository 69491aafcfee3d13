"""The options of ``coordinator hook run``, parsed without the command framework.

A tool waits for each call of a hook, and the framework takes a fifth of its time. The framework parses only command
lines that ``read`` does not understand: those with other options, with a mistake, or with a request for help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordinator.model import duration

__all__ = ["CHOICES", "DURATIONS", "read"]

DURATIONS = {"wait": "30s", "ttl": "10m", "limit": "300ms"}
"""Options that are durations, with their defaults."""

CHOICES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "hold": (("turn", "until-commit"), "turn"),
    "unreachable": (("ask", "allow", "deny"), "ask"),
    "worktrees": (("separate", "shared"), None),
}
"""Options with few values: these, and the default."""

TEXTS = ("dialect", "url", "project")


def read(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return the value of each option, or None if it does not understand the command line."""
    found: dict[str, Any] = {name: duration.parse(default) for name, default in DURATIONS.items()}
    found |= {name: default for name, (_, default) in CHOICES.items()}
    found |= dict.fromkeys(TEXTS)
    found["shared_reads"] = False
    left = iter(arguments)
    for argument in left:
        if argument == "--shared-reads":
            found["shared_reads"] = True
            continue
        name, joined, value = argument.partition("=")
        if not joined:
            value = next(left, "-")
        name = name.removeprefix("--") if name.startswith("--") else ""
        if name in DURATIONS:
            try:
                found[name] = duration.parse(value)
            except (ValueError, OverflowError):
                return None
        elif (name in CHOICES and value in CHOICES[name][0]) or (name in TEXTS and value and value[0] != "-"):
            found[name] = value
        else:
            return None
    return found
