"""Hints as a model can follow them: instead of a command, the tool that does the same, if it is offered."""

from __future__ import annotations

import re
from collections.abc import Container

__all__ = ["for_model"]

_COMMAND = re.compile(r'("coordinator (?:--\S+ \S+ )*([a-z]+) ([a-z]+)[^"]*")(?: or [A-Z]+ /v1/[\w/{}]+)?')


def for_model(hint: str, offered: Container[str]) -> str:
    """Return a hint with the names of tools; a command that no tool replaces stays, without the request that does the same."""

    def told(command: re.Match[str]) -> str:
        tool = f"{command[2]}_{command[3]}"
        return tool if tool in offered else command[1]

    return _COMMAND.sub(told, hint)
