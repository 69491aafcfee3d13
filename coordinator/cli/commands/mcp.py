"""``coordinator mcp``."""

from __future__ import annotations

from datetime import timedelta

import click
from msgspec.structs import replace

from coordinator.cli.command import Verb, setting
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import DURATION

OPTIONS = [
    setting("agent", "--agent"),
    setting("role", "--role"),
    setting("database_url", "--upstream", help="Daemon to connect to, https://…; the same as --url."),
    setting("log_format", "--log-format"),
    setting("log_level", "--log-level"),
]


@click.command(
    cls=Verb,
    settings=OPTIONS,
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
@click.option(
    "--ttl", type=DURATION, default="30s", show_default=True, help="Reap the agent after this long without a heartbeat."
)
@click.pass_obj
def command(call: Invocation, *, tools: str, ttl: timedelta) -> None:
    """Serve the Model Context Protocol over stdio.

    It registers the agent, keeps the agent and its locks alive, and offers the operations as tools. It ends with its input, and
    releases everything. Without --agent, it makes up a name. It needs the extra "mcp".
    """
    config = replace(call.config, database_url=call.dsn())
    import anyio  # noqa: PLC0415

    from coordinator.model.token import Role  # noqa: PLC0415
    from coordinator.sidecar.main import serve_mcp  # noqa: PLC0415
    from coordinator.telemetry import logs  # noqa: PLC0415

    logs.configure(format=config.log_format, level=config.log_level)
    anyio.run(serve_mcp, config, ttl, Role[tools], backend_options={"use_uvloop": True})
