"""``coordinator sidecar``."""

from __future__ import annotations

from datetime import timedelta

import click
from msgspec.structs import replace

from coordinator.cli.command import Verb, agent_settings, agent_ttl, setting, worker
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import INTEGER


@click.command(
    cls=Verb,
    settings=[setting("listen", "--listen"), setting("socket", "--socket"), *agent_settings()],
    examples=[
        "coordinator sidecar --agent coder-1 --role coder",
        "coordinator sidecar --agent builder-1 --job-type build --label gpu",
        "coordinator sidecar --agent coder-1 --socket /run/coordinator/sidecar.sock --listen none",
        "coordinator sidecar --upstream https://coordinator.agents:7420 --pid 4711",
    ],
)
@agent_ttl
@click.option(
    "--pid", type=INTEGER, metavar="PID", help="Process of the agent; when it ends, the sidecar releases everything."
)
@worker
@click.pass_obj
def command(
    call: Invocation, *, ttl: timedelta, pid: int | None, job_types: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    """Run the sidecar of one agent.

    The sidecar registers the agent, keeps the agent, its locks and its jobs alive, and serves the HTTP API to it.

    "curl localhost:7421/v1/sidecar" shows the agent, its locks and its jobs. The agent's process can keep
    "curl -N -X POST localhost:7421/v1/sidecar/attach" open; when it ends, the sidecar releases everything and exits.
    """
    config = replace(call.config, database_url=call.dsn())
    from coordinator.sidecar.main import serve  # noqa: PLC0415

    call.serve(serve, config, ttl, pid, job_types, labels)
