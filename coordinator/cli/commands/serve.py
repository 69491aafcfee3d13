"""``coordinator serve``."""

from __future__ import annotations

import click

from coordinator.cli.command import Verb, setting
from coordinator.cli.invocation import Invocation

SETTINGS = [
    setting("host", "--host", metavar="ADDRESS", help="Where HTTP listens; default 127.0.0.1."),
    setting("port", "--port", metavar="PORT", help="Where HTTP listens; default 7420; 0: any that is free."),
    setting(
        "data_dir",
        "--data-dir",
        metavar="DIR",
        help="Data of the embedded database; default ~/.local/share/coordinator.",
    ),
    setting(
        "schema", "--verify-schema", is_flag=True, flag_value="verify", help="Only verify the schema, do not apply it."
    ),
    setting(
        "log_format",
        "--log-format",
        metavar="auto|json|console",
        help="Default auto: console on a terminal, else json.",
    ),
    setting("log_level", "--log-level", metavar="LEVEL", help="debug, info, warning or error; default info."),
]


@click.command(
    cls=Verb,
    settings=SETTINGS,
    examples=[
        "coordinator serve",
        "coordinator serve --port 0 --data-dir ./data",
        "coordinator serve --url postgresql://app@db.example/agents --verify-schema --host 0.0.0.0",
    ],
)
@click.pass_obj
def command(call: Invocation) -> None:
    """Run the daemon in the foreground.

    Without a configured database it starts an embedded PostgreSQL in the data directory. SIGTERM or Ctrl-C ends it in
    order, within 10 seconds.
    """
    config = call.config
    import anyio  # noqa: PLC0415

    from coordinator.daemon import serve  # noqa: PLC0415
    from coordinator.telemetry import logs  # noqa: PLC0415

    logs.configure(format=config.log_format, level=config.log_level)
    anyio.run(serve, config, backend_options={"use_uvloop": True})
