"""The reference of the command line, from click's own commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from coordinator.cli.command import Verb, paged
from coordinator.cli.main import program
from tests.generate.markdown import coded, escaped, table

__all__ = ["commands", "global_options", "list_options"]

LIST = click.command()(paged(lambda: None))


def global_options() -> str:
    """List the options of every command."""
    return _table(_records(program, click.Context(program, info_name="coordinator")))


def list_options() -> str:
    """List the options that every command for a list has."""
    return _table(_records(LIST, click.Context(LIST)))


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
    records, general = _records(command, context), _records(LIST, context)
    if listed := set(general) <= set(records):
        records = [record for record in records if record not in general]
    if records:
        yield _table(records)
    if listed:
        yield "It also has the [options of lists](#options-of-lists).\n"
    yield "\n".join(["```sh", *command.examples, "```\n"])


def _help(command: click.Command) -> str:
    """Return the help; a paragraph after an escaped form feed is shown unchanged."""
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(
        "```text\n" + paragraph.strip("\b\n") + "\n```" if paragraph.startswith("\b") else escaped(paragraph)
        for paragraph in paragraphs
    )


def _records(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    """Return the spelling and the meaning of each option."""
    options = (param for param in command.params if isinstance(param, click.Option))
    return [record for option in options if (record := option.get_help_record(context)) is not None]


def _table(records: Iterable[tuple[str, str]]) -> str:
    return table(("option", "meaning"), ((coded(spelling), escaped(meaning)) for spelling, meaning in records))
