"""``coordinator help``."""

from __future__ import annotations

import click

from coordinator.cli.command import Verb


@click.command(cls=Verb, examples=["coordinator help", "coordinator help lock", "coordinator help lock run"])
@click.argument("words", metavar="[COMMAND]…", nargs=-1)
@click.pass_context
def command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command, as --help does."""
    shown = ctx.find_root()
    for word in words:
        group = shown.command
        found = group.get_command(shown, word) if isinstance(group, click.Group) else None
        if found is None:
            raise click.exceptions.NoSuchCommand(word, ctx=shown)
        shown = click.Context(found, info_name=word, parent=shown, **found.context_settings)
    click.echo(shown.get_help())
