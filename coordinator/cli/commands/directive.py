"""``coordinator directive``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import acting_agent, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import DURATION, INTEGER, JOB, OBJECT, read_text
from coordinator.model.directive import Sent
from coordinator.operations import directives

command = noun("Directives: instructions from managers to agents.")


@command.verb(
    examples=[
        "coordinator directive send 'Work on the parser first' --to-agent coder-1",
        "coordinator directive send 'Rebase before you push' --to-role coder --priority 10 --ttl 1h",
        "coordinator directive send 'Skip the appendix' --to-job 01a2155e-ba17-77e3-ac99-d90c691a84ae",
        "coordinator directive send 'Stop all work' --everyone --key stop     # supersedes the open one with this key",
    ]
)
@click.argument("body")
@click.option("--to-agent", metavar="NAME", help="Send it to the agent with this name or id.")
@click.option("--to-role", metavar="ROLE", help="Send it to all agents with this role.")
@click.option("--to-job", type=JOB, metavar="ID", help="Send it to the worker of this job, until the job ends.")
@click.option("--everyone", is_flag=True, help="Send it to all agents of the project.")
@click.option(
    "--priority", type=INTEGER, default=0, show_default=True, help="Priority, -100 to 100; the highest comes first."
)
@click.option("--ttl", type=DURATION, default="7d", show_default=True, help="Expire it after this long.")
@click.option("--key", metavar="KEY", help="Supersede the open directive with this key and target.")
@click.option("--data", type=OBJECT, default="{}", metavar="JSON", help="Object for programs.")
@click.pass_obj
def send(call: Invocation, /, *, body: str, **options: Any) -> None:
    """Send a directive to one agent, a role, a job, or everyone.

    Prints its number. Agents that register later receive it, too. If BODY is "-", it is read from standard input.
    """
    targets = (options[name] is not None for name in ("to_agent", "to_role", "to_job"))
    if sum((*targets, options["everyone"])) != 1:
        raise click.UsageError("give one of --to-agent NAME, --to-role ROLE, --to-job ID and --everyone")
    directive = call.run(call.operation(directives.Send, body=read_text(body), **options))
    call.output.note(f"sent; it expires {age(directive.expires_at)}. Its number:")
    call.output.one(directive, str(directive.id))
    if not (call.output.json or directive.recipients):
        call.output.note(plain(_unread(directive)))


@command.verb(examples=["coordinator directive inbox --agent coder-1"])
@acting_agent(help="The agent.", type=click.STRING, metavar="NAME|ID")
@paged
@click.pass_obj
def inbox(call: Invocation, *, agent: str, after: str | None, limit: int | None) -> None:
    """List an agent's open directives. It has neither done nor refused them. The highest priority comes first, then the oldest."""
    call.list(
        directives.Inbox(project=call.project, agent=agent),
        ("id", "status", "body", "priority", "actor", "sent_at", "expires_at"),
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
@acting_agent(help="The agent.", type=click.STRING, metavar="NAME|ID")
@click.option("--status", default="done", show_default=True, metavar="seen|done|refused", help="Status to acknowledge.")
@click.option("--reason", metavar="TEXT", help="Reason; required to refuse.")
@click.pass_obj
def acknowledge(call: Invocation, *, directive: int, agent: str, status: str, reason: str | None) -> None:
    """Acknowledge a directive for an agent. A repetition changes nothing."""
    receipt = call.run(
        call.operation(directives.Acknowledge, directive=directive, agent=agent, status=status, reason=reason)
    )
    call.output.one(receipt, f"{plain(receipt.agent)} acknowledged {directive}: {receipt.status}")


@command.verb(examples=["coordinator directive pending", "coordinator directive pending 17"])
@click.argument("directive", type=INTEGER, required=False)
@paged
@click.pass_obj
def pending(call: Invocation, *, directive: int | None, after: str | None, limit: int | None) -> None:
    """List agents that have not acknowledged. Without DIRECTIVE, list them for all open directives."""
    call.list(
        directives.ListPending(project=call.project, directive=directive),
        ("id", "agent", "status", "body", "sent_at", "priority", "actor", "expires_at"),
        after=after,
        limit=limit,
        empty="No answer is outstanding.",
    )


@command.verb(examples=["coordinator directive revoke 17 --reason 'The plan changed'"])
@click.argument("directive", type=INTEGER)
@click.option("--reason", metavar="TEXT", help="Reason, for the recipients.")
@click.pass_obj
def revoke(call: Invocation, *, directive: int, reason: str | None) -> None:
    """Revoke an open directive."""
    changed = call.run(call.operation(directives.Revoke, directive=directive, reason=reason))
    call.output.one(
        {"id": directive, "revoked": True, "changed": changed},
        f"revoked {directive}" if changed else f"{directive} was already revoked",
    )


@command.verb(examples=["coordinator directive list", "coordinator directive list --all"])
@click.option("--all", "everything", is_flag=True, help="Also list ended directives.")
@paged
@click.pass_obj
def list_(call: Invocation, *, everything: bool, after: str | None, limit: int | None) -> None:
    """List the open directives, oldest first."""
    call.list(
        directives.List(project=call.project, open=not everything),
        ("id", "status", "to_agent", "to_role", "body", "to_job", "sent_at", "priority", "actor", "expires_at", "key"),
        after=after,
        limit=limit,
        empty="There are no directives.",
    )


def _unread(directive: Sent) -> str:
    """Return the note for a directive that no registered agent receives now."""
    meant = f' Did you mean "{directive.meant}"?' if directive.meant else ""
    if directive.to_role is not None:
        return f'No registered agent has the role "{directive.to_role}".{meant}'
    if directive.to_agent is not None:
        return f'No registered agent is called "{directive.to_agent}".{meant}'
    if directive.to_job is not None:
        return "Nobody runs the job now; its next worker receives the directive."
    return "No agent is registered."
