"""``coordinator agent``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from coordinator.cli.command import CommandVerb, acting_agent, noun, paged, worker
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import DURATION, OBJECT
from coordinator.model.agent_ref import AgentRef
from coordinator.operations import agents

command = noun("Agents: running processes, registered with a TTL.")


@command.verb(
    examples=[
        "id=$(coordinator agent register coder-1 --role coder --output text)",
        'coordinator agent register coder-1 --ttl 5m --job-type build --label gpu --metadata \'{"model": "large"}\'',
    ]
)
@click.argument("name")
@click.option("--role", metavar="ROLE", help="Receive the directives sent to this role.")
@worker
@click.option("--metadata", type=OBJECT, default="{}", metavar="JSON", help="Object to store; - reads standard input.")
@click.option(
    "--ttl", type=DURATION, default="30s", show_default=True, help="Reap the agent after this long without a heartbeat."
)
@click.pass_obj
def register(call: Invocation, /, **options: Any) -> None:
    """Register a new agent, and print its id."""
    agent = call.run(call.operation(agents.Register, **options))
    call.output.one(agent, str(agent.id))


@command.verb(
    examples=[
        "coordinator agent join session-17",
        """coordinator agent join session-17 --metadata '{"task": "fix the build"}'""",
    ]
)
@click.argument("name")
@click.option("--role", metavar="ROLE", help="Receive the directives sent to this role.")
@click.option(
    "--metadata",
    type=OBJECT,
    metavar="JSON",
    help="Object to combine with the agent's metadata; - reads standard input.",
)
@click.option(
    "--ttl",
    type=DURATION,
    default="10m",
    show_default=True,
    help="Reap the agent after this long without another call.",
)
@click.pass_obj
def join(call: Invocation, /, **options: Any) -> None:
    """Print the id of the agent NAME. Register the agent if necessary, and renew it and all its leases."""
    agent = call.run(call.operation(agents.Join, **options))
    call.output.one(agent, str(agent.id))


@command.verb(examples=['coordinator agent heartbeat "$id"'])
@acting_agent()
@click.pass_obj
def heartbeat(call: Invocation, *, agent: AgentRef) -> None:
    """Extend an agent's registration by its TTL."""
    expires_at = call.run(agents.Heartbeat(agent=agent, project=_project(call, agent)))
    call.output.one({"agent": agent, "expires_at": expires_at}, f"expires {age(expires_at)}")


@command.verb(examples=['coordinator agent deregister "$id"'])
@acting_agent()
@click.pass_obj
def deregister(call: Invocation, *, agent: AgentRef) -> None:
    """End an agent, and release everything that it holds."""
    call.run(agents.Deregister(agent=agent, project=_project(call, agent)))
    call.output.one({"agent": agent, "deregistered": True}, f"deregistered {plain(str(agent))}")


@command.verb(examples=["coordinator agent find coder-1"])
@click.argument("agent", metavar="NAME|ID")
@click.pass_obj
def find(call: Invocation, *, agent: str) -> None:
    """Print the id of a registered agent. Exit code 3: no agent has this name; the message says when the last one ended."""
    found = call.run(agents.Find(project=call.project, agent=agent))
    call.output.one({"id": found}, str(found))


@command.verb(
    examples=["coordinator agent list", "coordinator agent list --role coder", "coordinator agent list --all"]
)
@click.option("--role", metavar="ROLE", help="List only agents of this role.")
@click.option("--all", "ended", is_flag=True, help="Also list agents that ended in the last 30 days.")
@paged
@click.pass_obj
def list_(call: Invocation, *, role: str | None, ended: bool, after: str | None, limit: int | None) -> None:
    """List the registered agents, by name."""
    columns = ("name", "role", "id", *(("ended_at", "end_reason") if ended else ()), "expires_at", "heartbeat_at")
    call.list(
        agents.List(project=call.project, role=role, ended=ended),
        (*columns, "registered_at", "job_types", "labels", "metadata"),
        after=after,
        limit=limit,
        empty="No agents are registered.",
    )


@command.command(
    "run", cls=CommandVerb, examples=["coordinator agent run -- claude", "coordinator agent run -- codex exec 'fix #7'"]
)
@click.pass_obj
@click.pass_context
def run(ctx: click.Context, call: Invocation) -> int:
    """Run a coding agent whose sessions end with it.

    The exit code is the agent's exit code. When the agent or this command ends, even if it is killed, the sessions that its hooks
    registered are reaped within 2 seconds. Without this command, the session of a killed agent keeps its leases until its TTL expires.
    Through a daemon, only the end of the agent counts.
    """
    from coordinator.cli.agent_run import run as run_agent  # noqa: PLC0415

    return run_agent(call, CommandVerb.words(ctx))


def _project(call: Invocation, agent: AgentRef) -> str | None:
    """Return where to look for an agent: an id needs no project."""
    return None if isinstance(agent, UUID) else call.project
