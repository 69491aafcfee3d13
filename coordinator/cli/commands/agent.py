"""``coordinator agent``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from coordinator.cli.command import acting_agent, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age
from coordinator.cli.values import DURATION, OBJECT
from coordinator.operations import agents

command = noun("Agents: running processes, registered with a TTL.")


@command.verb(
    examples=[
        "id=$(coordinator agent register coder-1 --role coder --output text)",
        'coordinator agent register coder-1 --ttl 5m --job-type build --metadata \'{"model": "large"}\'',
    ]
)
@click.argument("name")
@click.option("--role", metavar="ROLE", help="Receive the directives sent to this role.")
@click.option("--job-type", "job_types", multiple=True, metavar="TYPE", help="Accept jobs of this type; repeatable.")
@click.option("--metadata", type=OBJECT, default="{}", metavar="JSON", help="Object to store; - reads standard input.")
@click.option(
    "--ttl", type=DURATION, default="30s", show_default=True, help="Reap the agent after this long without a heartbeat."
)
@click.pass_obj
def register(call: Invocation, /, **options: Any) -> None:
    """Register an agent that starts, and print its new id."""
    agent = call.run(call.operation(agents.Register, **options))
    call.output.one(agent, str(agent.id))


@command.verb(examples=['coordinator agent heartbeat "$id"'])
@acting_agent()
@click.pass_obj
def heartbeat(call: Invocation, *, agent: UUID) -> None:
    """Extend an agent's registration by its TTL."""
    expires_at = call.run(agents.Heartbeat(agent=agent))
    call.output.one({"id": agent, "expires_at": expires_at}, f"expires {age(expires_at)}")


@command.verb(examples=['coordinator agent deregister "$id"'])
@acting_agent()
@click.pass_obj
def deregister(call: Invocation, *, agent: UUID) -> None:
    """End an agent, and release everything that it holds."""
    call.run(agents.Deregister(agent=agent))
    call.output.one({"id": agent, "deregistered": True}, f"deregistered {agent}")


@command.verb(examples=["coordinator agent list", "coordinator agent list --role coder"])
@click.option("--role", metavar="ROLE", help="List only agents of this role.")
@paged
@click.pass_obj
def list_(call: Invocation, *, role: str | None, after: str | None, limit: int | None) -> None:
    """List the registered agents, by name."""
    call.list(
        agents.List(project=call.project, role=role),
        ("name", "role", "id", "expires_at", "heartbeat_at", "registered_at", "job_types", "metadata"),
        after=after,
        limit=limit,
        empty="No agents are registered.",
    )
