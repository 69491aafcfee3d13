"""``coordinator serve``."""

from __future__ import annotations

import click

from coordinator.cli.command import Verb, log_settings, setting
from coordinator.cli.invocation import Invocation

OPTIONS = [
    setting("host", "--host"),
    setting("port", "--port"),
    setting("data_dir", "--data-dir"),
    setting("replica_url", "--replica-url"),
    setting(
        "schema",
        "--verify-schema",
        is_flag=True,
        flag_value="verify",
        metavar=None,
        help="Only verify the schema.  [default: apply it]",
    ),
    *log_settings(),
]


@click.command(
    cls=Verb,
    settings=OPTIONS,
    examples=[
        "coordinator serve",
        "coordinator serve --port 0 --data-dir ./data",
        "coordinator serve --url postgresql://app@db.example/agents --verify-schema --host 0.0.0.0",
    ],
)
@click.pass_obj
def command(call: Invocation) -> None:
    """Run the daemon in the foreground.

    If no database is configured, the daemon starts an embedded PostgreSQL in the data directory. SIGTERM or Ctrl-C shuts it
    down in order, within 10 seconds.
    """
    from coordinator.daemon import serve  # noqa: PLC0415

    call.serve(serve, call.config)
