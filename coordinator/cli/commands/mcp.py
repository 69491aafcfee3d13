"""``coordinator mcp``."""

from __future__ import annotations

from datetime import timedelta

import click
from msgspec.structs import replace

from coordinator.cli.command import Verb, agent_settings, agent_ttl
from coordinator.cli.invocation import Invocation


@click.command(
    cls=Verb,
    settings=agent_settings(),
    examples=[
        "coordinator mcp --agent coder-1",
        "coordinator mcp --tools reader --upstream https://coordinator.agents:7420",
        "claude mcp add coordinator -- coordinator mcp --agent coder-1",
    ],
)
@click.option(
    "--tools",
    type=click.Choice(["reader", "agent", "manager"]),
    default="agent",
    show_default=True,
    help="Offer the tools of this role and of those below it.",
)
@agent_ttl
@click.pass_obj
def command(call: Invocation, *, tools: str, ttl: timedelta) -> None:
    """Serve the Model Context Protocol over stdio.

    It registers the agent, keeps the agent and its locks alive, and offers the operations as tools. It ends with its input, and
    releases everything. Without --agent, it makes up a name. It needs the extra "mcp".
    """
    config = replace(call.config, database_url=call.dsn())
    from coordinator.model.token import Role  # noqa: PLC0415
    from coordinator.sidecar.main import serve_mcp  # noqa: PLC0415

    call.serve(serve_mcp, config, ttl, Role[tools])
