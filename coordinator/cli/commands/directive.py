"""``coordinator directive``."""

from __future__ import annotations

from datetime import timedelta

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import DURATION, INTEGER, OBJECT, read_text
from coordinator.model.operation import Json
from coordinator.operations import directives

command = noun("Directives: what managers tell agents, acknowledged.")


@command.verb(
    examples=[
        "coordinator directive send 'Work on the parser first' --to coder-1",
        "coordinator directive send 'Rebase before you push' --role coder --priority 10 --ttl 1h",
        "coordinator directive send 'Stop all work' --everyone --key stop     # takes the place of an older one with this key",
    ]
)
@click.argument("text")
@click.option("--to", "to_agent", metavar="NAME", help="The agent of this name.")
@click.option("--role", "to_role", metavar="ROLE", help="All agents with this role.")
@click.option("--everyone", is_flag=True, help="All agents of the project.")
@click.option("--priority", type=INTEGER, default=0, show_default=True, help="-100 to 100; higher comes first.")
@click.option("--ttl", type=DURATION, default="7d", show_default=True, help="Nobody gets it after so long.")
@click.option("--key", metavar="KEY", help="Supersedes the open one with this key and target.")
@click.option("--data", type=OBJECT, default="{}", metavar="JSON", help="An object for programs to read.")
@click.pass_obj
def send(
    call: Invocation,
    *,
    text: str,
    to_agent: str | None,
    to_role: str | None,
    everyone: bool,
    priority: int,
    ttl: timedelta,
    key: str | None,
    data: dict[str, Json],
) -> None:
    """Send a directive to one agent, a role, or everyone, those included that register later.

    TEXT "-" reads it from standard input.
    """
    if (to_agent is not None) + (to_role is not None) + everyone != 1:
        raise click.UsageError("give one of --to NAME, --role ROLE and --everyone")
    directive = call.run(
        directives.Send(
            project=call.project,
            body=read_text(text),
            to_agent=to_agent,
            to_role=to_role,
            everyone=everyone,
            priority=priority,
            ttl=ttl,
            key=key,
            data=data,
            actor=call.actor,
        )
    )
    call.output.one(directive, f"sent {directive.id}, expires {age(directive.expires_at)}")


@command.verb(examples=["coordinator directive inbox --agent coder-1"])
@click.option("--agent", required=True, metavar="NAME", help="Name of the agent.")
@paged
@click.pass_obj
def inbox(call: Invocation, *, agent: str, after: str | None, limit: int | None) -> None:
    """List what an agent has not done or refused yet, by priority and order of sending."""
    call.list(
        directives.Inbox(project=call.project, agent=agent),
        ("id", "status", "priority", "body", "actor", "sent_at", "expires_at"),
        after=after,
        limit=limit,
        empty="The inbox is empty.",
    )


@command.verb(
    examples=[
        "coordinator directive acknowledge 17 --agent coder-1",
        "coordinator directive acknowledge 17 --agent coder-1 --status seen",
        "coordinator directive acknowledge 17 --agent coder-1 --status refused --reason 'No access to the branch'",
    ]
)
@click.argument("directive", type=INTEGER)
@click.option("--agent", required=True, metavar="NAME", help="Name of the agent.")
@click.option("--status", default="done", show_default=True, metavar="seen|done|refused", help="What it says.")
@click.option("--reason", metavar="TEXT", help="Why; needed to refuse.")
@click.pass_obj
def acknowledge(call: Invocation, *, directive: int, agent: str, status: str, reason: str | None) -> None:
    """Answer a directive for an agent; saying the same again changes nothing."""
    receipt = call.run(
        directives.Acknowledge(project=call.project, directive=directive, agent=agent, status=status, reason=reason)
    )
    call.output.one(receipt, f"{plain(agent)} acknowledged {directive}: {receipt.status}")


@command.verb(examples=["coordinator directive pending", "coordinator directive pending 17"])
@click.argument("directive", type=INTEGER, required=False)
@paged
@click.pass_obj
def pending(call: Invocation, *, directive: int | None, after: str | None, limit: int | None) -> None:
    """List who has not answered open directives yet, or one directive."""
    call.list(
        directives.ListPending(project=call.project, directive=directive),
        ("id", "agent", "status", "priority", "body", "actor", "sent_at", "expires_at"),
        after=after,
        limit=limit,
        empty="Everyone has answered.",
    )


@command.verb(examples=["coordinator directive revoke 17 --reason 'The plan changed'"])
@click.argument("directive", type=INTEGER)
@click.option("--reason", metavar="TEXT", help="Why, for the recipients.")
@click.pass_obj
def revoke(call: Invocation, *, directive: int, reason: str | None) -> None:
    """Take an open directive back."""
    changed = call.run(directives.Revoke(project=call.project, directive=directive, reason=reason, actor=call.actor))
    call.output.one(
        {"id": directive, "revoked": True, "changed": changed},
        f"revoked {directive}" if changed else f"{directive} was revoked already",
    )


@command.verb(examples=["coordinator directive list", "coordinator directive list --all"])
@click.option("--all", "everything", is_flag=True, help="Those that ended, too.")
@paged
@click.pass_obj
def list_(call: Invocation, *, everything: bool, after: str | None, limit: int | None) -> None:
    """List open directives, in order of sending."""
    call.list(
        directives.List(project=call.project, open=not everything),
        ("id", "status", "to_agent", "to_role", "priority", "key", "body", "actor", "sent_at", "expires_at"),
        after=after,
        limit=limit,
        empty="There are no directives.",
    )
