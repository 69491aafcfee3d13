"""Commands in hints, which can be run as printed.

A hint contains a command as ``"coordinator NOUN VERB …"``, in double quotes, without project and server, which it does
not know. Where the call is known, its project is inserted; the command line adds the options that its user gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["DEFAULT_PROJECT", "WITHOUT_PROJECT", "shell_word", "with_options", "with_project"]

WITHOUT_PROJECT = frozenset({"backup", "config", "doctor", "project", "schema", "serve", "user"})
"""The nouns whose verbs are not about the project that ``--project`` names."""

DEFAULT_PROJECT = "default"
"""The project of calls that name none."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_COMMAND = re.compile(
    r'"coordinator (?P<options>(?:--[a-z-]+ (?:\'(?:[^\']|\'\\\\\'\')*\'|[^\s"]+) )*)(?P<noun>[a-z]+)\b'
)


def shell_word(text: str) -> str:
    """Quote a text as one word for a shell, without double quotes, since these enclose the command."""
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "'\\''") + "'"


def with_project(hint: str | None, project: str) -> str | None:
    """Add the project to the commands of a hint, unless it is the default project of commands."""
    if hint is None or project == DEFAULT_PROJECT:
        return hint
    option = f"--project {shell_word(project)}"

    def named(command: re.Match[str]) -> str:
        return command[0] if command["noun"] in WITHOUT_PROJECT else _inserted(command, [option])

    return _COMMAND.sub(named, hint)


def with_options(hint: str | None, options: Iterable[tuple[str, str]]) -> str | None:
    """Add these options to the commands of a hint that do not have them."""
    if hint is None:
        return None
    written = [f"{name} {shell_word(value)}" for name, value in options]
    return _COMMAND.sub(lambda command: _inserted(command, written), hint)


def _inserted(command: re.Match[str], options: Iterable[str]) -> str:
    present = {word for word in command["options"].split() if word.startswith("--")}
    added = "".join(f"{option} " for option in options if option.split()[0] not in present)
    return command[0].replace('"coordinator ', f'"coordinator {added}', 1)
