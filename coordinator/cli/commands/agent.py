"""``coordinator agent``."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age
from coordinator.cli.values import DURATION, ID, OBJECT
from coordinator.model.operation import Json
from coordinator.operations import agents

command = noun("Agents: running incarnations, with a TTL.")


@command.verb(
    examples=[
        "id=$(coordinator agent register coder-1 --role coder --output text)",
        'coordinator agent register coder-1 --ttl 5m --job-type build --metadata \'{"model": "large"}\'',
    ]
)
@click.argument("name")
@click.option("--role", metavar="ROLE", help="Gets directives that are sent to the role.")
@click.option("--job-type", "job_types", multiple=True, metavar="TYPE", help="Kind of work it takes; may be repeated.")
@click.option(
    "--metadata", type=OBJECT, default="{}", metavar="JSON", help="An object of its own; - reads standard input."
)
@click.option("--ttl", type=DURATION, default="30s", show_default=True, help="Reaped when silent for so long.")
@click.pass_obj
def register(
    call: Invocation,
    *,
    name: str,
    role: str | None,
    job_types: tuple[str, ...],
    metadata: dict[str, Json],
    ttl: timedelta,
) -> None:
    """Register a starting agent and print its id, which is new at each start."""
    agent = call.run(
        agents.Register(project=call.project, name=name, role=role, job_types=[*job_types], metadata=metadata, ttl=ttl)
    )
    call.output.one(agent, str(agent.id))


@command.verb(examples=['coordinator agent heartbeat "$id"'])
@click.argument("agent", metavar="ID", type=ID)
@click.pass_obj
def heartbeat(call: Invocation, *, agent: UUID) -> None:
    """Say that an agent lives; once more before its TTL passes."""
    expires_at = call.run(agents.Heartbeat(agent=agent))
    call.output.one({"id": agent, "expires_at": expires_at}, f"expires {age(expires_at)}")


@command.verb(examples=['coordinator agent deregister "$id"'])
@click.argument("agent", metavar="ID", type=ID)
@click.pass_obj
def deregister(call: Invocation, *, agent: UUID) -> None:
    """End an agent and let go of everything it holds."""
    call.run(agents.Deregister(agent=agent))
    call.output.one({"id": agent, "deregistered": True}, f"deregistered {agent}")


@command.verb(examples=["coordinator agent list", "coordinator agent list --role coder"])
@click.option("--role", metavar="ROLE", help="Only agents of the role.")
@paged
@click.pass_obj
def list_(call: Invocation, *, role: str | None, after: str | None, limit: int | None) -> None:
    """List the agents that are registered, by name."""
    call.list(
        agents.List(project=call.project, role=role),
        ("name", "role", "id", "job_types", "metadata", "registered_at", "heartbeat_at", "expires_at"),
        after=after,
        limit=limit,
        empty="No agents are registered.",
    )
