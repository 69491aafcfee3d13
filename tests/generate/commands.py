"""The reference of the command line, from click's own commands."""

from __future__ import annotations

from collections.abc import Iterator

import click

from coordinator.cli.command import Verb
from coordinator.cli.main import program
from tests.generate.markdown import coded, escaped, table

__all__ = ["commands", "global_options"]


def global_options() -> str:
    """List the options of every command."""
    return _options(program, click.Context(program, info_name="coordinator"))


def commands() -> str:
    """Describe every command with its options and examples."""
    return "\n".join(_of_group(program, click.Context(program, info_name="coordinator"), "##"))


def _of_group(group: click.Group, parent: click.Context, level: str) -> Iterator[str]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        yield f"{level} {context.command_path}\n"
        if isinstance(command, click.Group):
            yield f"{_help(command)}\n"
            yield from _of_group(command, context, f"{level}#")
        else:
            yield from _of_verb(command, context)


def _of_verb(command: click.Command, context: click.Context) -> Iterator[str]:
    assert isinstance(command, Verb)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"{_help(command)}\n"
    yield f"```text\n{usage}\n```\n"
    if options := _options(command, context):
        yield options
    yield "\n".join(["```sh", *command.examples, "```\n"])


def _help(command: click.Command) -> str:
    """Return the help; a paragraph after an escaped form feed is shown unchanged."""
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(
        "```text\n" + paragraph.strip("\b\n") + "\n```" if paragraph.startswith("\b") else escaped(paragraph)
        for paragraph in paragraphs
    )


def _options(command: click.Command, context: click.Context) -> str:
    records = [
        record
        for param in command.params
        if isinstance(param, click.Option) and (record := param.get_help_record(context)) is not None
    ]
    rows = ((coded(spelling), escaped(meaning)) for spelling, meaning in records)
    return table(("option", "meaning"), rows) if records else ""
