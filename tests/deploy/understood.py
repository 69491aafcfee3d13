"""What the program understands: variables and command lines."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.main import program
from coordinator.config import SETTINGS

USER = 10001  # of the image, and so of each container of it


def read() -> set[str]:
    """Return the variables that the program reads."""
    found = {setting.variable for setting in SETTINGS.values()} | {setting.alias for setting in SETTINGS.values()}
    return found | {f"{setting.variable}_FILE" for setting in SETTINGS.values() if setting.secret}


def understood(arguments: list[str]) -> None:
    """Parse a command line as the program does, without running it."""
    with click.Context(program) as ctx:
        command: Any = program
        while isinstance(command, click.Group):
            name, *arguments = arguments
            command = command.get_command(ctx, name)
            assert command, name
        command.make_context(name, arguments, parent=ctx)
