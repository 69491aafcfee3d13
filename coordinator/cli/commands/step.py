"""``coordinator step``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.commands.log import ENTRY_COLUMNS, appended
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import INTEGER, given, read_exact, read_text
from coordinator.model.json import text_of
from coordinator.operations import logs, steps

command = noun("Steps: what an agent thought, did and saw in a session.")

_session = click.argument("session")


@command.verb(
    examples=[
        "coordinator step append run/7 --thought 'Look first.' --action '{\"run\": \"ls\"}' --observation 'a.txt'",
        "coordinator step append run/7 --thought 'Done.' --uid run/7/end     # a repetition does nothing",
    ]
)
@_session
@click.option("--thought", metavar="TEXT", help="What the agent thought.")
@click.option("--action", metavar="JSON|TEXT", help="What it did.")
@click.option("--observation", metavar="JSON|TEXT", help="What it observed; - reads standard input.")
@click.option("--uid", metavar="NAME", help="Name of the step: appending it again does nothing.")
@click.option(
    "--expect", type=INTEGER, metavar="SEQ", help="Append only if this is the last number; 0: only if there is no step."
)
@click.option("--epoch", metavar="EPOCH", help="Append only if the last number is from this epoch.")
@click.pass_obj
def append(
    call: Invocation,
    /,
    *,
    session: str,
    thought: str | None,
    action: str | None,
    observation: str | None,
    **options: Any,
) -> None:
    """Append a step to a session; the first one creates it."""
    parts = {
        "thought": None if thought is None else text_of(thought),
        "action": None if action is None else read_exact(action),
        "observation": None if observation is None else read_exact(read_text(observation)),
    }
    step = text_of(given(parts))
    receipt = call.run(call.operation(steps.Append, session=session, step=step, **options))
    call.output.one(receipt, appended(receipt, "step"))


@command.verb(examples=["coordinator step list run/7", "coordinator step list run/7 --last 5"])
@_session
@click.option("--last", type=INTEGER, metavar="N", help="List only the last N steps.")
@paged
@click.pass_obj
def list_(call: Invocation, *, session: str, last: int | None, after: str | None, limit: int | None) -> None:
    """List the steps of a session, in their order."""
    operation = logs.Read(project=call.project, kind="step", key=session, last=last)
    call.list(operation, ENTRY_COLUMNS, after=after, limit=limit, empty="There are no steps.")
