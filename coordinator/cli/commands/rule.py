"""``coordinator rule``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.operations import rules

command = noun("Rules: what setting one signal clears.")


@command.verb(
    name="set",
    examples=["coordinator rule set REJECTED COMPLETED QA_PASSED", "coordinator rule set STOP RUNNING --everywhere"],
)
@click.argument("when_set")
@click.argument("clears", nargs=-1, required=True)
@click.option("--everywhere", is_flag=True, help="It holds in all projects.")
@click.pass_obj
def set_(call: Invocation, *, when_set: str, clears: tuple[str, ...], everywhere: bool) -> None:
    """Make or change a rule: setting …/WHEN_SET clears …/CLEARS beside it, in the same transaction."""
    rule = call.run(
        rules.Set(project=call.project, when_set=when_set, clears=[*clears], everywhere=everywhere, actor=call.actor)
    )
    call.output.one(rule, plain(f"setting {when_set} clears {', '.join(clears)}"))


@command.verb(examples=["coordinator rule list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the rules that hold in a project; without a project: in all."""
    call.list(
        rules.List(project=call.project),
        ("when_set", "clears", "project", "created_at"),
        after=after,
        limit=limit,
        empty="No rules hold.",
    )


@command.verb(examples=["coordinator rule delete REJECTED --everywhere"])
@click.argument("when_set")
@click.option("--everywhere", is_flag=True, help="The one that holds in all projects.")
@click.pass_obj
def delete(call: Invocation, *, when_set: str, everywhere: bool) -> None:
    """Delete a rule."""
    call.run(rules.Delete(project=call.project, when_set=when_set, everywhere=everywhere, actor=call.actor))
    call.output.one({"when_set": when_set, "deleted": True}, f"deleted the rule for {plain(when_set)}")
