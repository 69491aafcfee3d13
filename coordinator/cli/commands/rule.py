"""``coordinator rule``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.operations import rules

command = noun("Rules: setting one signal clears others.")


@command.verb(
    name="set",
    examples=["coordinator rule set REJECTED COMPLETED QA_PASSED", "coordinator rule set STOP RUNNING --everywhere"],
)
@click.argument("when_set")
@click.argument("clears", metavar="CLEARS…", nargs=-1, required=True)
@click.option("--everywhere", is_flag=True, help="Apply the rule in all projects.")
@click.pass_obj
def set_(call: Invocation, *, when_set: str, clears: tuple[str, ...], everywhere: bool) -> None:
    """Create or change a rule.

    Setting …/WHEN_SET then clears each …/CLEARS, in the same transaction.
    """
    rule = call.run(call.operation(rules.Set, when_set=when_set, clears=clears, everywhere=everywhere))
    call.output.one(rule, plain(f"setting {when_set} clears {', '.join(clears)}"))


@command.verb(examples=["coordinator rule list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the rules that apply in the project."""
    call.list(
        rules.List(project=call.project),
        ("when_set", "clears", "project", "created_at"),
        after=after,
        limit=limit,
        empty="There are no rules.",
    )


@command.verb(examples=["coordinator rule delete REJECTED --everywhere"])
@click.argument("when_set")
@click.option("--everywhere", is_flag=True, help="Delete the rule for all projects.")
@click.pass_obj
def delete(call: Invocation, *, when_set: str, everywhere: bool) -> None:
    """Delete a rule."""
    call.run(call.operation(rules.Delete, when_set=when_set, everywhere=everywhere))
    call.output.one({"when_set": when_set, "deleted": True}, f"deleted the rule for {plain(when_set)}")
