"""Hints that a model can follow: a command is replaced by the equivalent tool, if it is offered."""

from __future__ import annotations

import re
from collections.abc import Container

__all__ = ["for_model"]

_COMMAND = re.compile(r'("coordinator (?:--\S+ \S+ )*([a-z]+) ([a-z]+)[^"]*")(?: or [A-Z]+ /v1/[\w/{}]+)?')


def for_model(hint: str, offered: Container[str]) -> str:
    """Return a hint with the names of tools; a command without an equivalent tool stays, without the equivalent HTTP request."""

    def told(command: re.Match[str]) -> str:
        tool = f"{command[2]}_{command[3]}"
        return tool if tool in offered else command[1]

    return _COMMAND.sub(told, hint)
