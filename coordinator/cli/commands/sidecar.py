"""``coordinator sidecar``."""

from __future__ import annotations

from datetime import timedelta

import click
from msgspec.structs import replace

from coordinator.cli.command import Verb, setting
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import DURATION, INTEGER

SETTINGS = [
    setting(
        "listen", "--listen", metavar="ADDRESS", help="On loopback; default 127.0.0.1:7421; none: only the socket."
    ),
    setting("socket", "--socket", metavar="PATH", help="Unix socket to listen on."),
    setting("agent", "--agent", metavar="NAME", help="Name of the agent; default: the pod's, POD_NAME."),
    setting("role", "--role", metavar="ROLE", help="Role of the agent."),
    setting("database_url", "--upstream", metavar="URL", help="A daemon to go through, https://…; the same as --url."),
    setting("log_format", "--log-format", metavar="auto|json|console", help="Default auto."),
    setting("log_level", "--log-level", metavar="LEVEL", help="debug, info, warning or error; default info."),
]


@click.command(
    cls=Verb,
    settings=SETTINGS,
    examples=[
        "coordinator sidecar --agent coder-1 --role coder",
        "coordinator sidecar --agent coder-1 --socket /run/coordinator/sidecar.sock --listen none",
        "coordinator sidecar --upstream https://coordinator.agents:7420 --pid 4711",
    ],
)
@click.option("--ttl", type=DURATION, default="30s", show_default=True, help="The agent is reaped when silent so long.")
@click.option("--pid", type=INTEGER, metavar="PID", help="The agent's process: when it ends, all is given back.")
@click.pass_obj
def command(call: Invocation, *, ttl: timedelta, pid: int | None) -> None:
    """Run beside one agent: register it, keep it and its locks alive, and serve it the HTTP API on this machine.

    "curl localhost:7421/v1/sidecar" says what is known of the agent and its locks. The agent's process can keep
    "curl -N localhost:7421/v1/sidecar/attach" open: when it ends, the sidecar gives all back and ends, too.
    """
    config = replace(call.config, database_url=call.dsn())
    import anyio  # noqa: PLC0415

    from coordinator.sidecar.main import serve  # noqa: PLC0415
    from coordinator.telemetry import logs  # noqa: PLC0415

    logs.configure(format=config.log_format, level=config.log_level)
    anyio.run(serve, config, ttl, pid, backend_options={"use_uvloop": True})
