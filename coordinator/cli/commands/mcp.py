"""``coordinator mcp``."""

from __future__ import annotations

import os
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click
from msgspec.structs import replace

from coordinator.cli.command import Noun, agent_settings, agent_ttl
from coordinator.cli.invocation import Invocation
from coordinator.cli.tool_settings import TOOLS, apply, daemon, located, notes, place, program, scopes, states

if TYPE_CHECKING:
    from coordinator.hooks.dialects.entries import SettingsScope, Setup


class Serving(Noun):
    """A noun that serves if no verb is named: ``coordinator mcp --agent coder-1``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = {*self.commands, "-h", "--help"} & {*args}
        return super().parse_args(ctx, args if named else ["serve", *args])


command = Serving(help="MCP: offer the operations to models as tools.")


@command.verb(
    settings=agent_settings(),
    examples=[
        "coordinator mcp serve --agent coder-1",
        "coordinator mcp --agent coder-1                         # without a verb, it serves",
        "coordinator mcp serve --tools reader --upstream https://coordinator.agents:7420",
    ],
)
@click.option(
    "--tools",
    type=click.Choice(["reader", "agent", "manager"]),
    default="agent",
    show_default=True,
    help="Offer the tools of this role and the roles below it.",
)
@agent_ttl
@click.pass_obj
def serve(call: Invocation, *, tools: str, ttl: timedelta) -> None:
    """Serve over stdio.

    The server registers the agent, keeps the agent and its locks alive, and offers the operations as tools. When its input ends, it
    releases everything and exits. Without --agent, it generates a name. It needs the extra "mcp".
    """
    config = replace(call.config, database_url=call.dsn())
    from coordinator.model.token import Role  # noqa: PLC0415
    from coordinator.sidecar.main import serve_mcp  # noqa: PLC0415

    call.serve(serve_mcp, config, ttl, Role[tools])


def _setup(tool: str, scope: SettingsScope, root: Path, url: str | None) -> Setup:
    from coordinator.hooks.dialects import load  # noqa: PLC0415
    from coordinator.hooks.place import locate  # noqa: PLC0415

    command = [*program(), "mcp", "serve"]
    address = url and f"{url}/mcp"
    if scope == "project":
        project = locate(str(root), os.environ).project
        command += ["--project", project]
        address = address and f"{address}?project={quote(project, safe='')}"
    return load(tool).mcp(scope, command, address)


@command.verb(
    settings=scopes(),
    examples=[
        "coordinator mcp install claude-code",
        "coordinator mcp install codex --user --yes",
        "coordinator mcp install cursor --url https://coordinator.agents:7420",
    ],
)
@click.argument("tool", type=TOOLS, metavar="TOOL")
@click.option("--dry-run", is_flag=True, help="Show the changes without making them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def install(call: Invocation, *, tool: str, scope: str | None, dry_run: bool, yes: bool) -> None:
    """Add the server to the settings of a tool.

    TOOL is claude-code, codex, copilot, cursor, gemini or vscode. The command shows its changes, and asks before it makes them. With --url, the tool connects to a daemon, and reads the token from COORDINATOR_TOKEN.
    """
    _change(call, tool, scope, install=True, dry_run=dry_run, yes=yes)


@command.verb(settings=scopes(), examples=["coordinator mcp uninstall codex --user --yes"])
@click.argument("tool", type=TOOLS, metavar="TOOL")
@click.option("--dry-run", is_flag=True, help="Show the changes without making them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def uninstall(call: Invocation, *, tool: str, scope: str | None, dry_run: bool, yes: bool) -> None:
    """Remove the server from the settings of a tool."""
    _change(call, tool, scope, install=False, dry_run=dry_run, yes=yes)


@command.verb(settings=scopes(), examples=["coordinator mcp status", "coordinator mcp status codex --user"])
@click.argument("tool", type=TOOLS, metavar="[TOOL]", required=False)
@click.pass_obj
def status(call: Invocation, *, tool: str | None, scope: str | None) -> None:
    """Show which settings contain the server."""
    url = daemon(call)
    states(call, [tool] if tool else [*TOOLS.choices], scope, lambda name, kind, root: _setup(name, kind, root, url))


def _missing(url: str | None) -> str:
    """Return what has to be installed before a tool can start the server."""
    if url is not None or find_spec("mcp") is not None:
        return ""
    return 'The server needs the extra "mcp", which is not installed: pip install "coordinatord[mcp]"'


def _change(call: Invocation, tool: str, scope: str | None, *, install: bool, dry_run: bool, yes: bool) -> None:
    from coordinator.hooks.install.change import planned  # noqa: PLC0415

    kind, root = place(scope)
    setup = _setup(tool, kind, root, daemon(call))
    apply(
        call,
        tool,
        lambda: [planned(located(setup, kind, root), setup, install=install)],
        note=" ".join(filter(None, (notes(setup), _missing(daemon(call))))) if install else "",
        yes=yes,
        dry_run=dry_run,
    )
