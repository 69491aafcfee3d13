"""``coordinator observation``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.commands.log import ENTRY_COLUMNS
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import INTEGER
from coordinator.operations import logs

command = noun('Observations: what agents noticed. Record one with "coordinator observe".')


@command.verb(examples=["coordinator observation list coder-1", "coordinator observation list coder-1 --last 10"])
@click.argument("agent", metavar="NAME")
@click.option("--last", type=INTEGER, metavar="N", help="List only the last N observations.")
@paged
@click.pass_obj
def list_(call: Invocation, *, agent: str, last: int | None, after: str | None, limit: int | None) -> None:
    """List the observations of an agent, in their order."""
    operation = logs.Read(project=call.project, kind="observation", key=agent, last=last)
    call.list(operation, ENTRY_COLUMNS, after=after, limit=limit, empty="There are no observations.")
