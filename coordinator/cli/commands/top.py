"""``coordinator top``."""

from __future__ import annotations

import sys
from datetime import timedelta

import click

from coordinator.cli.command import Verb
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import DURATION
from coordinator.config import SETTINGS
from coordinator.errors import ConfigurationError


@click.command(
    cls=Verb,
    examples=[
        "coordinator top",
        "coordinator top --project shop --interval 5s",
        "coordinator top --url https://db:7420",
    ],
)
@click.option("--interval", type=DURATION, default="2s", show_default=True, help="Time between two refreshes.")
@click.pass_obj
def command(call: Invocation, *, interval: timedelta) -> None:
    """Watch agents, locks, waits, jobs, events and calls live.

    Keys: 1 to 7 choose the view, s sorts by the next column, r reverses the order, / filters, enter opens a row. x deregisters an agent,
    breaks a lock or cancels a job, after a confirmation. Space pauses, q quits. It needs a terminal and the extra "top".
    """
    try:
        from coordinator.cli.top.app import Top, source_of  # noqa: PLC0415 - Textual is optional and slow to import
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(("textual", "rich")):
            raise
        raise ConfigurationError(
            "coordinator top needs Textual, which is not installed",
            hint='Install the extra: pip install "coordinatord[top]"',
        ) from None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError('top needs a terminal; scripts read "coordinator status" and "coordinator doctor"')
    url = call.dsn()
    if interval <= timedelta(0):
        raise click.BadParameter("give more than 0s", param_hint="--interval")
    top = Top(
        lambda: source_of(url, call.config, call.project, call.config.actor),
        SETTINGS["database_url"].written(url),
        interval.total_seconds(),
    )
    top.run()
