"""``coordinator completion``."""

from __future__ import annotations

import click

from coordinator.cli.command import Verb


@click.command(
    cls=Verb,
    examples=[
        "coordinator completion bash > ~/.local/share/bash-completion/completions/coordinator",
        "coordinator completion zsh > ~/.zfunc/_coordinator     # with fpath+=~/.zfunc before compinit",
        "coordinator completion fish > ~/.config/fish/completions/coordinator.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows all three
    complete = kind(ctx.find_root().command, {}, "coordinator", "_COORDINATOR_COMPLETE")
    # source() would start the shell to ask for its version.
    click.echo(complete.source_template % complete.source_vars())
