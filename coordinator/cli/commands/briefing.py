"""``coordinator briefing``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.operations import briefings

command = noun("Briefings: what an agent should know before it continues.")


@command.verb(examples=["coordinator briefing read coder-1", "coordinator briefing read coder-1 --news"])
@click.argument("agent")
@click.option("--news", is_flag=True, help="Only directives and watched signals, each only once.")
@click.option(
    "--again/--not-again",
    default=True,
    show_default=True,
    help="Include directives that it has seen but not acknowledged, and all watched signals.",
)
@click.pass_obj
def read(call: Invocation, *, agent: str, news: bool, again: bool) -> None:
    """Print what AGENT should know before it continues.

    This includes directives for it, changed signals, other active agents, and their locks. Printed directives are marked as seen.
    """
    items = call.run(call.operation(briefings.Read, agent=agent, news=news, again=again))
    call.output.many(
        items, ("kind", "key", "agent", "text", "started_at", "expires_at", "more"), empty="Nothing is new."
    )


@command.verb(
    examples=[
        "coordinator briefing subscribe coder-1 'build/*' '*/COMPLETED'",
        "coordinator briefing subscribe coder-1",
    ]
)
@click.argument("agent")
@click.argument("patterns", metavar="[PATTERN]…", nargs=-1)
@click.pass_obj
def subscribe(call: Invocation, *, agent: str, patterns: tuple[str, ...]) -> None:
    """Choose the signals that AGENT watches.

    AGENT watches signals whose key matches a PATTERN; * matches any text. The patterns replace the previous ones. Without a pattern, AGENT watches nothing.
    """
    briefing = call.run(call.operation(briefings.Subscribe, agent=agent, patterns=patterns))
    call.output.one(briefing, plain(f"{briefing.agent} watches {', '.join(briefing.patterns) or 'nothing'}"))


@command.verb(examples=["coordinator briefing list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List which signals agents watch, and when they last read news."""
    call.list(
        briefings.List(project=call.project),
        ("agent", "patterns", "read_at", "told"),
        after=after,
        limit=limit,
        empty="No agent has read a briefing.",
    )
