"""``coordinator demo``."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli.command import Verb
from coordinator.cli.invocation import Invocation


@click.command(cls=Verb, examples=["coordinator demo", "coordinator demo ~/src/project --keep"])
@click.argument("path", default=".", type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Keep the demonstration's project for a look at it afterwards.")
@click.pass_obj
def command(call: Invocation, *, path: Path, keep: bool) -> int:
    """Watch a manager and six agents work through a source tree."""
    config = call.config
    from coordinator.demo.main import run  # noqa: PLC0415

    return run(config, path, keep=keep)
