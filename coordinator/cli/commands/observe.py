"""``coordinator observe``."""

from __future__ import annotations

import click

from coordinator.cli.command import Verb, acting_agent
from coordinator.cli.commands.log import appended
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import read_exact, read_text
from coordinator.operations import observations


@click.command(
    cls=Verb,
    examples=[
        "coordinator observe 'The build takes ten minutes.'",
        "coordinator observe --json '{\"build_s\": 612}' --agent coder-1",
        "cat notes.txt | coordinator observe -",
    ],
)
@click.argument("content", metavar="TEXT")
@acting_agent(help="Agent that observes.", required=False)
@click.option("--json", "as_json", is_flag=True, help="Take TEXT as JSON.")
@click.option("--uid", metavar="NAME", help="Name of the observation: appending it again does nothing.")
@click.pass_obj
def command(call: Invocation, *, content: str, agent: object, as_json: bool, uid: str | None) -> None:
    """Record an observation of an agent. Without an agent, it is the caller's own observation.

    If TEXT is "-", it is read from standard input.
    """
    said = read_exact(read_text(content), "json" if as_json else "text")
    name = None if agent is None else str(agent)
    receipt = call.run(call.operation(observations.Append, content=said, agent=name, uid=uid))
    call.output.one(receipt, appended(receipt, "observation"))
